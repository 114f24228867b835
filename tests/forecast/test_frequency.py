"""Frequencies against pandas' own date ranges."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from metier.core.errors import InputError
from metier.forecast.panels.frequency import Frequency

# our alias, pandas' alias, a start that is on the grid
ALIASES = [
    ("s", "s", "2024-02-28T23:59:58"),
    ("15min", "15min", "2024-02-28T23:45"),
    ("15m", "15min", "2024-02-28T23:45"),
    ("h", "h", "2024-02-28T22:00"),
    ("H", "h", "2024-02-28T22:00"),
    ("30min", "30min", "2024-02-28T22:30"),
    ("D", "D", "2024-02-27"),
    ("1d", "D", "2024-02-27"),
    ("B", "B", "2024-02-29"),
    ("W", "W-WED", "2024-02-28"),
    ("W-MON", "W-MON", "2024-02-26"),
    ("2W", "14D", "2024-02-28"),
    ("MS", "MS", "2023-11-01"),
    ("1mo", "MS", "2023-11-01"),
    ("ME", "ME", "2023-11-30"),
    ("M", "ME", "2023-11-30"),
    ("2MS", "2MS", "2023-11-01"),
    ("QS", "QS", "2023-10-01"),
    ("QS-FEB", "QS-FEB", "2023-11-01"),
    ("QE", "QE", "2023-12-31"),
    ("1q", "QE", "2023-12-31"),
    ("YS", "YS", "2023-01-01"),
    ("YE", "YE", "2023-12-31"),
    ("YE-FEB", "YE-FEB", "2023-02-28"),
    ("1y", "YE", "2023-12-31"),
]


def pandas_range(alias: str, start: str, periods: int = 40) -> np.ndarray:
    return pd.date_range(start, periods=periods, freq=alias).to_numpy().astype("M8[us]")


@pytest.mark.parametrize(("alias", "pandas_alias", "start"), ALIASES)
def test_grid_should_equal_the_pandas_range(alias: str, pandas_alias: str, start: str) -> None:
    expected = pandas_range(pandas_alias, start)
    freq = Frequency.parse(alias).anchored(expected)
    np.testing.assert_array_equal(freq.advance(expected[0], np.arange(40)), expected)
    np.testing.assert_array_equal(freq.grid(expected[0], expected[-1]), expected)
    index, on_grid = freq.index_of(expected, expected[0])
    np.testing.assert_array_equal(index, np.arange(40))
    assert on_grid.all()


@pytest.mark.parametrize(("alias", "pandas_alias", "start"), ALIASES)
def test_infer_should_find_the_grid_in_spite_of_gaps(alias: str, pandas_alias: str, start: str) -> None:
    expected = pandas_range(pandas_alias, start)
    holed = np.delete(expected, [3, 10, 11, 30])
    freq = Frequency.infer(holed)
    np.testing.assert_array_equal(freq.grid(expected[0], expected[-1]), expected)


@pytest.mark.parametrize(
    ("alias", "start", "name"),
    [
        ("h", "2024-01-01", "h"),
        ("90min", "2024-01-01", "90min"),
        ("7D", "2024-01-01", "W"),
        ("ME", "2024-01-31", "ME"),
        ("MS", "2024-01-01", "MS"),
        ("QE", "2024-03-31", "QE"),
        ("YS", "2024-01-01", "YS"),
        ("28D", "2024-01-01", "4W"),
        ("B", "2024-01-01", "B"),
    ],
)
def test_infer_should_name_what_parse_reads(alias: str, start: str, name: str) -> None:
    stamps = pandas_range(alias, start)
    freq = Frequency.infer(stamps)
    assert freq.name == name
    np.testing.assert_array_equal(
        Frequency.parse(freq.name).anchored(stamps).grid(stamps[0], stamps[-1]), stamps
    )


def test_infer_should_keep_daily_data_with_weekends_daily() -> None:
    assert Frequency.infer(pandas_range("D", "2024-01-01")).name == "D"
    # five days from Monday say nothing about weekends
    assert Frequency.infer(pandas_range("B", "2024-01-01", 5)).name == "D"


def test_infer_should_read_steps_inside_series_only() -> None:
    hourly = pandas_range("h", "2024-01-01T00:00", 6)
    shifted = hourly + np.timedelta64(30, "m")
    codes = np.repeat([0, 1], 6)
    assert Frequency.infer(np.concatenate([hourly, shifted]), codes).name == "h"


def test_infer_should_read_a_day_of_the_month() -> None:
    stamps = np.array(["2023-12-15", "2024-01-15", "2024-02-15", "2024-03-15"], dtype="M8[D]")
    freq = Frequency.infer(stamps)
    assert (freq.kind, freq.step, freq.day) == ("month", 1, 15)
    np.testing.assert_array_equal(
        freq.advance(stamps[-1], [1, 2]), np.array(["2024-04-15", "2024-05-15"], "M8[D]")
    )


def test_integers_should_have_integer_frequency() -> None:
    freq = Frequency.infer(np.array([10, 15, 20, 30]))
    assert (freq.kind, freq.step) == ("integer", 5)
    index, on_grid = freq.index_of(np.array([10, 30, 31]), 10)
    assert index.tolist() == [0, 4, 4]
    assert on_grid.tolist() == [True, True, False]


def test_month_ends_should_not_drift_through_february() -> None:
    freq = Frequency.parse("ME")
    after = freq.advance(np.datetime64("2024-02-29", "D"), np.array([1, 12]))
    assert after.astype(str).tolist() == ["2024-03-31", "2025-02-28"]


def test_index_of_should_mark_stamps_off_the_grid() -> None:
    days = np.array(["2024-01-05", "2024-01-06", "2024-01-08"], dtype="M8[D]")
    _, on_grid = Frequency.parse("B").index_of(days, days[0])
    assert on_grid.tolist() == [True, False, True]
    _, on_grid = Frequency.parse("W-FRI").index_of(days, days[0])
    assert on_grid.tolist() == [True, False, False]
    times = np.array(["2024-01-01T00", "2024-02-01T01", "2024-03-01T00"], dtype="M8[h]")
    _, on_grid = Frequency.parse("MS").index_of(times, times[0])
    assert on_grid.tolist() == [True, False, True]


@given(
    which=st.sampled_from(ALIASES),
    steps=st.lists(st.integers(-300, 300), min_size=1, max_size=8),
)
def test_index_of_should_invert_advance(which: tuple[str, str, str], steps: list[int]) -> None:
    alias, _, start = which
    origin = np.array([start], dtype="M8[us]")
    freq = Frequency.parse(alias).anchored(origin)
    index, on_grid = freq.index_of(freq.advance(origin[0], steps), origin[0])
    assert index.tolist() == steps
    assert on_grid.all()


@pytest.mark.parametrize("alias", ["hourly", "0h", "2B", "D-MON", "W-JAN", "MS-JAN", "", 0, -2, True, 1.5])
def test_unknown_frequencies_should_be_refused(alias: object) -> None:
    with pytest.raises(
        InputError, match=r"freq must be a known frequency: expected 's', 'min'.*got .*leave freq out"
    ):
        Frequency.parse(alias)  # type: ignore[arg-type]


def test_frequency_should_fit_the_time_column() -> None:
    with pytest.raises(
        InputError, match=r"expected an integer step such as freq=1, got freq='D' with integers"
    ):
        Frequency.parse("D").anchored(np.array([1, 2]))
    with pytest.raises(InputError, match=r"expected a date alias such as 'D', got freq='1' with dates"):
        Frequency.parse(1).anchored(pandas_range("D", "2024-01-01"))


def test_months_should_need_one_day() -> None:
    stamps = np.array(["2024-01-29", "2024-02-28"], dtype="M8[D]")
    with pytest.raises(InputError, match=r"freq='1mo' all stamps share one day.*2024-01-29 and 2024-02-28"):
        Frequency.parse("1mo").anchored(stamps)


def test_coarse_units_should_be_refused() -> None:
    with pytest.raises(
        InputError, match=r"expected a unit that divides 'h', got stamps in unit 'D'.*finer unit"
    ):
        Frequency.parse("h").advance(np.datetime64("2024-01-01", "D"), 1)


def test_infer_should_need_two_stamps() -> None:
    with pytest.raises(InputError, match=r"at least one series with two different stamps.*freq='D'"):
        Frequency.infer(np.array(["2024-01-01", "2024-01-01"], dtype="M8[D]"))
