"""Reading a file of people's own into columns, with or without a dataframe library."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .extras import require

SUFFIXES = (".csv", ".parquet")
Table = dict[str, NDArray[Any]]


def read_columns(path: Path, *, null_values: Sequence[str] = ("",)) -> Table:
    """Read a csv or parquet file into one array per column.

    Polars reads where it is installed, Python's own csv module elsewhere; both give the same columns.

    Args:
        path: the file; a csv file has a header line and commas, semicolons or tabs between cells.
        null_values: texts that mark a missing value in a csv file.

    Returns:
        Column name -> (n,) array: int64, float64 (NaN where a number is missing), bool, or object (text and
        dates; None where missing).

    Raises:
        InputError: no such file, another format, no rows, or rows of unequal length.
        MissingExtraError: a parquet file, and neither polars nor pyarrow is installed.
    """
    existing(path)
    if path.suffix.lower() == ".parquet":
        columns = _parquet(path)
    elif importlib.util.find_spec("polars"):
        columns = _polars_csv(path, null_values)
    else:
        columns = _plain_csv(path, null_values)
    if not columns or not len(next(iter(columns.values()))):
        raise no_rows(path)
    return columns


def existing(path: Path) -> Path:
    """Return `path` if it is a csv or parquet file that can be read; otherwise an error says what it is."""
    if path.suffix.lower() not in SUFFIXES:
        got = f"the folder {path}" if path.is_dir() else repr(path.name)
    elif not path.is_file():
        got = f"the folder {path}" if path.is_dir() else f"no file {path}"
    elif path.stat().st_size == 0:
        raise no_rows(path)
    else:
        return path
    raise InputError(
        "the data come in one file",
        expected="a file that ends in .csv or .parquet",
        got=got,
        next_step="Check the path, or convert the file.",
    )


def no_rows(path: Path) -> InputError:
    """The error for a file without rows."""
    return InputError(
        f"{path.name} must hold at least one row",
        expected="a header and rows",
        got="an empty file",
        next_step="Check how the file was made.",
    )


def unreadable(path: Path, got: str) -> InputError:
    """The error for a file that its own format does not describe."""
    is_csv = path.suffix.lower() == ".csv"
    return InputError(
        f"{path.name} must be a readable {path.suffix.lower()[1:]} file",
        expected="a header line and rows of equal length" if is_csv else "parquet",
        got=got,
        next_step="Mend or export the file again.",
    )


def separator_of(path: Path) -> str:
    """The comma, semicolon or tab that the header holds most often; the comma wins ties."""
    with path.open("rb") as file:
        header = file.readline()
    return max(",;\t", key=lambda mark: header.count(mark.encode()))


def _parquet(path: Path) -> Table:
    if importlib.util.find_spec("polars"):
        polars = require("polars")
        try:
            return _from_polars(polars.read_parquet(path))
        except (polars.exceptions.PolarsError, OSError) as error:
            raise unreadable(path, str(error).splitlines()[0]) from None
    pyarrow = require("pyarrow")
    try:
        table = require("pyarrow.parquet").read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise unreadable(path, str(error).splitlines()[0]) from None
    return {name: _from_arrow(table[name]) for name in table.column_names}


def _from_arrow(column: Any) -> NDArray[Any]:
    values = column.to_numpy()
    if values.dtype.kind in "iu":
        return np.asarray(values, dtype=np.int64)
    if values.dtype.kind in "fb":
        return np.asarray(values, dtype=np.float64 if values.dtype.kind == "f" else bool)
    return _objects(column.to_pylist())


def _polars_csv(path: Path, null_values: Sequence[str]) -> Table:
    polars = require("polars")
    options = {"separator": separator_of(path), "infer_schema_length": None}
    try:
        frame = polars.read_csv(path, null_values=list(null_values) or None, **options)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, str(error).splitlines()[0]) from None
    return _from_polars(frame)


def _from_polars(frame: Any) -> Table:
    polars = require("polars")
    columns: Table = {}
    for series in frame.iter_columns():
        if series.dtype.is_integer() and not series.null_count():
            columns[series.name] = series.cast(polars.Int64).to_numpy()
        elif series.dtype.is_numeric():
            columns[series.name] = series.cast(polars.Float64).to_numpy()
        elif series.dtype == polars.Boolean and not series.null_count():
            columns[series.name] = series.to_numpy()
        else:
            columns[series.name] = _objects(series.to_list())
    return columns


def _plain_csv(path: Path, null_values: Sequence[str]) -> Table:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file, delimiter=separator_of(path)) if row]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise unreadable(path, str(error)) from None
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise unreadable(path, f"{len(row)} cells in row {number}, {len(header)} in the header")
    missing = {"", *null_values}
    cells = zip(*rows, strict=True) if rows else [()] * len(header)
    return {name: _typed_cells(column, missing) for name, column in zip(header, cells, strict=True)}


def _typed_cells(cells: Sequence[str], missing: set[str]) -> NDArray[Any]:
    """The cells of a column as int64, float64 or bool where all that are there read so, as text otherwise."""
    there = [cell for cell in cells if cell not in missing]
    complete = len(there) == len(cells)
    if there and set(there) <= {"true", "false"} and complete:
        return np.array([cell == "true" for cell in there])
    # Python also reads 1_000 as a number; a file means text by it.
    if there and not any("_" in cell for cell in there):
        try:
            if complete:
                return np.array([int(cell) for cell in there], dtype=np.int64)
        except (ValueError, OverflowError):
            pass
        try:
            return np.array([np.nan if cell in missing else float(cell) for cell in cells])
        except ValueError:
            pass
    return _objects([None if cell in missing else cell for cell in cells])


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    # One element more, so that NumPy never makes an axis of values that have a length.
    return np.array([*values, None], dtype=object)[:-1]
