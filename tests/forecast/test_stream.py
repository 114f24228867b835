"""Panels from parquet files: the same as from one frame, and errors that name files and series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from panels import frame_of, regimes

from metier.core import InputError
from metier.forecast import ClusterForecaster
from metier.forecast.panels.panel import panel_from_frame
from metier.forecast.panels.stream import panel_from_parquet


def ragged() -> np.ndarray:
    values = regimes(3, n_series=9, n_steps=40)
    values[2, :5] = np.nan
    values[7, 33:] = np.nan
    return values


def write(folder: Path, frame: pl.DataFrame, *, n_files: int = 3) -> None:
    """Whole series, dealt out to files in turn, rows shuffled."""
    names = frame["unique_id"].unique().sort().to_list()
    for part in range(n_files):
        rows = frame.filter(pl.col("unique_id").is_in(names[part::n_files]))
        rows.sample(fraction=1.0, shuffle=True, seed=part).write_parquet(folder / f"part-{part}.parquet")


@pytest.mark.parametrize("exog", [False, True])
def test_files_should_give_the_panel_of_the_frame(tmp_path: Path, exog: bool) -> None:
    values = ragged()
    columns = {"price": np.random.default_rng(0).random(values.shape)} if exog else {}
    frame = frame_of(values, **columns)
    write(tmp_path, frame)
    panel, expected = panel_from_parquet(tmp_path), panel_from_frame(frame)
    assert panel.ids.tolist() == expected.ids.tolist()
    np.testing.assert_array_equal(panel.stamps, expected.stamps)
    for name in ("values", "first", "stop", "exog"):
        np.testing.assert_array_equal(getattr(panel, name), getattr(expected, name))
    assert panel.exog_names == expected.exog_names
    assert panel.freq == expected.freq


def test_files_on_different_stamps_should_share_one_grid(tmp_path: Path) -> None:
    frame = frame_of(regimes(n_series=4, n_steps=30))
    early = pl.col("unique_id").is_in(["s000", "s001"])
    stamps = frame["ds"].unique().sort()
    cut = pl.concat(
        [frame.filter(early, pl.col("ds") < stamps[20]), frame.filter(~early, pl.col("ds") >= stamps[12])]
    )
    for name, rows in (("b", cut.filter(early)), ("a", cut.filter(~early))):
        rows.write_parquet(tmp_path / f"{name}.parquet")
    panel, expected = panel_from_parquet(tmp_path), panel_from_frame(cut)
    np.testing.assert_array_equal(panel.values, expected.values)
    np.testing.assert_array_equal(panel.stamps, expected.stamps)
    assert panel.first.tolist() == [0, 0, 12, 12]


def test_float32_targets_should_stay_float32(tmp_path: Path) -> None:
    frame = frame_of(regimes(n_series=4, n_steps=30)).with_columns(pl.col("y").cast(pl.Float32))
    write(tmp_path, frame)
    panel = panel_from_parquet(tmp_path)
    assert panel.values.dtype == np.float32
    np.testing.assert_array_equal(panel.values, panel_from_frame(frame).values.astype(np.float32))


def test_fit_from_files_should_equal_fit_from_the_frame(tmp_path: Path) -> None:
    frame = frame_of(regimes(1))
    write(tmp_path, frame)
    settings = {"lags": 3, "n_clusters": 2, "horizon": 2}
    ours, expected = ClusterForecaster(**settings).fit(tmp_path), ClusterForecaster(**settings).fit(frame)
    assert ours.partition_.tolist() == expected.partition_.tolist()
    assert ours.gate_report_.chosen == expected.gate_report_.chosen
    forecast = ours.predict(2)
    assert type(forecast).__module__.startswith("pandas")
    got = forecast.sort_values(["unique_id", "ds"])["ClusterForecaster"].to_numpy()
    want = expected.predict(2).sort("unique_id", "ds")["ClusterForecaster"].to_numpy()
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_one_file_should_be_read_as_it_is(tmp_path: Path) -> None:
    frame = frame_of(regimes(n_series=3, n_steps=20))
    file = tmp_path / "all.parquet"
    frame.write_parquet(file)
    np.testing.assert_array_equal(panel_from_parquet(str(file)).values, panel_from_frame(frame).values)


def test_a_series_in_two_files_should_be_refused_by_name(tmp_path: Path) -> None:
    frame = frame_of(regimes(n_series=3, n_steps=20))
    frame.head(30).write_parquet(tmp_path / "a.parquet")
    frame.tail(30).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        InputError, match=r"each file holds whole series: .* got series 's001' in 'a.parquet' and 'b.p"
    ):
        panel_from_parquet(tmp_path)


def test_files_of_other_columns_should_be_refused_by_name(tmp_path: Path) -> None:
    frame = frame_of(regimes(n_series=2, n_steps=20))
    frame.head(20).write_parquet(tmp_path / "a.parquet")
    frame.tail(20).with_columns(pl.col("y").cast(pl.Float32)).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"same columns and types.*'y': 'float'} in 'b.parquet'"):
        panel_from_parquet(tmp_path)


def test_a_file_off_the_grid_should_be_refused(tmp_path: Path) -> None:
    frame = frame_of(regimes(n_series=2, n_steps=20))
    frame.head(20).write_parquet(tmp_path / "a.parquet")
    frame.tail(20).with_columns(pl.col("ds").dt.offset_by("7m")).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"all files lie on one grid of frequency 'h'.*1 series: 's001'"):
        panel_from_parquet(tmp_path)


def test_bad_rows_should_name_series_and_file(tmp_path: Path) -> None:
    frame = frame_of(regimes(n_series=4, n_steps=20))
    write(tmp_path, pl.concat([frame, frame.tail(1)]))
    with pytest.raises(InputError, match="repeated stamps in 1 series: 's003'") as caught:
        panel_from_parquet(tmp_path)
    assert caught.value.__notes__ == [f"in {tmp_path / 'part-0.parquet'}"]


def test_gaps_should_be_refused_or_repaired_as_in_a_frame(tmp_path: Path) -> None:
    frame = frame_of(regimes(n_series=3, n_steps=20))
    frame = frame.filter(~((pl.col("unique_id") == "s001") & (pl.col("ds") == frame["ds"][5])))
    write(tmp_path, frame)
    with pytest.raises(InputError, match="missing stamps in 1 series: 's001'"):
        panel_from_parquet(tmp_path)
    mended = panel_from_parquet(tmp_path, repair="interpolate")
    np.testing.assert_array_equal(mended.values, panel_from_frame(frame, repair="interpolate").values)


@pytest.mark.parametrize(
    ("name", "got"), [("", "a folder without them"), ("no.parquet", "nothing"), ("x.csv", "x.csv")]
)
def test_paths_without_parquet_files_should_be_refused(tmp_path: Path, name: str, got: str) -> None:
    (tmp_path / "x.csv").write_text("unique_id,ds,y\n")
    with pytest.raises(InputError, match=f"a path must name parquet files: .* got {got} at"):
        ClusterForecaster().fit(tmp_path / name)
