"""A user's csv or parquet file as a frame, with errors that name the file's own columns, and back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metier.core import InputError, require
from metier.core.tables import existing, no_rows, separator_of, unreadable
from metier.runs import atomic_write_bytes


def read_file(path: Path, *, id_col: str, time_col: str, target_col: str | None) -> Any:
    """Read a csv or parquet file into a polars frame.

    Args:
        path: the file.
        id_col, time_col: columns it must have.
        target_col: numeric column it must have; None for a file about the future.

    Returns:
        The frame; text in the time column of a csv file has been parsed to dates.

    Raises:
        InputError: no such file, another format, no rows, a column that lacks, or text where numbers belong,
            naming the row.
    """
    polars = require("polars")
    frame = _parse(polars, existing(path))
    wanted = [id_col, time_col, *([target_col] if target_col else [])]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise InputError(
            f"{path.name} must have the columns of id, time and target",
            expected=", ".join(map(repr, wanted)),
            got=f"no {', '.join(map(repr, missing))} among {', '.join(map(repr, frame.columns))}",
            next_step="Name yours with --id-col, --time-col and --target-col.",
        )
    if not frame.height:
        raise no_rows(path)
    frame = _stamps(polars, frame, time_col, path)
    return _numbers(polars, frame, target_col, path) if target_col else frame


def _parse(polars: Any, path: Path) -> Any:
    try:
        if path.suffix.lower() == ".csv":
            # Dates are parsed below, year first only: a guess at 01/02/2024 would be silent and often wrong.
            return polars.read_csv(path, separator=separator_of(path), infer_schema_length=None)
        return polars.read_parquet(path)
    except (polars.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, str(error).splitlines()[0]) from None


def _numbers(polars: Any, frame: Any, column: str, path: Path) -> Any:
    """Refuse text in the target by its row; an empty cell is left for the panel to report."""
    if frame.schema[column] != polars.String:
        return frame
    numbers = frame[column].str.strip_chars().cast(polars.Float64, strict=False)
    wrong = numbers.is_null() & frame[column].is_not_null()
    row = int(wrong.arg_max() or 0)
    if not wrong.any():
        return frame.with_columns(numbers.alias(column))
    raise InputError(
        f"column {column!r} of {path.name} must hold numbers",
        expected="a number in every row",
        got=f"{frame[column][row]!r} in row {row + 1} ({int(wrong.sum())} such rows)",
        next_step="Correct these rows, or name another column with --target-col.",
    )


def _stamps(polars: Any, frame: Any, column: str, path: Path) -> Any:
    """Parse text in the time column to dates, or refuse it by its row."""
    if frame.schema[column] != polars.String:
        return frame
    text = frame[column].str.strip_chars()
    iso = text.str.contains(r"^\d{4}-\d{2}-\d{2}").fill_null(False)
    stamps = None
    if iso.any():
        only_dates = bool((text.filter(iso).str.len_chars() == 10).all())
        parse = text.str.to_date if only_dates else text.str.to_datetime
        stamps = parse(strict=False).set(~iso, None)
    wrong = ~iso if stamps is None else stamps.is_null()
    if stamps is not None and not wrong.any():
        return frame.with_columns(stamps.alias(column))
    row = int(wrong.arg_max() or 0)
    raise InputError(
        f"column {column!r} of {path.name} must hold dates, year first, or whole numbers",
        expected="for example 2024-01-31 or 2024-01-31 18:00:00 in every row",
        got=f"{frame[column][row]!r} in row {row + 1} ({int(wrong.sum())} such rows)",
        next_step="Correct these rows, or name another column with --time-col.",
    )


def write_like(frame: Any, path: Path, *, source: Path) -> Path:
    """Write a polars frame atomically in the format that the suffix of `path` says.

    Args:
        frame: what to write.
        path: where.
        source: the input; stamps in csv are written as they look there.
    """
    buffer = io.BytesIO()
    if path.suffix == ".parquet":
        frame.write_parquet(buffer)
    else:
        separator = separator_of(source) if source.suffix.lower() == ".csv" else ","
        frame.write_csv(buffer, separator=separator, datetime_format=_stamp_format(frame, source))
    atomic_write_bytes(path, buffer.getvalue())
    return path


def _stamp_format(frame: Any, source: Path) -> str:
    """Seconds or microseconds as needed; the letter T between date and time where the source has it."""
    polars = require("polars")
    columns = [name for name, kind in frame.schema.items() if isinstance(kind, polars.Datetime)]
    with_t = False
    if columns and source.suffix.lower() == ".csv":
        first = polars.read_csv(source, n_rows=1, infer_schema=False, separator=separator_of(source))
        with_t = any("T" in str(first[name][0]) for name in columns if name in first.columns and first.height)
    fine = any(frame[name].dt.microsecond().sum() for name in columns)
    return f"%Y-%m-%d{'T' if with_t else ' '}%H:%M:%S{'%.6f' if fine else ''}"


def keep_columns(frame: Any, names: Sequence[str]) -> tuple[Any, list[str]]:
    """The frame with these columns, and the names of those left out."""
    return frame.select(names), [name for name in frame.columns if name not in names]
