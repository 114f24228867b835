"""The door for data frames: read any eager frame column by column, write results in the same kind."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from metier.core.errors import InputError
from metier.core.extras import require

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class FrameTemplate:
    """What an output frame copies from the input frame: library, column names, types of id and time.

    `id_dtype` and `time_dtype` are native types for pandas and pyarrow frames and narwhals types otherwise.
    """

    kind: Any
    id_col: str
    time_col: str
    target_col: str
    id_dtype: Any
    time_dtype: Any

    def to_dict(self) -> dict[str, str]:
        """Plain strings for a file; `from_dict` reads them back."""
        fields = ("kind", "id_col", "time_col", "target_col", "id_dtype", "time_dtype")
        return {field: str(getattr(self, field)) for field in fields}

    @classmethod
    def from_dict(cls, fields: Mapping[str, str]) -> FrameTemplate:
        """Rebuild a template from `to_dict`."""
        values: dict[str, Any] = dict(fields)
        if values["kind"] != "pandas":
            read = _arrow_type if values["kind"] == "pyarrow" else _dtype_from_text
            values |= {field: read(values[field]) for field in ("id_dtype", "time_dtype")}
        return cls(**values)

    def frame(self, columns: Mapping[str, Array]) -> Any:
        """A native frame of this kind; columns named as id and time take their types.

        Args:
            columns: name to (n,) array, all of one length, in output order.

        Returns:
            A frame of the library `kind`, without a special index.

        Example:
            >>> import polars as pl
            >>> df = pl.DataFrame({"unique_id": ["a"], "ds": [1], "y": [0.5]})
            >>> read_table(df).template.frame({"unique_id": np.array(["b"]), "yhat": np.array([2.0])}).columns
            ['unique_id', 'yhat']
        """
        typed = {self.id_col: self.id_dtype, self.time_col: self.time_dtype}
        series = [self._series(name, np.asarray(values), typed.get(name)) for name, values in columns.items()]
        return nw.concat([s.to_frame() for s in series], how="horizontal").to_native()

    def _series(self, name: str, values: Array, dtype: Any) -> nw.Series[Any]:
        if self.kind == "pandas":
            native = nw.new_series(name, values, backend="pandas").to_native()
            return nw.from_native(native if dtype is None else native.astype(dtype), series_only=True)
        # polars and pyarrow would keep an object array opaque
        plain = values.tolist() if values.dtype.kind == "O" else values
        series = nw.new_series(name, plain, backend=self.kind)
        if dtype is None:
            return series
        if self.kind == "pyarrow":
            series = nw.from_native(series.to_native().cast(dtype), series_only=True)
            return series.alias(name)
        return series.cast(dtype)


@dataclass(frozen=True, slots=True)
class Table:
    """A long frame as columns in its row order; the ids are still native."""

    ids: nw.Series[Any]
    stamps: Array
    target: NDArray[np.float64]
    exog: NDArray[np.float64]
    exog_names: tuple[str, ...]
    template: FrameTemplate


def read_table(
    df: Any,
    *,
    id_col: str = "unique_id",
    time_col: str = "ds",
    target_col: str = "y",
    exog: Sequence[str] | None = None,
) -> Table:
    """Read a long frame; every further column must be numeric and is taken as exogenous, known in advance.

    Args:
        df: pandas, polars or pyarrow frame (any eager frame narwhals reads). In pandas, id and time may also
            be named index levels.
        id_col: column of series names.
        time_col: column of dates without time zone, or of integers.
        target_col: numeric column; it may be absent when `exog` is given (a frame about the future).
        exog: exogenous columns wanted; None is all further columns.

    Returns:
        The columns as arrays.

    Raises:
        InputError: two roles name one column, a column is missing, has nulls where none may be, or has a type
            that cannot be used.

    Example:
        >>> import polars as pl
        >>> read_table(pl.DataFrame({"unique_id": ["a"], "ds": [1], "y": [0.5], "price": [2]})).exog_names
        ('price',)
    """
    require_three_columns(id_col, time_col, target_col)
    frame = to_narwhals(df, (id_col, time_col))
    wanted = (id_col, time_col, *(exog if exog is not None else (target_col,)))
    require_columns(frame, wanted)
    if not len(frame):
        raise InputError(
            "the frame must hold at least one row",
            expected="rows",
            got="an empty frame",
            next_step="Pass data.",
        )
    own = (id_col, time_col, target_col)
    names = tuple(exog) if exog is not None else tuple(name for name in frame.columns if name not in own)
    ids, stamps = frame[id_col], read_stamps(frame[time_col], ids=frame[id_col])
    refuse_null_ids(ids)
    target = numeric(frame[target_col]) if target_col in frame.columns else np.full(len(frame), np.nan)
    columns = [_exogenous(frame[name]) for name in names]
    return Table(
        ids=ids,
        stamps=stamps,
        target=target,
        exog=np.column_stack(columns) if columns else np.empty((len(frame), 0)),
        exog_names=names,
        template=FrameTemplate(
            kind=str(frame.implementation),
            id_col=id_col,
            time_col=time_col,
            target_col=target_col,
            id_dtype=column_dtype(frame[id_col]),
            time_dtype=column_dtype(frame[time_col]),
        ),
    )


def to_narwhals(df: Any, index_columns: Sequence[str] = ()) -> nw.DataFrame[Any]:
    """An eager narwhals frame; named pandas index levels among `index_columns` become columns.

    Raises:
        InputError: `df` is lazy or no data frame, or names a column twice.
    """
    index_names = list(getattr(getattr(df, "index", None), "names", []))
    hidden = [name for name in index_columns if name in index_names and name not in df.columns]
    if hidden:
        df = df.reset_index(level=hidden)
    try:
        return nw.from_native(df, eager_only=True)
    except (TypeError, ValueError) as error:
        lazy = hasattr(df, "collect")
        raise InputError(
            "the data must be a data frame in memory",
            expected="a pandas, polars or pyarrow frame with unique column names",
            got=f"{type(df).__module__.split('.')[0]} {type(df).__name__} ({str(error).splitlines()[0]})",
            next_step="Call .collect() first." if lazy else "Convert it to one of these.",
        ) from error


def require_three_columns(id_col: str, time_col: str, target_col: str) -> None:
    """Refuse one column in two roles."""
    names = {"id": id_col, "time": time_col, "target": target_col}
    if len(set(names.values())) < len(names):
        raise InputError(
            "id, time and target are three columns",
            expected="three different names",
            got=", ".join(f"{role} {name!r}" for role, name in names.items()),
            next_step="Name yours with id_col, time_col and target_col.",
        )


def require_columns(frame: nw.DataFrame[Any], names: Sequence[str]) -> None:
    """Refuse a frame that lacks one of `names`."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        found = ", ".join(repr(name) for name in frame.columns)
        raise InputError(
            "the frame must have the columns named",
            expected=", ".join(repr(name) for name in names),
            got=f"no {', '.join(map(repr, missing))} among {found}",
            next_step="Rename the columns, or pass id_col, time_col and target_col.",
        )


