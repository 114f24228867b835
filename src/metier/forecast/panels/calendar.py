"""Calendar features: smooth cycles of the clock and the date, as sine and cosine pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import one_of
from metier.core.errors import InputError
from metier.forecast.panels.frequency import (
    UNIT_NANOSECONDS,
    month_index,
    time_of_day,
    unit_of,
    weekday_index,
)

Floats = NDArray[np.float64]


def _hour(stamps: NDArray[Any]) -> Floats:
    nanoseconds = time_of_day(stamps).astype(np.float64) * UNIT_NANOSECONDS[unit_of(stamps)]
    return np.asarray(nanoseconds / UNIT_NANOSECONDS["h"])


def _day_in(stamps: NDArray[Any], unit: str) -> Floats:
    """Days since the start of the month or year, with its length: position as a fraction."""
    days = stamps.astype("M8[D]")
    start = days.astype(f"M8[{unit}]")
    length = (start + 1).astype("M8[D]") - start.astype("M8[D]")
    return np.asarray((days - start.astype("M8[D]")).astype(np.float64) / length.astype(np.float64))


# name -> (position in the cycle as a fraction of it, number of harmonics)
_CYCLES: dict[str, tuple[Callable[[NDArray[Any]], Floats], int]] = {
    "hour": (lambda stamps: _hour(stamps) / 24, 3),
    "dayofweek": (lambda stamps: weekday_index(stamps) / 7, 3),
    "hour_of_week": (lambda stamps: (24 * weekday_index(stamps) + _hour(stamps)) / 168, 3),
    "dayofmonth": (lambda stamps: _day_in(stamps, "M"), 2),
    "weekofyear": (lambda stamps: np.floor(_day_in(stamps, "Y") * 365.2425 / 7) * 7 / 365.2425, 2),
    "month": (lambda stamps: month_index(stamps) % 12 / 12, 2),
    "dayofyear": (lambda stamps: _day_in(stamps, "Y"), 3),
}

CALENDAR = tuple(_CYCLES)
"""Names that `calendar_features` knows."""


def calendar_names(names: Sequence[str]) -> tuple[str, ...]:
    """The columns of `calendar_features`, in order.

    Example:
        >>> calendar_names(["month"])
        ('month_sin1', 'month_cos1', 'month_sin2', 'month_cos2')
    """
    return tuple(
        f"{name}_{wave}{k}"
        for name in _known(names)
        for k in range(1, _CYCLES[name][1] + 1)
        for wave in ("sin", "cos")
    )


def calendar_features(stamps: NDArray[Any], names: Sequence[str]) -> Floats:
    """sin(2 pi k u) and cos(2 pi k u) for k = 1..K, u the position in each named cycle.

    "hour" (of the day, minutes included), "dayofweek", "hour_of_week" and "dayofyear" have K = 3 harmonics,
    which is complete for the days of a week; "dayofmonth", "weekofyear" and "month" have K = 2. Months and
    years are taken at their own length, so that their ends meet.

    Args:
        stamps: (T,) datetime64.
        names: any of `CALENDAR`, without repeats.

    Returns:
        (T, C) float64 in [-1, 1], columns as in `calendar_names`.

    Raises:
        InputError: unknown or repeated names, or integer time.

    Example:
        >>> noon = np.array(["2024-01-01T12"], dtype="datetime64[h]")
        >>> calendar_features(noon, ["hour"]).round(6)[0, 1]
        np.float64(-1.0)
    """
    stamps = np.asarray(stamps)
    known = _known(names)
    if stamps.dtype.kind != "M" and known:
        raise InputError(
            "calendar features need dates",
            expected="a time column of dates",
            got=f"time of type {stamps.dtype}",
            next_step="Leave calendar features out, or convert the time column.",
        )
    columns: list[Floats] = []
    for name in known:
        position, n_harmonics = _CYCLES[name]
        angle = 2 * np.pi * position(stamps)
        for k in range(1, n_harmonics + 1):
            columns += [np.sin(k * angle), np.cos(k * angle)]
    return np.column_stack(columns) if columns else np.empty((stamps.size, 0))


def _known(names: Sequence[str]) -> tuple[str, ...]:
    listed = tuple(
        one_of("calendar", name, _CYCLES) for name in ([names] if isinstance(names, str) else names)
    )
    if len(set(listed)) < len(listed):
        raise InputError(
            "calendar names each cycle once",
            expected="no repeats",
            got=", ".join(repr(name) for name in listed),
            next_step="Remove the repeated name.",
        )
    return listed
