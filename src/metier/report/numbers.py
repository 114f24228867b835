"""Numbers as people read them: as many digits as the interval warrants, a true minus sign, percent."""

from __future__ import annotations

import math

from metier.records.results import Column, Measured

MINUS = "−"


def format_number(value: float, *, digits: int | None = None) -> str:
    """Return a number with `digits` decimals, or with about four significant digits.

    Example:
        >>> format_number(1234.5678), format_number(-0.00012345), format_number(2.0)
        ('1,235', '−0.0001234', '2')
    """
    if digits is None:
        if value == int(value) and abs(value) < 1e15:
            text = f"{int(value):,}"
        elif 1e-4 <= abs(value) < 1e6:
            decimals = max(0, 3 - math.floor(math.log10(abs(value))))
            text = f"{value:,.{decimals}f}"
            text = text.rstrip("0").rstrip(".") if "." in text else text
        else:
            text = f"{value:.3g}"
    else:
        text = f"{value:,.{digits}f}"
    # A value that rounds to nothing has no sign.
    if text.startswith("-") and not any(c in "123456789" for c in text):
        text = text[1:]
    return text.replace("-", MINUS)


def decimals_for(low: float, high: float) -> int:
    """Return the decimals at which the interval's half-width shows two significant digits, at most 8.

    Example:
        >>> decimals_for(0.101, 0.149), decimals_for(10.0, 90.0)
        (3, 0)
    """
    half = (high - low) / 2.0
    return 4 if half <= 0 else min(8, max(0, 1 - math.floor(math.log10(half))))


def format_value(measured: Measured) -> str:
    """Return the point value alone, with as many digits as its interval warrants.

    Example:
        >>> format_value(Measured(value=0.1234, low=0.1, high=0.15, level=0.95, percent=True))
        '12.3 %'
    """
    scale, suffix = (100.0, " %") if measured.percent else (1.0, "")
    return format_number(scale * measured.value, digits=_digits(measured, scale)) + suffix


def format_interval(measured: Measured) -> str:
    """Return the interval in brackets; one unbounded side becomes a bound; an exact number has none.

    Example:
        >>> format_interval(Measured(value=1, low=0.5, high=1.5, level=0.9))
        '[0.50, 1.50]'
    """
    scale = 100.0 if measured.percent else 1.0
    digits = _digits(measured, scale)
    if measured.low is None and measured.high is None:
        return ""
    if measured.high is None:
        assert measured.low is not None
        return f"≥ {format_number(scale * measured.low, digits=digits)}"
    if measured.low is None:
        return f"≤ {format_number(scale * measured.high, digits=digits)}"
    ends = [format_number(scale * end, digits=digits) for end in (measured.low, measured.high)]
    return f"[{ends[0]}, {ends[1]}]"


def format_measured(measured: Measured) -> str:
    """Return value and interval.

    Example:
        >>> format_measured(Measured(value=0.1234, low=0.1, high=0.15, level=0.95, percent=True))
        '12.3 % [10.0, 15.0]'
    """
    return f"{format_value(measured)} {format_interval(measured)}".strip()


def _digits(measured: Measured, scale: float) -> int | None:
    if measured.low is None or measured.high is None:
        return None
    return decimals_for(scale * measured.low, scale * measured.high)


def format_p_value(value: float) -> str:
    """Return a p-value; below 0.001 only that it is.

    Example:
        >>> format_p_value(0.0421), format_p_value(1e-9)
        ('0.042', '< 0.001')
    """
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def format_cell(value: Measured | str | bool | int | float | None, column: Column) -> str:
    """Return a table cell's text by its column's kind.

    Example:
        >>> format_cell(0.25, Column(name="share", kind="percent")), format_cell(None, Column(name="x"))
        ('25 %', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, Measured):
        return format_measured(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if column.kind == "percent":
        return format_number(100.0 * value, digits=column.digits) + " %"
    if column.kind == "p_value":
        return format_p_value(value)
    return format_number(value, digits=column.digits)


def format_seconds(seconds: float) -> str:
    """Return a duration.

    Example:
        >>> format_seconds(3.21), format_seconds(125), format_seconds(7320)
        ('3.2 s', '2 min 5 s', '2 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
