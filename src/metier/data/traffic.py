"""Panels of traffic sensors in the formats of PeMS (.npz, wide .csv) and METR-LA (.h5), by path."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError, require
from metier.core.checks import positive_int
from metier.data.located import FloatArray, existing_file, freq_name, on_regular_grid
from metier.data.panel import PanelData

DAY = np.timedelta64(1, "D")


def load_pems(
    path: str | Path,
    *,
    channel: int = 0,
    start: str = "2018-01-01",
    step_minutes: int = 5,
    missing_zero: bool = False,
) -> PanelData:
    """Load a PeMS-format panel: .npz with an array `data` (T, N, F), or .csv with one column per sensor.

    Args:
        path: file ending in .npz or .csv. In a .csv the first column holds the stamps.
        channel: feature of an .npz to take (0 is flow in PEMS03, 04, 07 and 08); must be 0 for a .csv.
        start: first stamp of an .npz, which has none of its own: 2018-01-01 is that of PEMS04.
        step_minutes: minutes between the steps of an .npz.
        missing_zero: zeros mean missing and become NaN.

    Returns:
        PanelData; sensors of an .npz are named sensor_0, sensor_1, ...; skipped stamps of a .csv are NaN.

    Raises:
        InputError: no such file, another ending, no array `data`, a channel that is not there, or bad stamps.

    Example:
        >>> load_pems("PEMS04.npz").n_series  # doctest: +SKIP
        307
    """
    file = existing_file(path)
    readers = {".npz": _read_npz, ".csv": _read_csv}
    if file.suffix.lower() not in readers:
        raise InputError(
            "a PeMS file must be .npz or .csv",
            expected=".npz or .csv",
            got=file.name,
            next_step="Convert it first.",
        )
    ids, stamps, values = readers[file.suffix.lower()](file, channel, start, step_minutes)
    return _panel(file, ids, stamps, values, missing_zero=missing_zero)


def load_metr_la(path: str | Path, *, missing_zero: bool = True) -> PanelData:
    """Load a METR-LA-format panel: a pandas frame in HDF5, stamps by sensors (as is PEMS-BAY).

    The file is a pandas fixed-format store, read with h5py alone: `axis0` the sensors, `axis1` the stamps,
    and blocks of `block*_items` and `block*_values`. Objects pickled into such a file are never read.

    Args:
        path: file ending in .h5 or .hdf5.
        missing_zero: zeros mean missing and become NaN; in METR-LA they do.

    Returns:
        PanelData with the sensors' ids as names; skipped stamps are NaN.

    Raises:
        InputError: no such file, or not one frame of numbers over time stamps.
        MissingExtraError: h5py is not installed.

    Example:
        >>> load_metr_la("metr-la.h5").n_series  # doctest: +SKIP
        207
    """
    file = existing_file(path)
    with require("h5py").File(file, "r") as store:
        group = _frame_group(store, file)
        sensors = _names(group["axis0"], file)
        stamps = _hdf_stamps(group["axis1"], file)
        values = np.full((len(sensors), stamps.size), np.nan)
        row = {sensor: i for i, sensor in enumerate(sensors)}
        for block in sorted(key[: -len("_values")] for key in group if re.fullmatch(r"block\d+_values", key)):
            rows = [row[sensor] for sensor in _names(group[f"{block}_items"], file)]
            values[rows] = np.asarray(group[f"{block}_values"][:], dtype=float).T
    return _panel(file, tuple(sensors), stamps, values, missing_zero=missing_zero)


def _panel(
    file: Path,
    ids: tuple[str, ...],
    stamps: NDArray[np.datetime64],
    values: FloatArray,
    *,
    missing_zero: bool,
) -> PanelData:
    grid, filled = on_regular_grid(stamps, values)
    day = max(int(DAY // (grid[1] - grid[0])), 1)
    return PanelData(
        name=file.stem,
        ids=ids,
        stamps=grid,
        values=np.where(filled == 0, np.nan, filled) if missing_zero else filled,
        freq=freq_name(grid),
        seasons=(day, 7 * day) if day > 1 else (7,),
        provenance=f"the user's file {file.name}" + (", zeros read as missing" if missing_zero else ""),
    )


def _read_npz(
    file: Path, channel: int, start: str, step_minutes: int
) -> tuple[tuple[str, ...], NDArray[np.datetime64], FloatArray]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            data = archive["data"] if "data" in archive.files else None
    except (ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{file.name} must be a NumPy archive of plain numbers",
            expected="a .npz file without pickled objects",
            got=str(error),
            next_step="Save the array again with numpy.savez.",
        ) from error
    if data is None or data.ndim != 3 or not 0 <= channel < data.shape[2]:
        raise InputError(
            f"{file.name} must hold an array `data` of steps x sensors x features with that channel",
            expected="three dimensions and 0 <= channel < features",
            got="no array `data`" if data is None else f"shape {data.shape} and channel {channel}",
            next_step="Check the file and channel=.",
        )
    step = np.timedelta64(positive_int("step_minutes", step_minutes), "m")
    stamps = np.datetime64(start, "ns") + np.arange(data.shape[0]) * step
    return tuple(f"sensor_{i}" for i in range(data.shape[1])), stamps, data[:, :, channel].T.astype(float)


def _read_csv(
    file: Path, channel: int, start: str, step_minutes: int
) -> tuple[tuple[str, ...], NDArray[np.datetime64], FloatArray]:
    pandas = require("pandas")
    table = pandas.read_csv(file)
    try:
        stamps = pandas.to_datetime(table.iloc[:, 0]).to_numpy().astype("datetime64[ns]")
        values = table.iloc[:, 1:].to_numpy(dtype=float).T
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{file.name} must hold stamps in the first column and numbers in all others",
            expected="one row per time step, one column per sensor",
            got=str(error).splitlines()[0],
            next_step="Reshape the table, or drop the columns that are no sensors.",
        ) from error
    if channel != 0:
        raise InputError(
            "a wide .csv has one feature per sensor",
            expected="channel 0",
            got=str(channel),
            next_step="Leave out channel=.",
        )
    return tuple(str(key) for key in table.columns[1:]), stamps, values


def _frame_group(store: Any, file: Path) -> Any:
    groups = [store[key] for key in store if hasattr(store[key], "keys") and "block0_values" in store[key]]
    if len(groups) != 1 or not {"axis0", "axis1", "block0_items"} <= set(groups[0]):
        raise InputError(
            f"{file.name} must hold one pandas frame in fixed format",
            expected="one group with axis0, axis1, block0_items and block0_values",
            got=f"{len(groups)} such groups among {sorted(store)}",
            next_step="Save the frame alone with DataFrame.to_hdf(..., format='fixed').",
        )
    return groups[0]


def _hdf_stamps(axis: Any, file: Path) -> NDArray[np.datetime64]:
    kind = axis.attrs.get("kind", b"")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    found = re.fullmatch(r"datetime64(?:\[(\w+)\])?", kind)
    if found is None:
        raise InputError(
            f"the rows of {file.name} must be time stamps",
            expected="an index of kind datetime64",
            got=f"kind {kind!r}",
            next_step="Give the frame a DatetimeIndex before saving it.",
        )
    # Without a unit in brackets the integers count nanoseconds.
    return np.asarray(axis[:]).astype(f"datetime64[{found.group(1) or 'ns'}]").astype("datetime64[ns]")


def _names(items: Any, file: Path) -> list[str]:
    listed = items[:].tolist()
    if not all(isinstance(item, bytes | str | int) for item in listed):
        raise InputError(
            f"the sensors of {file.name} must be texts or whole numbers",
            expected="columns stored as fixed-length bytes or integers",
            got=f"{items.name} of type {items.dtype}",
            next_step="Rename the frame's columns to texts and save it again.",
        )
    return [item.decode() if isinstance(item, bytes) else str(item) for item in listed]
