import numpy as np
import pandas as pd
import pytest

from metier.core import InputError
from metier.data import load_metr_la, load_pems
from metier.data.located import freq_name, on_regular_grid

STEP = np.timedelta64(5, "m")


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_pems_npz_should_give_the_asked_channel(tmp_path):
    data = np.arange(6 * 4 * 3, dtype=float).reshape(6, 4, 3)
    path = write_npz(tmp_path / "PEMS08.npz", data=data)
    panel = load_pems(path, channel=2, start="2016-07-01")
    assert panel.name == "PEMS08"
    np.testing.assert_array_equal(panel.values, data[:, :, 2].T)
    assert panel.ids == ("sensor_0", "sensor_1", "sensor_2", "sensor_3")
    assert panel.stamps[1] == np.datetime64("2016-07-01T00:05")
    assert (panel.freq, panel.seasons) == ("5min", (288, 2016))
    zeros = load_pems(path, missing_zero=True)
    assert np.isnan(zeros.values[0, 0])
    assert np.isnan(zeros.values).sum() == 1


def test_pems_csv_should_fill_skipped_stamps_with_nan(tmp_path):
    table = pd.DataFrame(
        {
            "date": ["2020-01-01 00:00", "2020-01-01 01:00", "2020-01-01 03:00"],
            "400001": [1, 2, 3],
            "400017": 4.5,
        }
    )
    table.to_csv(tmp_path / "pems.csv", index=False)
    panel = load_pems(tmp_path / "pems.csv")
    assert panel.ids == ("400001", "400017")
    assert panel.freq == "h"
    np.testing.assert_array_equal(panel.values, [[1, 2, np.nan, 3], [4.5, 4.5, np.nan, 4.5]])


def test_pems_errors_should_name_the_cause(tmp_path):
    path = write_npz(tmp_path / "a.npz", data=np.zeros((6, 4, 3)))
    with pytest.raises(
        InputError, match=r"a\.npz must hold an array `data`.*shape \(6, 4, 3\) and channel 3"
    ):
        load_pems(path, channel=3)
    with pytest.raises(InputError, match=r"got no array `data`"):
        load_pems(write_npz(tmp_path / "b.npz", flow=np.zeros(3)))
    with pytest.raises(
        InputError, match=r"c\.npz must be a NumPy archive of plain numbers.*allow_pickle=False"
    ):
        load_pems(write_npz(tmp_path / "c.npz", data=np.array([{}, {}], dtype=object)))
    (tmp_path / "x.txt").write_text("1")
    with pytest.raises(InputError, match=r"must be \.npz or \.csv.*got x\.txt"):
        load_pems(tmp_path / "x.txt")
    (tmp_path / "words.csv").write_text("date,s\n2020-01-01,one\n2020-01-02,two\n")
    with pytest.raises(InputError, match=r"words\.csv must hold stamps in the first column and numbers"):
        load_pems(tmp_path / "words.csv")
    (tmp_path / "back.csv").write_text("date,s\n2020-01-02,1\n2020-01-01,2\n")
    with pytest.raises(InputError, match=r"stamps must increase strictly"):
        load_pems(tmp_path / "back.csv")


def write_frame(path, stamps, sensors, blocks, *, group="df", kind=b"datetime64"):
    """The layout that pandas' fixed format writes: axis0 columns, axis1 rows, one block per dtype."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as store:
        frame = store.create_group(group)
        frame.create_dataset("axis0", data=sensors)
        axis = frame.create_dataset("axis1", data=stamps.astype(np.int64))
        axis.attrs["kind"] = np.bytes_(kind)
        for number, (items, values) in enumerate(blocks):
            frame.create_dataset(f"block{number}_items", data=items)
            frame.create_dataset(f"block{number}_values", data=values)
    return path


def test_metr_la_should_read_the_fixed_format_store(tmp_path):
    stamps = np.datetime64("2012-03-01T00:00", "ns") + np.arange(4) * STEP
    sensors = np.array([b"773869", b"767541"])
    speed = np.array([[64.4, 67.6], [0.0, 62.7], [57.3, 0.0], [60.0, 61.0]])
    path = write_frame(tmp_path / "metr-la.h5", stamps, sensors, [(sensors, speed)])
    panel = load_metr_la(path)
    assert panel.ids == ("773869", "767541")
    np.testing.assert_array_equal(panel.stamps, stamps)
    np.testing.assert_array_equal(panel.values, np.where(speed == 0, np.nan, speed).T)
    assert panel.freq == "5min"
    np.testing.assert_array_equal(load_metr_la(path, missing_zero=False).values, speed.T)


def test_metr_la_should_join_blocks_and_read_other_units_and_integer_sensors(tmp_path):
    stamps = np.datetime64("2017-01-01T00:00", "us") + np.array([0, 1, 3]) * STEP
    sensors = np.array([400001, 400017, 400030])
    blocks = [
        (sensors[[0, 2]], np.array([[1.0, 3], [4, 6], [7, 9]])),
        (sensors[[1]], np.array([[2], [5], [8]])),
    ]
    path = write_frame(tmp_path / "bay.h5", stamps, sensors, blocks, group="speed", kind=b"datetime64[us]")
    panel = load_metr_la(path)
    assert panel.ids == ("400001", "400017", "400030")
    expected = [[1, 4, np.nan, 7], [2, 5, np.nan, 8], [3, 6, np.nan, 9]]
    np.testing.assert_array_equal(panel.values, expected)


def test_metr_la_errors_should_name_the_cause(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "empty.h5", "w") as store:
        store.create_group("df")
    with pytest.raises(
        InputError, match=r"empty\.h5 must hold one pandas frame.*0 such groups among \['df'\]"
    ):
        load_metr_la(tmp_path / "empty.h5")
    numbered = write_frame(
        tmp_path / "rows.h5",
        np.arange(2),
        np.array([b"a"]),
        [(np.array([b"a"]), np.ones((2, 1)))],
        kind=b"integer",
    )
    with pytest.raises(InputError, match=r"rows of rows\.h5 must be time stamps.*kind 'integer'"):
        load_metr_la(numbered)
    fractions = np.array([1.5])
    stamps = np.datetime64("2012-03-01", "ns") + np.arange(2) * STEP
    path = write_frame(tmp_path / "columns.h5", stamps, fractions, [(fractions, np.ones((2, 1)))])
    with pytest.raises(
        InputError, match=r"sensors of columns\.h5 must be texts or whole.*/df/axis0 of type float64"
    ):
        load_metr_la(path)


def test_grids_should_be_regular():
    start = np.datetime64("2020-01-01T00:00")
    with pytest.raises(
        InputError, match=r"one regular grid: expected gaps that are multiples of 120 seconds"
    ):
        on_regular_grid(start + np.array([0, 2, 5]) * np.timedelta64(1, "m"), np.zeros((1, 3)))
    with pytest.raises(InputError, match="got 1 stamps"):
        on_regular_grid([start], np.zeros((1, 1)))


@pytest.mark.parametrize(
    ("minutes", "word"), [(5, "5min"), (60, "h"), (480, "8h"), (1440, "D"), (10080, "7D")]
)
def test_freq_name_should_use_the_largest_unit(minutes, word):
    stamps = np.datetime64("2020-01-01T00:00", "ns") + np.arange(2) * np.timedelta64(minutes, "m")
    assert freq_name(stamps) == word
