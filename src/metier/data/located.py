"""Where the files of optional data packages lie; they are read, never imported and never vendored."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core import InputError, MissingExtraError

FloatArray = NDArray[np.float64]


def data_file(path: str | Path | None, *, package: str, inside: str) -> Path:
    """`path` if given, else the file `inside` the installed package, found without importing the package."""
    if path is not None:
        return existing_file(path)
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(package)
    return existing_file(Path(spec.submodule_search_locations[0]) / inside)


def existing_file(path: str | Path) -> Path:
    """`path` as a Path; InputError if no file lies there."""
    if not Path(path).is_file():
        raise InputError(
            "the data file must exist",
            expected="a readable file",
            got=str(path),
            next_step="Check the path.",
        )
    return Path(path)


def on_regular_grid(
    stamps: ArrayLike, values: FloatArray, *, step: np.timedelta64 | None = None
) -> tuple[NDArray[np.datetime64], FloatArray]:
    """Put (N, T) values on a complete time grid, by default of their shortest step; gaps become NaN."""
    seen = np.asarray(stamps, dtype="datetime64[ns]")
    gaps = np.diff(seen)
    if seen.size < 2 or not (gaps > np.timedelta64(0)).all():
        raise InputError(
            "the time stamps must increase strictly",
            expected="at least two stamps, each later than the one before",
            got=f"{seen.size} stamps" if seen.size < 2 else "a stamp that repeats or goes back",
            next_step="Sort the file by time and drop repeated stamps.",
        )
    step = gaps.min() if step is None else step
    if (gaps % step != np.timedelta64(0)).any():
        raise InputError(
            "the time stamps must lie on one regular grid",
            expected=f"gaps that are multiples of {step.astype('timedelta64[s]')}",
            got=f"a gap of {gaps[gaps % step != np.timedelta64(0)][0].astype('timedelta64[s]')}",
            next_step="Round the stamps to the grid first.",
        )
    columns = ((seen - seen[0]) // step).astype(np.int64)
    grid = seen[0] + np.arange(columns[-1] + 1) * step
    filled = np.full((values.shape[0], grid.size), np.nan)
    filled[:, columns] = values
    return grid, filled


def freq_name(stamps: NDArray[np.datetime64]) -> str:
    """The step of a regular grid in pandas' words: "5min", "h", "D", "8h", ..."""
    seconds = int((stamps[1] - stamps[0]) // np.timedelta64(1, "s"))
    for size, word in ((86_400, "D"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size and seconds % size == 0:
            count = seconds // size
            return word if count == 1 else f"{count}{word}"
    raise InputError(
        "the time step must be whole seconds",
        expected="at least one second",
        got=f"{stamps[1] - stamps[0]}",
        next_step="Aggregate the series to a longer step.",
    )
