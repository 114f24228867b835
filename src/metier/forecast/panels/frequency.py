"""The regular time grid of a panel: fixed steps, calendar months, business days, or integers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metier.core.errors import InputError

Kind = Literal["integer", "fixed", "month", "business"]
Stamps = NDArray[Any]

UNIT_NANOSECONDS = {
    "D": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
_DAY = UNIT_NANOSECONDS["D"]
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_FIXED = {
    **dict.fromkeys(("D", "d"), _DAY),
    **dict.fromkeys(("W", "w"), 7 * _DAY),
    **dict.fromkeys(("h", "H"), UNIT_NANOSECONDS["h"]),
    **dict.fromkeys(("min", "m", "T"), UNIT_NANOSECONDS["m"]),
    **dict.fromkeys(("s", "S"), UNIT_NANOSECONDS["s"]),
    **{alias: UNIT_NANOSECONDS[alias] for alias in ("ms", "us", "ns")},
}
# alias -> (months, day rule): 1 is the month's first day, END its last, None whatever day the data keep to
END = -1
_MONTHLY: dict[str, tuple[int, int | None]] = {
    "MS": (1, 1),
    "ME": (1, END),
    "M": (1, END),
    "mo": (1, None),
    "QS": (3, 1),
    "QE": (3, END),
    "Q": (3, END),
    "q": (3, None),
    "YS": (12, 1),
    "AS": (12, 1),
    "YE": (12, END),
    "Y": (12, END),
    "A": (12, END),
    "y": (12, None),
}
_ALIAS = re.compile(r"(\d*)\s*([A-Za-z]+)(?:-([A-Za-z]{3}))?")
_KNOWN = (
    "'s', 'min' (polars 'm'), 'h', 'D', 'B', 'W', 'MS', 'ME', 'QS', 'QE', 'YS', 'YE', 'mo', 'q', 'y', "
    "a multiple such as '15min', an anchor such as 'W-MON' or 'QS-FEB', or an integer for integer time"
)


@dataclass(frozen=True, slots=True)
class Frequency:
    """A regular grid: stamp k is the origin moved by k steps.

    `kind` says what a step is, `step` how long: integers, nanoseconds (``fixed``), months (``month``) or
    weekdays from Monday to Friday without holidays (``business``). `weekday` (0 = Monday) is kept only when
    the user anchored a week, `day` is the day rule of a month (1 to 28, or ``END``), `phase` the month modulo
    `step`.

    Example:
        >>> Frequency.parse("15min").step
        900000000000
        >>> Frequency.parse("ME").advance(np.datetime64("2024-01-31"), 1)
        np.datetime64('2024-02-29')
    """

    kind: Kind
    step: int
    name: str
    weekday: int | None = None
    day: int | None = None
    phase: int | None = None

    @classmethod
    def parse(cls, freq: str | int | Frequency) -> Frequency:
        """Read a pandas-, Nixtla- or polars-style alias, or an integer step for integer time.

        Args:
            freq: for example ``"h"``, ``"30min"``, ``"W-MON"``, ``"MS"``, ``"1mo"``, ``1``.

        Returns:
            The frequency; its day rule and phase are open until `anchored` sees data, where the alias leaves
            them open.

        Raises:
            InputError: the alias is unknown.

        Example:
            >>> Frequency.parse("W").step == Frequency.parse("7D").step
            True
        """
        if isinstance(freq, Frequency):
            return freq
        if isinstance(freq, (int, np.integer)) and not isinstance(freq, bool):
            return cls._integer(int(freq))
        match = _ALIAS.fullmatch(freq.strip()) if isinstance(freq, str) else None
        if match is None:
            raise _unknown(freq)
        parsed = _from_alias(int(match[1] or 1), match[2], (match[3] or "").upper(), match[0])
        if parsed is None:
            raise _unknown(freq)
        return parsed

    @classmethod
    def infer(cls, stamps: Stamps, series: NDArray[np.intp] | None = None) -> Frequency:
        """Find the frequency as the median step inside the series, months and business days recognized.

        Args:
            stamps: (n,) datetime64 or integers, increasing inside each series; repeats are allowed.
            series: (n,) codes, equal for the rows of one series, which are adjacent; None is one series.

        Returns:
            The frequency. Daily stamps that cross weekends and have none on them are business days.

        Raises:
            InputError: no series has two different stamps.

        Example:
            >>> Frequency.infer(np.array(["2024-01-31", "2024-02-29"], dtype="datetime64[D]")).name
            'ME'
        """
        step = np.diff(stamps).astype(np.int64)
        inside = step > 0
        if series is not None:
            inside &= series[1:] == series[:-1]
        if not inside.any():
            raise InputError(
                "the frequency is inferred from the steps between stamps",
                expected="at least one series with two different stamps",
                got="none",
                next_step="Pass freq, for example freq='D'.",
            )
        median = _lower_median(step[inside])
        if stamps.dtype.kind != "M":
            return cls._integer(median)
        nanoseconds = median * unit_nanoseconds(stamps)
        if nanoseconds >= 28 * _DAY:
            months = _lower_median(np.diff(month_index(stamps))[inside])
            monthly = cls._monthly(months, stamps) if months > 0 else None
            if monthly is not None:
                return monthly
        crosses_weekend = nanoseconds == _DAY and bool((step[inside] >= 3 * median).any())
        if crosses_weekend and not (weekday_index(stamps) > 4).any():
            return cls("business", 1, "B")
        return cls("fixed", nanoseconds, _fixed_name(nanoseconds))

    @classmethod
    def _integer(cls, step: int) -> Frequency:
        if step < 1:
            raise _unknown(step)
        return cls("integer", step, str(step))

    @classmethod
    def _monthly(cls, months: int, stamps: Stamps) -> Frequency | None:
        day = _common_day(stamps)
        if day is None:
            return None
        return cls(
            "month", months, _month_name(months, day), day=day, phase=int(month_index(stamps[:1])[0]) % months
        )

    def anchored(self, stamps: Stamps) -> Frequency:
        """Settle from the data what the alias left open: day of the month, phase of quarters and years.

        Args:
            stamps: (n,) stamps on the grid; the phase is taken from the earliest.

        Returns:
            A frequency with every field its kind needs.

        Raises:
            InputError: integer steps for dates (or the reverse), or months without a common day.

        Example:
            >>> stamps = np.array(["2024-01-15", "2024-02-15"], dtype="datetime64[D]")
            >>> Frequency.parse("1mo").anchored(stamps).day
            15
        """
        self._check_kind(stamps)
        if self.kind != "month":
            return self
        day = self.day if self.day is not None else _common_day(stamps)
        if day is None:
            raise InputError(
                f"with freq={self.name!r} all stamps share one day of the month (1 to 28) or are month ends",
                expected="one such day",
                got=f"stamps such as {stamps[0]} and {_other_day(stamps)}",
                next_step="Move the stamps to month starts or ends, or pass a freq such as 'D'.",
            )
        first = int(month_index(np.asarray([stamps.min()]))[0])
        phase = self.phase if self.phase is not None else first % self.step
        return replace(self, day=day, phase=phase)

    def index_of(self, stamps: Stamps, origin: Any) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Count the steps from `origin` to each stamp, and say which stamps lie on the grid through it.

        Args:
            stamps: array of stamps, any shape, of the origin's type.
            origin: a stamp of the grid.

        Returns:
            (index, on_grid), shaped as `stamps`; the index is rounded down where a stamp is off the grid.

        Example:
            >>> days = np.array(["2024-03-31", "2024-04-30", "2024-05-15"], dtype="datetime64[D]")
            >>> index, on_grid = Frequency.parse("ME").index_of(days, np.datetime64("2024-03-31"))
            >>> index.tolist(), on_grid.tolist()
            ([0, 1, 2], [True, True, False])
        """
        stamps, origin = np.asarray(stamps), np.asarray(origin)
        if self.kind in ("integer", "fixed"):
            index, rest = np.divmod((stamps - origin).astype(np.int64), self._step_in_units(stamps))
            on_grid = rest == 0
            if self.weekday is not None:
                on_grid &= weekday_index(stamps) == self.weekday
            return index, on_grid
        same_time = time_of_day(stamps) == time_of_day(origin)
        if self.kind == "business":
            days, day0 = stamps.astype("M8[D]"), origin.astype("M8[D]")
            counted = np.asarray(np.busday_count(day0, days), dtype=np.int64)
            return counted, same_time & np.is_busday(days) & np.is_busday(day0)
        index, rest = np.divmod(month_index(stamps) - month_index(origin), self.step)
        in_phase = self.phase is None or int(month_index(origin)) % self.step == self.phase
        return index, same_time & (rest == 0) & in_phase & self._on_day(stamps, origin)

    def advance(self, stamp: Any, steps: Any) -> Any:
        """Move `stamp` by `steps` grid steps, both broadcast.

        Args:
            stamp: a stamp of the grid, or an array of them.
            steps: integer(s), negative for the past.

        Returns:
            The moved stamp(s), in the unit of `stamp`.

        Raises:
            InputError: the step is finer than the unit of the stamps.

        Example:
            >>> Frequency.parse("B").advance(np.datetime64("2024-05-31"), np.array([1, 2])).tolist()
            [datetime.date(2024, 6, 3), datetime.date(2024, 6, 4)]
        """
        stamp, steps = np.asarray(stamp), np.asarray(steps, dtype=np.int64)
        if self.kind == "integer":
            return stamp + self.step * steps
        if self.kind == "fixed":
            return stamp + (self._step_in_units(stamp) * steps).astype(f"m8[{unit_of(stamp)}]")
        clock = time_of_day(stamp)
        if self.kind == "business":
            return np.busday_offset(stamp.astype("M8[D]"), steps).astype(stamp.dtype) + clock
        months = (month_index(stamp) + self.step * steps).astype("M8[M]")
        day = self._day_for(stamp)
        last = (months + 1).astype("M8[D]") - 1
        wanted = months.astype("M8[D]") + (day - 1)
        return np.where(day == END, last, wanted).astype(stamp.dtype)[()] + clock

    def grid(self, start: Any, stop: Any) -> Stamps:
        """All stamps from `start` to `stop`, both included.

        Args:
            start: first stamp.
            stop: a stamp of the same grid, not before `start`.

        Returns:
            (n,) stamps.

        Example:
            >>> Frequency.parse("5D").grid(np.datetime64("2024-01-01"), np.datetime64("2024-01-11")).size
            3
        """
        last, _ = self.index_of(np.asarray([stop]), start)
        return np.asarray(self.advance(start, np.arange(int(last[0]) + 1)))

    def _check_kind(self, stamps: Stamps) -> None:
        is_date = stamps.dtype.kind == "M"
        if is_date == (self.kind == "integer"):
            raise InputError(
                "the frequency must fit the time column",
                expected="a date alias such as 'D'" if is_date else "an integer step such as freq=1",
                got=f"freq={self.name!r} with {'dates' if is_date else 'integers'}",
                next_step="Change freq, or leave it out to infer it.",
            )

    def _step_in_units(self, stamps: Stamps) -> int:
        if self.kind == "integer":
            return self.step
        step, rest = divmod(self.step, unit_nanoseconds(stamps))
        if rest:
            raise InputError(
                "the unit of the time column must divide the frequency",
                expected=f"a unit that divides {self.name!r}",
                got=f"stamps in unit {unit_of(stamps)!r}",
                next_step="Cast the time column to a finer unit, such as microseconds.",
            )
        return step

    def _day_for(self, stamp: Stamps) -> Any:
        if self.day is not None:
            return np.int64(self.day)
        return np.where(is_month_end(stamp), END, day_of_month(stamp))

    def _on_day(self, stamps: Stamps, origin: Stamps) -> NDArray[np.bool_]:
        day = int(self._day_for(origin))
        return is_month_end(stamps) if day == END else day_of_month(stamps) == day


