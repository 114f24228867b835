"""A panel: series side by side on one regular time grid, read from a long frame and written back to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.errors import InputError
from metier.forecast.panels.align import settle_frequency, to_grid
from metier.forecast.panels.frames import FrameTemplate, Table, factorize, read_table
from metier.forecast.panels.frequency import Frequency, stamp_text
from metier.forecast.panels.repair import Grid, Repairs, mend, named, too_short

Array = NDArray[Any]
Codes = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Panel:
    """N series on T stamps. Series are sorted by id; all arrays are read-only.

    Args:
        ids: (N,) series names, sorted (as Nixtla's libraries do).
        stamps: (T,) the common grid, datetime64 in the frame's unit, or int64.
        values: (N, T) float64 targets; NaN before a series starts and after it ends, finite between.
        first: (N,) column of each series' first value.
        stop: (N,) column after each series' last value.
        exog: (N, T, E) float64 inputs known in advance, NaN where the target is; E may be 0.
        exog_names: (E,) their columns.
        freq: the grid's frequency.
        template: how output frames look.
    """

    ids: Array
    stamps: Array
    values: NDArray[np.float64]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    exog: NDArray[np.float64]
    exog_names: tuple[str, ...]
    freq: Frequency
    template: FrameTemplate

    def __post_init__(self) -> None:
        for array in (self.ids, self.stamps, self.values, self.first, self.stop, self.exog):
            array.flags.writeable = False

    @property
    def n_series(self) -> int:
        """N."""
        return int(self.values.shape[0])

    @property
    def n_steps(self) -> int:
        """T."""
        return int(self.values.shape[1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) stamps of each series."""
        return self.stop - self.first

    @property
    def constant(self) -> NDArray[np.bool_]:
        """(N,) series whose values are all equal."""
        some = np.take_along_axis(self.values, self.first[:, None], axis=1)
        return np.asarray(((self.values == some) | np.isnan(self.values)).all(axis=1))

    def select(self, rows: Array) -> Panel:
        """The series in `rows` (indices or a mask), on the same grid."""
        rows = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
        return replace(
            self,
            ids=self.ids[rows],
            values=self.values[rows],
            first=self.first[rows],
            stop=self.stop[rows],
            exog=self.exog[rows],
        )

    def until(self, column: int) -> Panel:
        """The panel as it was known at column `column` (not included); later series have length 0.

        Example:
            >>> import polars as pl
            >>> df = pl.DataFrame({"unique_id": ["a"] * 3, "ds": [1, 2, 3], "y": [5.0, 6.0, 7.0]})
            >>> panel_from_frame(df).until(2).values.tolist()
            [[5.0, 6.0]]
        """
        return replace(
            self,
            stamps=self.stamps[:column].copy(),
            values=self.values[:, :column].copy(),
            first=np.minimum(self.first, column),
            stop=np.minimum(self.stop, column),
            exog=self.exog[:, :column].copy(),
        )


def panel_from_frame(
    df: Any,
    *,
    id_col: str = "unique_id",
    time_col: str = "ds",
    target_col: str = "y",
    freq: str | int | None = None,
    repair: str | Sequence[str] = (),
    min_length: int = 1,
) -> Panel:
    """Read a long frame of series into a panel.

    Args:
        df: one row per series and stamp: a pandas, polars or pyarrow frame. Columns beside the three named
            ones must be numeric or Boolean, and are exogenous inputs known in advance.
        id_col: column of series names.
        time_col: column of dates without time zone, or of integers.
        target_col: numeric column.
        freq: alias such as ``"h"``, ``"W-MON"``, ``"MS"``, or an integer step; None infers it.
        repair: names of repairs (`Repairs.parse` lists them); by default every problem is an error.
        min_length: stamps each series needs.

    Returns:
        The panel. Series may start late and end early; constant series are kept.

    Raises:
        InputError: missing columns, wrong types, stamps off the grid, repeated or missing stamps, values that
            are not finite, and empty or short series, each naming the series and the repair.

    Example:
        >>> import polars as pl
        >>> df = pl.DataFrame({"unique_id": ["b", "b", "a"], "ds": [1, 2, 2], "y": [5.0, 6.0, 7.0]})
        >>> panel = panel_from_frame(df)
        >>> panel.ids.tolist(), panel.values.tolist(), panel.first.tolist()
        (['a', 'b'], [[nan, 7.0], [5.0, 6.0]], [1, 0])
    """
    repairs = Repairs.parse(repair)
    table = read_table(df, id_col=id_col, time_col=time_col, target_col=target_col)
    codes, ids = factorize(table.ids)
    frequency = settle_frequency(freq, table.stamps, codes)
    grid = to_grid(table, codes, ids, frequency, repairs)
    return _panel(mend(grid, repairs, min_length=min_length), frequency, table.template)


def require_length(panel: Panel, min_length: int, *, repair: str | Sequence[str] = ()) -> Panel:
    """Refuse series with fewer than `min_length` stamps, or leave them out under ``repair="drop_short"``.

    Raises:
        InputError: short series and no repair, or no series left.

    Example:
        >>> import polars as pl
        >>> df = pl.DataFrame({"unique_id": ["a", "b", "b"], "ds": [1, 1, 2], "y": [1, 2, 3]})
        >>> panel = panel_from_frame(df)
        >>> require_length(panel, 2, repair="drop_short").ids.tolist()
        ['b']
    """
    enough = panel.lengths >= min_length
    if enough.all():
        return panel
    if not Repairs.parse(repair).drop_short or not enough.any():
        raise too_short(panel.ids, panel.lengths, min_length)
    return panel.select(enough)


def future_stamps(panel: Panel, h: int) -> Array:
    """(N, h) stamps after the end of each series.

    Example:
        >>> import polars as pl
        >>> df = pl.DataFrame({"unique_id": ["a", "b", "b"], "ds": [1, 1, 2], "y": [1, 2, 3]})
        >>> panel = panel_from_frame(df)
        >>> future_stamps(panel, 2).tolist()
        [[2, 3], [3, 4]]
    """
    beyond = panel.freq.advance(panel.stamps[-1], np.arange(1, h + 1))
    extended = np.concatenate([panel.stamps, beyond])
    return np.asarray(extended[panel.stop[:, None] + np.arange(h)])


def future_frame(panel: Panel, h: int) -> Any:
    """A frame like the input's with the `h` stamps after each series' end (n_series * h rows).

    Example:
        >>> import polars as pl
        >>> panel = panel_from_frame(pl.DataFrame({"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0]}))
        >>> future_frame(panel, 1).rows()
        [('a', 3)]
    """
    codes = np.repeat(np.arange(panel.n_series), h)
    return frame_like(panel, {}, codes=codes, stamps=future_stamps(panel, h).ravel())


def frame_like(
    panel: Panel | FrameTemplate,
    columns: Mapping[str, Array],
    *,
    codes: Array | None = None,
    stamps: Array | None = None,
) -> Any:
    """An output frame of the input's library, with its column names and types for id and time.

    Args:
        panel: the panel, or its template when `codes` is None.
        columns: further columns, name to (n,) array, in order.
        codes: (n,) rows of `panel.ids` for the id column; None leaves it to `columns`.
        stamps: (n,) the time column; None leaves it to `columns`.

    Returns:
        A native frame: id, time, then `columns`.

    Example:
        >>> import polars as pl
        >>> panel = panel_from_frame(pl.DataFrame({"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0]}))
        >>> frame_like(panel, {"cluster": np.array([3])}, codes=np.array([0])).rows()
        [('a', 3)]
    """
    template = panel.template if isinstance(panel, Panel) else panel
    built: dict[str, Array] = {}
    if codes is not None:
        if not isinstance(panel, Panel):
            raise TypeError("codes need a panel, whose ids they number")
        built[template.id_col] = panel.ids[codes]
    if stamps is not None:
        built[template.time_col] = stamps
    return template.frame({**built, **columns})


def exog_for_future(future: Any, panel: Panel, h: int) -> NDArray[np.float64]:
    """The exogenous inputs of the `h` steps after each series' end.

    Args:
        future: long frame with id, time and every exogenous column of the panel; None if the panel has none.
            Further series, stamps and columns are not used.
        panel: the panel to forecast.
        h: steps.

    Returns:
        (N, h, E) float64.

    Raises:
        InputError: no frame where the panel has exogenous columns (or the reverse), columns, series or stamps
            that lack, repeated stamps, or values that are not finite.

    Example:
        >>> import polars as pl
        >>> df = pl.DataFrame({"unique_id": ["a", "a"], "ds": [1, 2], "y": [1.0, 2.0], "price": [3, 4]})
        >>> future = pl.DataFrame({"unique_id": ["a"], "ds": [3], "price": [9]})
        >>> exog_for_future(future, panel_from_frame(df), 1).tolist()
        [[[9.0]]]
    """
    names = ", ".join(repr(name) for name in panel.exog_names)
    if (future is None) != (not panel.exog_names):
        raise InputError(
            "future holds the exogenous columns that fit saw, after each series' end",
            expected=f"a frame with {names}"
            if panel.exog_names
            else "no future: fit saw no exogenous columns",
            got="None" if future is None else "a frame",
            next_step="Pass future=..."
            if panel.exog_names
            else "Leave future out, or fit with these columns.",
        )
    if future is None:
        return np.empty((panel.n_series, h, 0))
    template = panel.template
    table = read_table(
        future,
        id_col=template.id_col,
        time_col=template.time_col,
        target_col=template.target_col,
        exog=panel.exog_names,
    )
    row, step, keep = _future_cells(table, panel, h)
    seen = np.zeros((panel.n_series, h), dtype=np.int64)
    np.add.at(seen, (row, step), 1)
    _check_future(panel, seen, h)
    exog = np.empty((panel.n_series, h, len(panel.exog_names)))
    exog[row, step] = table.exog[keep]
    _check_future_finite(panel, exog)
    return exog


def _check_future_finite(panel: Panel, exog: NDArray[np.float64]) -> None:
    holes: Any = ~np.isfinite(exog)
    if holes.any():
        lacking = holes.any(axis=(0, 1))
        bad = ", ".join(repr(name) for name, lacks in zip(panel.exog_names, lacking, strict=True) if lacks)
        raise InputError(
            "exogenous values of the future must be finite",
            expected="numbers",
            got=f"missing or infinite {bad} in {named(panel.ids, holes.any(axis=(1, 2)))}",
            next_step="Fill these values in future.",
        )


def _future_cells(table: Table, panel: Panel, h: int) -> tuple[Codes, Codes, NDArray[np.bool_]]:
    codes, ids = factorize(table.ids)
    place = {label: row for row, label in enumerate(panel.ids)}
    rows = np.array([place.get(label, -1) for label in ids], dtype=np.intp)[codes]
    if table.stamps.dtype.kind != panel.stamps.dtype.kind:
        raise InputError(
            f"time column {panel.template.time_col!r} of future must be of the type that fit saw",
            expected=str(panel.stamps.dtype),
            got=str(table.stamps.dtype),
            next_step="Convert it.",
        )
    # the finer unit of the two: casting to the coarser would move stamps onto the grid
    unit = np.promote_types(table.stamps.dtype, panel.stamps.dtype)
    column, on_grid = panel.freq.index_of(table.stamps.astype(unit), panel.stamps[0].astype(unit))
    step = column - panel.stop[rows]
    keep = (rows >= 0) & on_grid & (step >= 0) & (step < h)
    return rows[keep], step[keep], keep


def _check_future(panel: Panel, seen: NDArray[np.int64], h: int) -> None:
    lacking, repeated = seen == 0, seen > 1
    if lacking.any():
        row = int(np.argmax(lacking.any(axis=1)))
        stamp = stamp_text(future_stamps(panel, h)[row, int(np.argmax(lacking[row]))])
        raise InputError(
            f"future needs the {h} stamps after each series' end",
            expected=f"{panel.n_series * h} rows",
            got=f"no row for {named(panel.ids, lacking.any(axis=1))}, first {stamp} in {panel.ids[row]!r}",
            next_step="Add these rows to future.",
        )
    if repeated.any():
        raise InputError(
            "future holds each series and stamp once",
            expected="one row each",
            got=f"repeated stamps in {named(panel.ids, repeated.any(axis=1))}",
            next_step="Remove the repeated rows.",
        )


def _panel(grid: Grid, freq: Frequency, template: FrameTemplate) -> Panel:
    return Panel(
        ids=grid.ids,
        stamps=grid.stamps,
        values=grid.values,
        first=grid.first,
        stop=grid.stop,
        exog=grid.exog,
        exog_names=grid.exog_names,
        freq=freq,
        template=template,
    )
