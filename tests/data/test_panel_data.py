import numpy as np
import pandas as pd
import polars as pl
import pytest

from metier.core import InputError
from metier.data import PanelData

STAMPS = np.datetime64("2024-01-01T00", "h") + np.arange(4)


def small_panel(**changes):
    settings = {
        "name": "small",
        "ids": ("north", "south", "west"),
        "stamps": STAMPS,
        "values": [[1, 2, np.nan, 4], [0, 0, 0, 1], [9, 9, 9, 9]],
        "freq": "h",
    }
    return PanelData(**{**settings, **changes})


def test_to_frame_should_round_trip_through_pandas():
    panel = small_panel()
    frame = panel.to_frame()
    assert frame.columns.tolist() == ["unique_id", "ds", "y"]
    assert len(frame) == 11
    wide = frame.pivot(index="unique_id", columns="ds", values="y")
    assert tuple(wide.index) == panel.ids
    np.testing.assert_array_equal(wide.to_numpy(), panel.values)
    np.testing.assert_array_equal(wide.columns.to_numpy(), panel.stamps)
    assert pd.api.types.is_datetime64_any_dtype(frame["ds"])
    assert frame["y"].dtype == np.float64


def test_to_frame_should_round_trip_through_polars():
    panel = small_panel()
    frame = panel.to_frame(backend="polars")
    assert frame.schema["unique_id"] == pl.String
    assert isinstance(frame.schema["ds"], pl.Datetime)
    assert frame["y"].null_count() == 0
    wide = frame.pivot(on="ds", index="unique_id", values="y")
    assert tuple(wide["unique_id"]) == panel.ids
    assert wide.shape == (3, 5)
    for row, key in enumerate(panel.ids):
        rows = frame.filter(pl.col("unique_id") == key)
        seen = ~np.isnan(panel.values[row])
        np.testing.assert_array_equal(rows["y"].to_numpy(), panel.values[row, seen])
        np.testing.assert_array_equal(rows["ds"].to_numpy(), panel.stamps[seen])


def test_select_should_keep_the_asked_order():
    panel = small_panel().select(["west", "north"])
    assert panel.ids == ("west", "north")
    assert panel.values[0].tolist() == [9, 9, 9, 9]
    with pytest.raises(InputError, match=r"belong to panel 'small'.*got 'nort'\. Did you mean 'north'"):
        small_panel().select(["nort"])
    with pytest.raises(InputError, match=r"distinct names.*got 'west' more than once"):
        small_panel().select(["west", "west"])


def test_top_and_head_should_take_by_total_and_by_position():
    assert small_panel().top(2).ids == ("west", "north")
    assert small_panel().head(2).ids == ("north", "south")
    assert small_panel().head(50).ids == small_panel().ids
    tied = small_panel(values=np.ones((3, 4)))
    assert tied.top(2).ids == ("north", "south")
    with pytest.raises(InputError, match="n is a whole number"):
        small_panel().top(0)


def test_steps_should_slice_time():
    part = small_panel().steps(1, -1)
    assert part.n_steps == 2
    assert part.stamps[0] == STAMPS[1]
    np.testing.assert_array_equal(part.values, small_panel().values[:, 1:-1])
    assert small_panel().steps(stop=3).n_steps == 3


def test_a_panel_should_own_read_only_values():
    values = np.zeros((3, 4))
    panel = small_panel(values=values)
    values[0, 0] = 7
    assert panel.values[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        panel.values[0, 0] = 1
    with pytest.raises(AttributeError):
        panel.name = "other"


def test_wrong_panels_should_be_refused():
    with pytest.raises(InputError, match=r"one row per series.*expected shape \(3, 4\), got shape \(2, 4\)"):
        small_panel(values=np.zeros((2, 4)))
    with pytest.raises(InputError, match=r"distinct names.*'north' more than once"):
        small_panel(ids=("north", "north", "west"))
    with pytest.raises(InputError, match=r"increase strictly.*at positions 1 and 2"):
        small_panel(stamps=STAMPS[[0, 2, 1, 3]])
    with pytest.raises(InputError, match=r"backend is one of.*'polar'\. Did you mean 'polars'"):
        small_panel().to_frame(backend="polar")


def test_summary_should_count_zeros_and_missing_values():
    assert small_panel().summary() == (
        "small: 3 series x 4 steps (h), 2024-01-01T00:00 to 2024-01-01T03:00, 25.0% zeros, 8.3% missing"
    )
    assert small_panel().to_dict()["missing"] == 1