def stamp_text(stamp: Any) -> str:
    """A stamp as a person writes it, without zeros that say nothing.

    Example:
        >>> stamp_text(np.datetime64("2024-01-31", "us")), stamp_text(np.datetime64("2024-01-31T05", "ns"))
        ('2024-01-31', '2024-01-31 05:00')
        >>> stamp_text(np.int64(7))
        '7'
    """
    date, _, clock = str(stamp).partition("T")
    clock = re.sub(r"\.?0+$", "", clock) if "." in clock else clock
    clock = re.sub(r"^(\d\d:\d\d):00$", r"\1", clock)
    return date if clock in ("", "00:00", "00") else f"{date} {clock}"


def unit_of(stamps: Stamps) -> str:
    """The unit of a datetime64 array, such as 'us'."""
    return np.datetime_data(np.asarray(stamps).dtype)[0]


def unit_nanoseconds(stamps: Stamps) -> int:
    """Nanoseconds in the unit of a datetime64 array."""
    unit, count = np.datetime_data(np.asarray(stamps).dtype)
    return UNIT_NANOSECONDS[unit] * count


def month_index(stamps: Stamps) -> NDArray[np.int64]:
    """Months since 1970-01."""
    return np.asarray(stamps).astype("M8[M]").astype(np.int64)


