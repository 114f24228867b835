"""Long frames to panels and back, against a slow reading row by row."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from metier.core.errors import InputError
from metier.forecast.panels.frames import FrameTemplate
from metier.forecast.panels.panel import (
    Panel,
    exog_for_future,
    frame_like,
    future_frame,
    future_stamps,
    panel_from_frame,
    require_length,
)
from metier.forecast.panels.stream import panel_from_parquet

START = np.datetime64("2024-01-01T00", "us")


def long_frame(lengths: dict[Any, tuple[int, int]], seed: int = 0) -> pd.DataFrame:
    """Hourly series: id -> (first step, steps)."""
    rng = np.random.default_rng(seed)
    parts = [
        pd.DataFrame(
            {
                "unique_id": [name] * size,
                "ds": START + np.arange(first, first + size).astype("m8[h]"),
                "y": rng.normal(size=size),
            }
        )
        for name, (first, size) in lengths.items()
    ]
    return pd.concat(parts, ignore_index=True)


def naive_cells(df: pd.DataFrame) -> dict[tuple[Any, Any], float]:
    return {(row.unique_id, row.ds.to_datetime64()): row.y for row in df.itertuples()}


def cells_of(panel: Panel) -> dict[tuple[Any, Any], float]:
    return {
        (panel.ids[i], panel.stamps[t]): panel.values[i, t]
        for i in range(panel.n_series)
        for t in range(panel.first[i], panel.stop[i])
    }


RAGGED = {"b": (3, 5), "a": (0, 9), "c": (8, 1)}


@pytest.mark.parametrize(
    "lengths", [{"b": (0, 6), "a": (0, 6)}, {"a": (0, 6), "b": (0, 6)}, RAGGED, {"z": (4, 3)}]
)
def test_panel_should_hold_each_row_in_its_cell(lengths: dict[str, tuple[int, int]]) -> None:
    df = long_frame(lengths)
    panel = panel_from_frame(df)
    assert cells_of(panel) == naive_cells(df)
    assert panel.ids.tolist() == sorted(lengths)
    assert panel.freq.name == "h"
    assert np.isnan(panel.values).sum() == panel.values.size - len(df)
    assert panel.lengths.tolist() == [lengths[name][1] for name in sorted(lengths)]


@given(
    lengths=st.dictionaries(
        st.sampled_from(["a", "b", "cc", "d1"]), st.tuples(st.integers(0, 6), st.integers(2, 8)), min_size=1
    ),
    seed=st.integers(0, 1000),
)
def test_row_order_should_not_matter(lengths: dict[str, tuple[int, int]], seed: int) -> None:
    df = long_frame(lengths)
    mixed = df.sample(frac=1, random_state=seed)
    plain, shuffled = panel_from_frame(df), panel_from_frame(mixed)
    np.testing.assert_array_equal(plain.values, shuffled.values)
    np.testing.assert_array_equal(plain.stamps, shuffled.stamps)
    assert cells_of(shuffled) == naive_cells(df)


def variants() -> dict[str, Any]:
    df = long_frame({"b": (0, 5), "a": (1, 4)})
    typed = df.rename(columns={"unique_id": "shop", "ds": "when", "y": "sold"})
    as_polars = pl.from_pandas(typed)
    integers = typed.assign(when=np.r_[np.arange(5), np.arange(1, 5)].astype(np.int32))
    days = as_polars.with_columns(when=pl.Series(np.r_[np.arange(5), np.arange(1, 5)]).cast(pl.Date))
    return {
        "pandas": typed,
        "pandas-object": typed.astype({"shop": object}),
        "pandas-category": typed.astype({"shop": "category"}),
        "pandas-int": typed.assign(shop=(typed["shop"] == "a").astype(np.int32)),
        "pandas-ns": typed.astype({"when": "datetime64[ns]"}),
        "pandas-pyarrow": typed.astype({"when": "timestamp[ms][pyarrow]", "sold": "double[pyarrow]"}),
        "pandas-integers": integers,
        "polars": as_polars,
        "polars-int": as_polars.with_columns(shop=(pl.col("shop") == "a").cast(pl.UInt8)),
        "polars-categorical": as_polars.with_columns(pl.col("shop").cast(pl.Categorical)),
        "polars-enum": as_polars.with_columns(pl.col("shop").cast(pl.Enum(["b", "a"]))),
        "polars-ns": as_polars.with_columns(pl.col("when").cast(pl.Datetime("ns"))),
        "polars-date": days,
        "polars-integers": pl.from_pandas(integers),
        "pyarrow-dictionary": pa.table(
            {
                "shop": pa.array(typed["shop"].tolist()).dictionary_encode(),
                "when": pa.array([1, 2, 3, 4, 5, 2, 3, 4, 5], pa.date32()),
                "sold": pa.array(range(9)),
            }
        ),
        "pyarrow": pa.Table.from_pandas(typed, preserve_index=False),
    }


COLUMNS = {"id_col": "shop", "time_col": "when", "target_col": "sold"}


def schema(frame: Any) -> list[tuple[str, Any]]:
    if isinstance(frame, pd.DataFrame):
        return list(frame.dtypes.items())
    if isinstance(frame, pl.DataFrame):
        return list(frame.schema.items())
    return [(field.name, field.type) for field in frame.schema]


@pytest.mark.parametrize("name", list(variants()))
def test_frames_should_come_back_in_their_own_kind(name: str) -> None:
    df = variants()[name]
    panel = panel_from_frame(df, **COLUMNS)
    for template in (panel.template, FrameTemplate.from_dict(panel.template.to_dict())):
        out = frame_like(
            template,
            {"shop": panel.ids[[0, 1]], "when": panel.stamps[[1, 2]], "yhat": np.array([0.5, 1.5])},
        )
        assert type(out) is type(df)
        assert schema(out)[:2] == schema(df)[:2]
        assert out["yhat"].to_numpy().tolist() == [0.5, 1.5]
    future = future_frame(panel, 2)
    assert schema(future) == schema(df)[:2]
    assert len(future) == 4


def test_future_frame_should_continue_each_series() -> None:
    panel = panel_from_frame(pl.from_pandas(long_frame(RAGGED)))
    future = future_frame(panel, 2)
    ends = [START + np.timedelta64(sum(RAGGED[name]), "h") for name in ("a", "b", "c")]
    expected = np.array([end + np.timedelta64(k, "h") for end in ends for k in range(2)])
    np.testing.assert_array_equal(future["ds"].to_numpy(), expected)
    assert future["unique_id"].to_list() == ["a", "a", "b", "b", "c", "c"]
    assert future_stamps(panel, 2).shape == (3, 2)


def test_pandas_index_should_not_matter() -> None:
    df = long_frame(RAGGED)
    expected = panel_from_frame(df).values
    odd = df.set_index(np.zeros(len(df), dtype=int))
    by_id = df.set_index("unique_id")
    by_both = df.set_index(["unique_id", "ds"])
    for frame in (odd, by_id, by_both):
        before = frame.copy()
        np.testing.assert_array_equal(panel_from_frame(frame).values, expected)
        pd.testing.assert_frame_equal(frame, before)
        assert list(future_frame(panel_from_frame(frame), 1).columns) == ["unique_id", "ds"]


def test_panel_should_not_share_memory_with_the_frame() -> None:
    df = long_frame({"a": (0, 4)})
    panel = panel_from_frame(df)
    before = panel.values.copy()
    df.loc[:, "y"] = 9.0
    np.testing.assert_array_equal(panel.values, before)
    with pytest.raises(ValueError, match="read-only"):
        panel.values[0, 0] = 1.0


def test_ids_should_sort_as_numbers_when_they_are_numbers() -> None:
    df = pl.DataFrame({"unique_id": [10, 10, 9, 9], "ds": [1, 2, 1, 2], "y": [1, 2, 3, 4]})
    assert panel_from_frame(df).ids.tolist() == [9, 10]


def test_extra_columns_should_become_exogenous() -> None:
    df = long_frame(RAGGED).assign(price=np.arange(15), holiday=[True, False, True] * 5)
    panel = panel_from_frame(df.sample(frac=1, random_state=1))
    assert panel.exog_names == ("price", "holiday")
    assert panel.exog.shape == (3, 9, 2)
    assert panel.exog[1, 3:8, 0].tolist() == [0, 1, 2, 3, 4]
    assert panel.exog[1, 3:8, 1].tolist() == [1, 0, 1, 1, 0]
    assert np.isnan(panel.exog[1, :3]).all()


def test_text_columns_should_be_refused_by_name() -> None:
    df = long_frame(RAGGED).assign(color="red")
    with pytest.raises(
        InputError, match=r"exogenous inputs.*got column 'color' of type String. Drop 'color' or enc"
    ):
        panel_from_frame(df)


def test_select_and_until_should_cut_the_panel() -> None:
    panel = panel_from_frame(long_frame(RAGGED))
    assert panel.select(np.array([True, False, True])).ids.tolist() == ["a", "c"]
    early = panel.until(5)
    assert early.lengths.tolist() == [5, 2, 0]
    np.testing.assert_array_equal(early.values, panel.values[:, :5])
    assert not np.shares_memory(early.values, panel.values)


def test_constant_should_mark_series_of_one_value() -> None:
    df = pl.DataFrame(
        {"unique_id": ["a", "a", "b", "b", "c"], "ds": [1, 2, 1, 2, 2], "y": [2.0, 2.0, 1.0, 3.0, 5.0]}
    )
    assert panel_from_frame(df).constant.tolist() == [True, False, True]


def test_require_length_should_name_or_drop() -> None:
    panel = panel_from_frame(long_frame(RAGGED))
    with pytest.raises(
        InputError, match=r"at least 5, got fewer \(the shortest has 1\) in 1 series: 'c'.*'drop_short'"
    ):
        require_length(panel, 5)
    assert require_length(panel, 5, repair="drop_short").ids.tolist() == ["a", "b"]
    with pytest.raises(InputError, match="in 3 series: 'a', 'b', 'c'"):
        require_length(panel, 50, repair="drop_short")


# errors of the frame


def test_missing_columns_should_be_named() -> None:
    with pytest.raises(
        InputError, match=r"got no 'unique_id', 'ds' among 'y', 'id'. Rename the columns, or pass id_"
    ):
        panel_from_frame(pl.DataFrame({"y": [1.0], "id": ["a"]}))


@pytest.mark.parametrize(
    "names",
    [
        {"time_col": "y"},
        {"id_col": "ds"},
        {"target_col": "unique_id"},
    ],
)
def test_one_column_in_two_roles_should_be_refused(names: dict[str, str], tmp_path: Path) -> None:
    df = pl.DataFrame({"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0]})
    rule = "id, time and target are three columns: expected three different names, got id "
    with pytest.raises(InputError, match=rule):
        panel_from_frame(df, **names)
    with pytest.raises(InputError, match=rule):
        panel_from_frame(df.to_pandas(), **names)
    df.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=rule):
        panel_from_parquet(tmp_path, **names)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Paris"])
def test_time_zones_should_be_refused(zone: str) -> None:
    df = long_frame({"a": (0, 3)})
    df["ds"] = df["ds"].dt.tz_localize(zone)
    for frame in (df, pl.from_pandas(df)):
        with pytest.raises(
            InputError, match=rf"without time zone, got type.*Convert it to UTC.*drop the zone '{zone}'"
        ):
            panel_from_frame(frame)


@pytest.mark.parametrize("values", [["2024-01-01", "2024-01-02"], [0.5, 1.5], [True, False]])
def test_other_time_types_should_be_refused(values: list[Any]) -> None:
    df = pl.DataFrame({"unique_id": ["a", "a"], "ds": values, "y": [1.0, 2.0]})
    with pytest.raises(
        InputError, match=r"time column 'ds' must hold plain stamps: expected dates or integers"
    ):
        panel_from_frame(df)


def test_missing_stamps_and_ids_should_be_refused() -> None:
    df = pl.DataFrame({"unique_id": ["a", "b"], "ds": [1, None], "y": [1.0, 2.0]})
    with pytest.raises(InputError, match=r"got 1 missing stamps, first in series 'b'"):
        panel_from_frame(df)
    df = pl.DataFrame({"unique_id": ["a", None], "ds": [1, 2], "y": [1.0, 2.0]})
    with pytest.raises(InputError, match=r"id column 'unique_id'.*got 1 missing, first in row 1"):
        panel_from_frame(df)


def test_mixed_ids_should_be_refused() -> None:
    df = pd.DataFrame({"unique_id": ["a", 1], "ds": [1, 2], "y": [1.0, 2.0]})
    with pytest.raises(
        InputError, match=r"names of one type: expected all text or all integers, got mixed types"
    ):
        panel_from_frame(df)


def test_targets_should_be_numeric() -> None:
    df = pl.DataFrame({"unique_id": ["a"], "ds": [1], "y": ["many"]})
    with pytest.raises(InputError, match=r"column 'y' must be numeric: expected numbers, got type String"):
        panel_from_frame(df)


def test_other_objects_should_be_refused() -> None:
    with pytest.raises(InputError, match=r"data frame in memory.*got builtins dict"):
        panel_from_frame({"y": [1]})
    with pytest.raises(InputError, match=r"data frame in memory.*LazyFrame.*Call .collect\(\) first"):
        panel_from_frame(pl.LazyFrame({"y": [1]}))
    twice = pd.DataFrame([[1, 2, 3, 4]], columns=["unique_id", "ds", "y", "y"])
    with pytest.raises(InputError, match=r"unique column names"):
        panel_from_frame(twice)
    with pytest.raises(InputError, match=r"at least one row"):
        panel_from_frame(pl.DataFrame({"unique_id": [], "ds": [], "y": []}))


def test_stamps_off_the_grid_should_be_named() -> None:
    df = long_frame({"a": (0, 5), "b": (0, 5), "c": (0, 5)})
    df.loc[df["unique_id"] == "b", "ds"] += pd.Timedelta(minutes=30)
    with pytest.raises(
        InputError,
        match=r"one grid of frequency 'h'.*off the grid in 1 series: 'b', first 2024-01-01 00:30.*right freq",
    ):
        panel_from_frame(df)
    assert panel_from_frame(df, freq="30min", repair="interpolate").n_steps == 10


def test_stray_stamps_should_not_fill_the_memory() -> None:
    df = pl.DataFrame({"unique_id": ["a", "a", "a", "b"], "ds": [0, 1, 2, 10**9], "y": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(
        InputError, match=r"2 series on 1000000001 steps of '1' from 0 to 1000000000. Check for a stray"
    ):
        panel_from_frame(df)


# the future


def exog_panel() -> tuple[Panel, pd.DataFrame]:
    df = long_frame(RAGGED).assign(price=1.0, promo=0.0)
    panel = panel_from_frame(df)
    future = future_frame(panel, 2).assign(price=np.arange(6.0), promo=np.arange(6.0) + 10)
    return panel, future


def test_future_exog_should_follow_series_and_stamps() -> None:
    panel, future = exog_panel()
    more = pd.concat(
        [future, future.assign(ds=future["ds"] + pd.Timedelta(days=9)), future.assign(unique_id="zz")]
    )
    exog = exog_for_future(more.assign(unused="text").sample(frac=1, random_state=2), panel, 2)
    np.testing.assert_array_equal(exog[:, :, 0], np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(exog[:, :, 1], np.arange(6.0).reshape(3, 2) + 10)


def test_future_exog_should_name_what_lacks() -> None:
    panel, future = exog_panel()
    with pytest.raises(InputError, match=r"expected a frame with 'price', 'promo', got None"):
        exog_for_future(None, panel, 2)
    with pytest.raises(InputError, match=r"got no 'promo' among"):
        exog_for_future(future.drop(columns="promo"), panel, 2)
    with pytest.raises(
        InputError, match=r"the 2 stamps.*got no row for 1 series: 'b', first 2024-01-01 09:00.* in 'b'"
    ):
        exog_for_future(future.drop(index=3), panel, 2)
    with pytest.raises(InputError, match=r"no row for 3 series: 'a', 'b', 'c'"):
        exog_for_future(future.assign(ds=future["ds"] + pd.Timedelta(minutes=1)), panel, 2)
    with pytest.raises(InputError, match=r"each series and stamp once.*repeated stamps in 1 series: 'c'"):
        exog_for_future(pd.concat([future, future.iloc[[5]]]), panel, 2)
    future.loc[2, "promo"] = np.inf
    with pytest.raises(InputError, match=r"missing or infinite 'promo' in 1 series: 'b'"):
        exog_for_future(future, panel, 2)


def test_future_should_be_refused_where_fit_saw_none() -> None:
    panel = panel_from_frame(long_frame(RAGGED))
    assert exog_for_future(None, panel, 3).shape == (3, 3, 0)
    with pytest.raises(InputError, match=r"fit saw no exogenous columns, got a frame"):
        exog_for_future(future_frame(panel, 3), panel, 3)


def test_finer_future_stamps_should_not_be_rounded_onto_the_grid() -> None:
    days = pl.DataFrame({"unique_id": ["a"] * 2, "ds": [0, 1], "y": [1.0, 2.0], "x": [0.0, 0.0]})
    panel = panel_from_frame(days.with_columns(pl.col("ds").cast(pl.Date)))
    evening = np.array(["1970-01-03T18:00"], dtype="M8[us]")
    future = pl.DataFrame({"unique_id": ["a"], "ds": evening, "x": [1.0]})
    with pytest.raises(InputError, match="no row for 1 series: 'a', first 1970-01-03"):
        exog_for_future(future, panel, 1)


def test_a_million_sorted_rows_should_read_quickly() -> None:
    n, t = 4_000, 250
    ids = pl.Series([f"series_{i:05d}" for i in range(n)]).gather(np.repeat(np.arange(n), t))
    stamps = np.tile(START + np.arange(t).astype("m8[h]"), n)
    df = pl.DataFrame({"unique_id": ids, "ds": stamps, "y": np.ones(n * t)})
    began = time.process_time()
    panel = panel_from_frame(df)
    # measured 0.1 s of CPU; the bound only catches a fall-back to Python loops
    assert time.process_time() - began < 5.0
    assert panel.values.shape == (n, t)
