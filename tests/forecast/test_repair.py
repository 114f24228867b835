"""Every problem is named with its remedy, and every remedy mends it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from metier.core.errors import InputError
from metier.forecast.panels.panel import Panel, panel_from_frame
from metier.forecast.panels.repair import REPAIRS, Repairs, named


def frame(series: dict[str, list[tuple[int, float]]], **columns: Any) -> pd.DataFrame:
    rows = [(name, step, value) for name, cells in series.items() for step, value in cells]
    return pd.DataFrame(rows, columns=["unique_id", "ds", "y"]).assign(**columns)


def read(series: dict[str, list[tuple[int, float]]], **options: Any) -> Panel:
    return panel_from_frame(frame(series), **options)


NAN, INF = float("nan"), float("inf")
GAP = {"a": [(1, 1.0), (2, 2.0), (3, 3.0)], "b": [(1, 4.0), (2, 5.0), (5, 11.0)]}
TWICE = {"a": [(1, 1.0), (2, 2.0), (2, 6.0)], "b": [(1, 4.0), (2, 5.0)]}
HOLES = {"a": [(1, 1.0), (2, NAN), (3, 3.0), (4, INF)], "b": [(1, 4.0), (2, 5.0)]}
EMPTY = {"a": [(1, 1.0), (2, 2.0)], "b": [(3, NAN), (4, NAN)]}


def test_gaps_should_be_named() -> None:
    with pytest.raises(
        InputError,
        match=r"missing stamps in 1 series: 'b', first 3 in 'b'. Pass repair='fill_zero', 'fill_forward' or",
    ):
        read(GAP)


@pytest.mark.parametrize(
    ("repair", "expected"),
    [
        ("fill_zero", [4, 5, 0, 0, 11]),
        ("fill_forward", [4, 5, 5, 5, 11]),
        ("interpolate", [4, 5, 7, 9, 11]),
    ],
)
def test_gaps_should_be_filled(repair: str, expected: list[float]) -> None:
    panel = read(GAP, repair=repair)
    assert panel.values[1].tolist() == expected
    assert panel.values[0, :3].tolist() == [1, 2, 3]
    assert np.isnan(panel.values[0, 3:]).all()
    assert panel.lengths.tolist() == [3, 5]


def test_repeated_stamps_should_be_named() -> None:
    with pytest.raises(
        InputError, match=r"repeated stamps in 1 series: 'a', first 2 in 'a'. Pass repair='sum_dupl"
    ):
        read(TWICE)


@pytest.mark.parametrize(
    ("repair", "value"), [("sum_duplicates", 8), ("mean_duplicates", 4), ("last_duplicate", 6)]
)
def test_repeated_stamps_should_be_settled(repair: str, value: float) -> None:
    panel = read(TWICE, repair=repair)
    assert panel.values.tolist() == [[1, value], [4, 5]]
    wide = panel_from_frame(frame(TWICE, price=[1.0, 2.0, 4.0, 5.0, 6.0]), repair=repair)
    assert wide.exog[0, :, 0].tolist() == [1, 4 if repair == "last_duplicate" else 3]


def test_values_that_are_not_finite_should_be_named() -> None:
    with pytest.raises(
        InputError, match=r"missing or infinite targets in 1 series: 'a', first 2 in 'a'. Pass repair"
    ):
        read(HOLES)


@pytest.mark.parametrize(
    ("repair", "expected"),
    [("fill_zero", [1, 0, 3, 0]), ("fill_forward", [1, 1, 3, 3]), ("interpolate", [1, 2, 3, 3])],
)
def test_values_that_are_not_finite_should_be_filled(repair: str, expected: list[float]) -> None:
    assert read(HOLES, repair=repair).values[0].tolist() == expected


def test_forward_filling_should_need_an_earlier_value() -> None:
    late = {"a": [(1, NAN), (2, 2.0), (3, 4.0)]}
    with pytest.raises(
        InputError, match=r"'fill_forward' needs an earlier value.*1 series: 'a', first 1 in 'a'"
    ):
        read(late, repair="fill_forward")
    assert read(late, repair="interpolate").values[0].tolist() == [2, 2, 4]


def test_empty_series_should_be_named_or_dropped() -> None:
    for repair in ((), "fill_forward", "interpolate"):
        with pytest.raises(
            InputError, match=r"one finite target.*none in 1 series: 'b'. Pass repair='drop_empty'"
        ):
            read(EMPTY, repair=repair)
    panel = read(EMPTY, repair="drop_empty")
    assert panel.ids.tolist() == ["a"]
    assert panel.stamps.tolist() == [1, 2]
    assert read(EMPTY, repair="fill_zero").values[1, 2:].tolist() == [0, 0]
    assert read(EMPTY, repair=["fill_zero", "drop_empty"]).ids.tolist() == ["a"]
    with pytest.raises(InputError, match=r"repair='drop_empty' must leave at least one series.*none of 1"):
        read({"a": [(1, NAN), (2, NAN)]}, repair="drop_empty")


def test_short_series_should_be_named_or_dropped() -> None:
    lengths = {"a": [(1, 1.0), (2, 2.0)], "b": [(2, 3.0)]}
    with pytest.raises(
        InputError, match=r"at least 2, got fewer \(the shortest has 1\) in 1 series: 'b'.*'drop_short'"
    ):
        read(lengths, min_length=2)
    assert read(lengths, min_length=2, repair="drop_short").ids.tolist() == ["a"]


def test_constant_and_ragged_series_should_pass() -> None:
    panel = read({"a": [(1, 2.0), (2, 2.0)], "b": [(2, 1.0), (3, 4.0)]})
    assert panel.first.tolist() == [0, 1]
    assert panel.stop.tolist() == [2, 3]
    assert panel.constant.tolist() == [True, False]


def test_exogenous_holes_should_be_named_and_filled() -> None:
    df = frame({"a": [(1, 1.0), (2, 2.0), (4, 4.0)]}, price=[10.0, NAN, 40.0])
    with pytest.raises(
        InputError, match=r"exogenous column 'price' must be finite.*1 series: 'a', first 2 in 'a'"
    ):
        panel_from_frame(df[df["ds"] < 3])
    assert panel_from_frame(df, repair="interpolate").exog[0, :, 0].tolist() == [10, 20, 30, 40]
    assert panel_from_frame(df, repair="fill_zero").exog[0, :, 0].tolist() == [10, 10, 10, 40]
    assert panel_from_frame(df, repair="fill_zero").values[0].tolist() == [1, 2, 0, 4]
    leading = df.assign(price=[NAN, 20.0, 40.0])
    with pytest.raises(InputError, match=r"exogenous column 'price' must be finite"):
        panel_from_frame(leading, repair="fill_forward")


def test_repairs_should_combine() -> None:
    mixed = {"a": [(1, 1.0), (1, 2.0), (3, 5.0)], "b": [(1, NAN)], "c": [(1, 1.0), (2, 2.0), (3, 3.0)]}
    panel = read(mixed, repair=["sum_duplicates", "interpolate", "drop_empty"])
    assert panel.values.tolist() == [[3, 4, 5], [1, 2, 3]]


@pytest.mark.parametrize(
    "clean", [{"a": [(1, 1.0), (2, 2.0)], "b": [(1, 4.0), (2, 5.0)]}, {"a": [(2, 1.0), (3, 2.0)]}]
)
@pytest.mark.parametrize("repair", REPAIRS)
def test_repairs_should_leave_clean_data_alone(
    clean: dict[str, list[tuple[int, float]]], repair: str
) -> None:
    np.testing.assert_array_equal(read(clean, repair=repair).values, read(clean).values)


def test_contradictory_and_unknown_repairs_should_be_refused() -> None:
    with pytest.raises(
        InputError, match=r"one rule for repeated stamps.*got 'sum_duplicates' and 'last_duplicate'"
    ):
        Repairs.parse(["sum_duplicates", "last_duplicate"])
    with pytest.raises(InputError, match=r"one rule for missing values.*got 'fill_zero' and 'interpolate'"):
        Repairs.parse(("fill_zero", "interpolate", "drop_short"))
    with pytest.raises(InputError, match=r"Did you mean 'fill_zero'"):
        Repairs.parse("fillzero")


def test_named_should_stop_at_five() -> None:
    ids = np.array([f"s{i}" for i in range(17)], dtype=object)
    text = named(ids, np.ones(17, dtype=bool))
    assert text == "17 series: 's0', 's1', 's2', 's3', 's4' and 12 more"


# clocks that change: local time without zone


def spring(values: float = 1.0) -> pd.DataFrame:
    stamps = pd.date_range("2024-03-31", periods=6, freq="h").delete(2)
    return pd.DataFrame({"unique_id": "paris", "ds": stamps, "y": values})


def test_the_skipped_hour_should_be_a_named_gap() -> None:
    with pytest.raises(InputError, match=r"missing stamps in 1 series: 'paris', first 2024-03-31 02:00"):
        panel_from_frame(spring())
    assert panel_from_frame(spring(), repair="fill_zero").values[0].tolist() == [1, 1, 0, 1, 1, 1]


def test_the_repeated_hour_should_be_a_named_repeat() -> None:
    hours = pd.date_range("2024-10-27", periods=5, freq="h")
    autumn = pd.DataFrame({"unique_id": "paris", "ds": hours.insert(3, hours[2]), "y": 1.0})
    with pytest.raises(InputError, match=r"repeated stamps in 1 series: 'paris', first 2024-10-27 02:00"):
        panel_from_frame(autumn)
    assert panel_from_frame(autumn, repair="sum_duplicates").values[0].tolist() == [1, 1, 2, 1, 1]