def day_of_month(stamps: Stamps) -> NDArray[np.int64]:
    """1 to 31."""
    days = np.asarray(stamps).astype("M8[D]")
    return np.asarray((days - days.astype("M8[M]").astype("M8[D]")).astype(np.int64) + 1)


def is_month_end(stamps: Stamps) -> NDArray[np.bool_]:
    """Whether the day is the last of its month."""
    days = np.asarray(stamps).astype("M8[D]")
    return np.asarray((days + 1).astype("M8[M]") != days.astype("M8[M]"))


def weekday_index(stamps: Stamps) -> NDArray[np.int64]:
    """0 = Monday to 6 = Sunday."""
    # 1970-01-01 was a Thursday
    return (np.asarray(stamps).astype("M8[D]").astype(np.int64) + 3) % 7


def time_of_day(stamps: Stamps) -> NDArray[np.timedelta64]:
    """Time since midnight, in the unit of the stamps."""
    stamps = np.asarray(stamps)
    return np.asarray(stamps - stamps.astype("M8[D]").astype(stamps.dtype))


def _lower_median(values: NDArray[np.int64]) -> int:
    middle = (values.size - 1) // 2
    return int(np.partition(values, middle)[middle])


def _common_day(stamps: Stamps) -> int | None:
    if is_month_end(stamps).all():
        return END
    days = day_of_month(stamps)
    return int(days[0]) if days[0] <= 28 and (days == days[0]).all() else None