def column_dtype(series: nw.Series[Any]) -> Any:
    """The type to give back: native for pandas and pyarrow, which know more types, else narwhals' own."""
    kind = str(series.implementation)
    if kind == "pyarrow":
        return series.to_native().type
    return series.to_native().dtype if kind == "pandas" else series.dtype


def numeric(series: nw.Series[Any]) -> NDArray[np.float64]:
    """A float64 copy; nulls become NaN, Booleans 0 and 1.

    Raises:
        InputError: the column is not numeric.
    """
    dtype = series.dtype
    if not (dtype.is_numeric() or dtype == nw.Boolean):
        raise InputError(
            f"column {series.name!r} must be numeric",
            expected="numbers",
            got=f"type {dtype}",
            next_step="Cast it to numbers.",
        )
    if str(series.implementation) == "pandas":
        return np.array(series.to_native().to_numpy(dtype=np.float64, na_value=np.nan), copy=True)
    return np.array(series.cast(nw.Float64).to_numpy(), dtype=np.float64, copy=True)


def _exogenous(series: nw.Series[Any]) -> NDArray[np.float64]:
    if not (series.dtype.is_numeric() or series.dtype == nw.Boolean):
        raise InputError(
            "columns beside id, time and target are exogenous inputs known in advance, and must be numeric",
            expected="numbers or Booleans",
            got=f"column {series.name!r} of type {series.dtype}",
            next_step=f"Drop {series.name!r} or encode it as numbers.",
        )
    return numeric(series)


def read_stamps(series: nw.Series[Any], *, ids: nw.Series[Any] | None = None) -> Array:
    """Stamps as datetime64 (in the column's unit) or int64.

    Raises:
        InputError: time zones, text, fractions or nulls.
    """
    dtype = series.dtype
    zone = getattr(dtype, "time_zone", None)
    if zone is not None:
        raise _bad_time(
            series,
            f"type {dtype}",
            "a time column without time zone",
            f"Convert it to UTC, or to local time, and drop the zone {zone!r}; "
            "local time repeats or skips an hour where clocks change.",
        )
    if not (dtype.is_integer() or isinstance(dtype, (nw.Datetime, nw.Date))):
        raise _bad_time(
            series, f"type {dtype}", "dates or integers", "Parse it to dates, for example with to_datetime."
        )
    nulls = series.is_null()
    if nulls.any():
        named = "" if ids is None else f", first in series {str(ids.filter(nulls)[0])!r}"
        raise _bad_time(
            series,
            f"{int(nulls.sum())} missing stamps{named}",
            "a stamp in every row",
            "Drop or mend these rows.",
        )
    stamps = series.to_numpy()
    if dtype.is_integer():
        return np.array(stamps, dtype=np.int64)
    return np.array(stamps if stamps.dtype.kind == "M" else stamps.astype("M8[D]"))


