"""Calendar features against pandas' fields."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from metier.core.errors import InputError
from metier.forecast.panels.calendar import CALENDAR, calendar_features, calendar_names

STAMPS = pd.date_range("2023-12-29", periods=24 * 70, freq="h")
YEARS = pd.date_range("2023-01-01", "2024-12-31", freq="D")


def waves(position: np.ndarray, n_harmonics: int) -> np.ndarray:
    columns = []
    for k in range(1, n_harmonics + 1):
        columns += [np.sin(2 * np.pi * k * position), np.cos(2 * np.pi * k * position)]
    return np.column_stack(columns)


@pytest.mark.parametrize(
    ("name", "position", "n_harmonics"),
    [
        ("hour", lambda s: s.hour / 24, 3),
        ("dayofweek", lambda s: s.day_of_week / 7, 3),
        ("hour_of_week", lambda s: (s.day_of_week * 24 + s.hour) / 168, 3),
        ("dayofmonth", lambda s: (s.day - 1) / s.days_in_month, 2),
        ("month", lambda s: (s.month - 1) / 12, 2),
        ("dayofyear", lambda s: (s.day_of_year - 1) / np.where(s.is_leap_year, 366, 365), 3),
    ],
)
@pytest.mark.parametrize("stamps", [STAMPS, YEARS])
@pytest.mark.parametrize("unit", ["s", "ns"])
def test_features_should_follow_the_calendar(
    name: str, position: object, n_harmonics: int, stamps: pd.DatetimeIndex, unit: str
) -> None:
    expected = waves(np.asarray(position(stamps)), n_harmonics)  # type: ignore[operator]
    np.testing.assert_allclose(
        calendar_features(stamps.as_unit(unit).to_numpy(), [name]), expected, atol=1e-12
    )


def test_week_of_year_should_stay_for_seven_days() -> None:
    features = calendar_features(YEARS.to_numpy()[:364], ["weekofyear"])
    assert len(np.unique(features.round(9), axis=0)) == 52
    runs = np.flatnonzero(np.abs(np.diff(features, axis=0)).max(axis=1) > 1e-9)
    assert set(np.diff(runs)) == {7}


def test_minutes_should_count_in_the_hour() -> None:
    half_past = np.array(["2024-01-01T06:30"], dtype="M8[m]")
    np.testing.assert_allclose(calendar_features(half_past, ["hour"]), waves(np.array([6.5 / 24]), 3))


def test_columns_should_match_their_names() -> None:
    names = calendar_names(CALENDAR)
    features = calendar_features(STAMPS.to_numpy(), CALENDAR)
    assert features.shape == (STAMPS.size, len(names))
    assert len(set(names)) == len(names)
    assert np.abs(features).max() <= 1.0
    parts = [calendar_features(STAMPS.to_numpy(), [name]) for name in CALENDAR]
    np.testing.assert_array_equal(features, np.hstack(parts))
    assert calendar_features(STAMPS.to_numpy(), []).shape == (STAMPS.size, 0)


def test_the_days_of_a_week_should_be_told_apart_completely() -> None:
    week = calendar_features(np.arange("2024-01-01", "2024-01-08", dtype="M8[D]"), ["dayofweek"])
    assert np.linalg.matrix_rank(np.column_stack([np.ones(7), week])) == 7


def test_wrong_requests_should_be_refused() -> None:
    with pytest.raises(InputError, match=r"Did you mean 'dayofweek'"):
        calendar_features(STAMPS.to_numpy(), ["day_of_week"])
    with pytest.raises(InputError, match=r"each cycle once: expected no repeats, got 'hour', 'hour'"):
        calendar_names(["hour", "hour"])
    with pytest.raises(InputError, match=r"calendar features need dates.*got time of type int64"):
        calendar_features(np.arange(3), ["hour"])