def _other_day(stamps: Stamps) -> Any:
    days = day_of_month(stamps)
    different = np.flatnonzero(days != days[0])
    return stamps[different[0]] if different.size else stamps[-1]


def _from_alias(count: int, word: str, anchor: str, name: str) -> Frequency | None:
    if count < 1:
        return None
    if word in _FIXED:
        step = count * _FIXED[word]
        if not anchor:
            return Frequency("fixed", step, name)
        weekly = word in ("W", "w") and anchor in _WEEKDAYS
        return Frequency("fixed", step, name, weekday=_WEEKDAYS.index(anchor)) if weekly else None
    if word == "B" and count == 1 and not anchor:
        return Frequency("business", 1, name)
    if word not in _MONTHLY:
        return None
    months, day = _MONTHLY[word]
    if not anchor:
        return Frequency("month", count * months, name, day=day, phase=0 if count * months == 1 else None)
    if months == 1 or count > 1 or day is None or anchor not in _MONTHS:
        return None
    # months are counted from January 1970, so January has phase 0 in quarters and years alike
    return Frequency("month", months, name, day=day, phase=_MONTHS.index(anchor) % months)


def _fixed_name(nanoseconds: int) -> str:
    if nanoseconds % (7 * _DAY) == 0:
        unit, size = "W", 7 * _DAY
    else:
        unit, size = next((u, n) for u, n in UNIT_NANOSECONDS.items() if nanoseconds % n == 0)
    count = nanoseconds // size
    return ("" if count == 1 else str(count)) + ("min" if unit == "m" else unit)


def _month_name(months: int, day: int) -> str:
    if day not in (1, END):
        return "mo" if months == 1 else f"{months}mo"
    base, size = next(
        (letter, size) for letter, size in (("Y", 12), ("Q", 3), ("M", 1)) if months % size == 0
    )
    count = "" if months == size else str(months // size)
    return count + base + ("S" if day == 1 else "E")


def _unknown(freq: object) -> InputError:
    return InputError(
        "freq must be a known frequency",
        expected=_KNOWN,
        got=repr(freq),
        next_step="Write one of these, or leave freq out to infer it from the data.",
    )