def _bad_time(series: nw.Series[Any], got: str, expected: str, next_step: str) -> InputError:
    return InputError(
        f"time column {series.name!r} must hold plain stamps", expected=expected, got=got, next_step=next_step
    )


def refuse_null_ids(ids: nw.Series[Any]) -> None:
    """Refuse missing series names."""
    nulls = ids.is_null()
    if nulls.any():
        raise InputError(
            f"id column {ids.name!r} must name a series in every row",
            expected="no missing names",
            got=f"{int(nulls.sum())} missing, first in row {int(np.argmax(nulls.to_numpy()))}",
            next_step="Drop or name these rows.",
        )


def factorize(ids: nw.Series[Any]) -> tuple[NDArray[np.intp], Array]:
    """Codes of the rows and the sorted distinct ids: ``unique[codes]`` are the ids.

    Runs of equal ids are compressed first, so that a frame sorted by series costs one comparison per row.

    Example:
        >>> codes, unique = factorize(nw.new_series("id", np.array(["b", "a", "b"]), backend="polars"))
        >>> codes.tolist(), unique.tolist()
        ([1, 0, 1], ['a', 'b'])
    """
    starts = run_starts(ids)
    compressible = 4 * starts.size <= len(ids)
    heads = ids[starts] if compressible else ids
    names = _sorted_labels(heads)
    if 4 * names.size > heads.len():
        place = {label: code for code, label in enumerate(names)}
        codes = np.fromiter((place[label] for label in heads.to_list()), dtype=np.intp, count=heads.len())
    else:
        numbers = list(range(names.size))
        codes = (
            heads.replace_strict(names.tolist(), numbers, return_dtype=nw.Int64).to_numpy().astype(np.intp)
        )
    return (np.repeat(codes, np.diff(np.append(starts, len(ids)))) if compressible else codes), names


def _sorted_labels(ids: nw.Series[Any]) -> Array:
    try:
        labels = sorted(ids.unique().to_list())
    except TypeError as error:
        raise InputError(
            f"id column {ids.name!r} must hold names of one type",
            expected="all text or all integers",
            got="mixed types",
            next_step="Convert the ids to text.",
        ) from error
    names = np.empty(len(labels), dtype=object)
    names[:] = labels
    return names


def run_starts(ids: nw.Series[Any]) -> NDArray[np.intp]:
    """Rows at which a new run of equal ids starts; row 0 is one."""
    native, kind = ids.to_native(), str(ids.implementation)
    if kind == "pandas" and native.dtype == object:
        values = native.to_numpy()
        changed = values[1:] != values[:-1]
    else:
        changed = (
            np.asarray((ids[1:] != ids[:-1]).to_numpy(), dtype=bool) if len(ids) > 1 else np.empty(0, bool)
        )
    return np.concatenate(([0], np.flatnonzero(changed) + 1)).astype(np.intp)


def _arrow_type(text: str) -> Any:
    pyarrow = require("pyarrow")
    if text.startswith("dictionary<"):
        return pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    return pyarrow.type_for_alias(text)


def _dtype_from_text(text: str) -> Any:
    if text.startswith("Enum(categories="):
        return nw.Enum(ast.literal_eval(text.removeprefix("Enum(categories=").removesuffix(")")))
    signed = (nw.Int8(), nw.Int16(), nw.Int32(), nw.Int64())
    unsigned = (nw.UInt8(), nw.UInt16(), nw.UInt32(), nw.UInt64())
    others = (nw.String(), nw.Date(), nw.Categorical(), nw.Float64(), nw.Float32(), nw.Boolean())
    units: tuple[Literal["ns", "us", "ms", "s"], ...] = ("ns", "us", "ms", "s")
    known = {str(dtype): dtype for dtype in (*signed, *unsigned, *others, *(nw.Datetime(u) for u in units))}
    if text not in known:
        raise InputError(
            "a saved frame type must be known",
            expected=", ".join(known),
            got=text,
            next_step="Save again after casting the id and time columns to one of these.",
        )
    return known[text]
