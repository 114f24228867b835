"""Reading a file of people's own into columns, with or without a dataframe library."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .extras import is_installed, require

SUFFIXES = (".csv", ".parquet")
Table = dict[str, NDArray[Any]]
_OF_NUMBERS = frozenset("0123456789+-.eE")
_OF_INTEGERS = frozenset("0123456789+-")
_LARGEST = 2**63 - 1


def read_columns(path: Path, *, null_values: Sequence[str] = ("",)) -> Table:
    """Read a csv or parquet file into one array per column.

    Args:
        path: the file; a csv file is UTF-8, with a header line and commas, semicolons or tabs between cells.
        null_values: texts that mark a missing value in a csv file; an empty cell always does.

    Returns:
        Column name -> (n,) array: int64, float64 (NaN where a number is missing), bool, or object (text and
        dates; None where missing).

    Raises:
        InputError: no such file, another format, no rows, rows of unequal length, or a name that two columns
            have.
        MissingExtraError: a parquet file, and neither polars nor pyarrow is installed.
    """
    existing(path)
    columns = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path, null_values)
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
    """The comma, semicolon or tab that the header holds most often outside of quotes; the comma wins ties."""
    with path.open("rb") as file:
        header = re.sub(rb'"[^"]*"', b"", file.readline())
    return max(",;\t", key=lambda mark: header.count(mark.encode()))


def _parquet(path: Path) -> Table:
    if is_installed("polars"):
        polars = require("polars")
        try:
            return _from_polars(polars.read_parquet(path))
        except (polars.exceptions.PolarsError, OSError) as error:
            raise unreadable(path, str(error).splitlines()[0]) from None
    pyarrow = require("pyarrow", alone=True)  # the rest of its extra reads no file
    try:
        table = require("pyarrow.parquet").read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise unreadable(path, str(error).splitlines()[0]) from None
    return {name: _from_arrow(table[name]) for name in table.column_names}


def _from_arrow(column: Any) -> NDArray[Any]:
    pyarrow = require("pyarrow")
    if pyarrow.types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    values = column.to_numpy()
    if values.dtype.kind in "iu" and values.max(initial=0) <= _LARGEST:
        return np.asarray(values, dtype=np.int64)
    if values.dtype.kind in "iuf":
        return np.asarray(values, dtype=np.float64)
    return np.asarray(values) if values.dtype.kind == "b" else _objects(column.to_pylist())


def _from_polars(frame: Any) -> Table:
    polars = require("polars")
    columns: Table = {}
    for series in frame.iter_columns():
        if series.dtype.is_integer() and not series.null_count() and (series.max() or 0) <= _LARGEST:
            columns[series.name] = series.cast(polars.Int64).to_numpy()
        elif series.dtype.is_numeric():
            columns[series.name] = series.cast(polars.Float64).to_numpy()
        elif series.dtype == polars.Boolean and not series.null_count():
            columns[series.name] = series.to_numpy()
        else:
            columns[series.name] = _objects(series.to_list())
    return columns


def _csv(path: Path, null_values: Sequence[str]) -> Table:
    # One parser in every installation, so that no column changes its kind with the packages that are there.
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [
                row for row in csv.reader(file, delimiter=separator_of(path), strict=True) if row
            ]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise unreadable(path, str(error)) from None
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InputError(
            f"every column of {path.name} has a name of its own",
            expected="different names in the header",
            got=", ".join(map(repr, twice)) + " more than once",
            next_step="Rename the columns in the file.",
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise unreadable(path, f"{len(row)} cells in row {number}, {len(header)} in the header")
    missing = {"", *null_values}
    cells = zip(*rows, strict=True) if rows else [()] * len(header)
    return {name: _typed(column, missing) for name, column in zip(header, cells, strict=True)}


def _typed(cells: Sequence[str], missing: set[str]) -> NDArray[Any]:
    """The cells of a column as int64, float64 or bool where all that are there read so, as text otherwise."""
    there = [cell for cell in cells if cell not in missing]
    complete = len(there) == len(cells)
    words = {cell.lower() for cell in there} if len(there[0] if there else "") in (4, 5) else set()
    if complete and words and words <= {"true", "false"}:
        return np.array([cell.lower() == "true" for cell in there])
    # Not what else Python takes for a number: spaces, 1_000, nan, inf, digits of other scripts.
    if there and set("".join(there)) <= _OF_NUMBERS:
        try:
            numbers = np.array([np.nan if cell in missing else float(cell) for cell in cells])
        except ValueError:
            return _objects([None if cell in missing else cell for cell in cells])
        whole = complete and set("".join(there)) <= _OF_INTEGERS
        return np.array(list(map(int, cells))) if whole and abs(numbers).max() < _LARGEST else numbers
    return _objects([None if cell in missing else cell for cell in cells])


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    # One element more, so that NumPy never makes an axis of values that have a length.
    return np.array([*values, None], dtype=object)[:-1]
