"""From the rows of a long frame to series side by side on their common grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.errors import InputError
from metier.forecast.panels.frames import Table
from metier.forecast.panels.frequency import Frequency, stamp_text
from metier.forecast.panels.repair import Grid, Repairs, named

Array = NDArray[Any]
Codes = NDArray[np.intp]

_MANY_CELLS = 100_000_000
_INFER_ROWS = 1_000_000


def settle_frequency(freq: str | int | None, stamps: Array, codes: Codes) -> Frequency:
    """The frequency asked for, or the one inferred, anchored in the data."""
    if freq is not None:
        return Frequency.parse(freq).anchored(stamps)
    if codes.size > _INFER_ROWS:
        # a sample of whole series only guesses; every row is checked against the guess later
        lengths = np.bincount(codes)
        wanted = lengths > 1
        wanted[np.cumsum(lengths * wanted) > max(_INFER_ROWS, int(lengths.max()))] = False
        sample = wanted[codes]
        codes, stamps = codes[sample], stamps[sample]
    order = np.lexsort((stamps, codes))
    return Frequency.infer(stamps[order], codes[order])


def to_grid(table: Table, codes: Codes, ids: Array, freq: Frequency, repairs: Repairs) -> Grid:
    """Lay the rows of a long table on the common grid; repeated stamps are settled or refused here."""
    grid = _aligned(table, codes, ids, freq)
    return _scattered(table, codes, ids, freq, repairs) if grid is None else grid


def _aligned(table: Table, codes: Codes, ids: Array, freq: Frequency) -> Grid | None:
    """The grid by reshaping alone, for whole series one after the other on equal stamps; None otherwise."""
    n, rest = ids.size, codes.size % ids.size
    if rest:
        return None
    by_series, stamps = codes.reshape(n, -1), table.stamps.reshape(n, -1)
    if (by_series != by_series[:, :1]).any() or (stamps != stamps[0]).any():
        return None
    index, on_grid = freq.index_of(stamps[0], stamps[0, 0])
    if not on_grid.all() or (index != np.arange(index.size)).any():
        return None
    order = np.argsort(by_series[:, 0])
    rows: Any = slice(None) if (order == np.arange(n)).all() else order
    exog = table.exog.reshape(n, index.size, -1) if table.exog_names else np.empty((n, index.size, 0))
    return Grid(
        ids=ids,
        stamps=stamps[0].copy(),
        values=table.target.reshape(n, -1)[rows],
        exog=exog[rows],
        exog_names=table.exog_names,
        present=np.broadcast_to(np.True_, (n, index.size)),
    )


def _scattered(table: Table, codes: Codes, ids: Array, freq: Frequency, repairs: Repairs) -> Grid:
    origin = table.stamps.min()
    column, on_grid = freq.index_of(table.stamps, origin)
    if not on_grid.all():
        _refuse_off_grid(table, codes, ids, freq, ~on_grid)
    shape = (ids.size, int(column.max()) + 1)
    _refuse_sparse(shape, codes.size, table.stamps, freq)
    flat = codes * shape[1] + column
    present = np.zeros(shape, dtype=bool)
    present.reshape(-1)[flat] = True
    repeated = int(np.count_nonzero(present)) < flat.size
    if repeated and repairs.duplicates is None:
        _refuse_repeated(flat, ids, shape, table, column)
    how = repairs.duplicates if repeated else "last_duplicate"
    values = _scatter(flat, table.target, shape, how)
    exog_how = "last_duplicate" if how == "last_duplicate" else "mean_duplicates"
    exog = [_scatter(flat, x, shape, exog_how) for x in table.exog.T]
    return Grid(
        ids=ids,
        stamps=freq.grid(origin, table.stamps.max()),
        values=values,
        exog=np.stack(exog, axis=2) if exog else np.empty((*shape, 0)),
        exog_names=table.exog_names,
        present=present,
    )


def _scatter(
    flat: Codes, values: NDArray[np.float64], shape: tuple[int, int], how: str | None
) -> NDArray[np.float64]:
    cells = np.full(shape, np.nan)
    if how == "last_duplicate":
        cells.reshape(-1)[flat] = values
        return cells
    size = shape[0] * shape[1]
    count = np.bincount(flat, minlength=size)
    total = np.bincount(flat, weights=values, minlength=size)
    seen = count > 0
    cells.reshape(-1)[seen] = total[seen] / (count[seen] if how == "mean_duplicates" else 1)
    return cells


def _refuse_off_grid(table: Table, codes: Codes, ids: Array, freq: Frequency, off: NDArray[np.bool_]) -> None:
    bad = np.isin(np.arange(ids.size), codes[off])
    row = int(np.argmax(bad))
    stamp = table.stamps[off & (codes == row)].min()
    raise InputError(
        f"all stamps lie on one grid of frequency {freq.name!r}",
        expected=f"whole steps from {stamp_text(table.stamps.min())}",
        got=f"stamps off the grid in {named(ids, bad)}, first {stamp_text(stamp)} in {ids[row]!r}",
        next_step="Pass the right freq, or round the stamps.",
    )


def _refuse_repeated(flat: Codes, ids: Array, shape: tuple[int, int], table: Table, column: Codes) -> None:
    cells = np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape) > 1
    bad = cells.any(axis=1)
    row = int(np.argmax(bad))
    stamp = table.stamps[np.argmax(column == np.argmax(cells[row]))]
    raise InputError(
        "a series holds each stamp once",
        expected="one row per series and stamp",
        got=f"repeated stamps in {named(ids, bad)}, first {stamp_text(stamp)} in {ids[row]!r}",
        next_step="Pass repair='sum_duplicates', 'mean_duplicates' or 'last_duplicate'.",
    )


def _refuse_sparse(shape: tuple[int, int], n_rows: int, stamps: Array, freq: Frequency) -> None:
    cells = shape[0] * shape[1]
    span = f"from {stamps.min()} to {stamps.max()}"
    if cells > _MANY_CELLS and cells > 50 * n_rows:
        raise InputError(
            "series overlap on a common grid",
            expected=f"at most 50 grid cells per row ({n_rows} rows)",
            got=f"{shape[0]} series on {shape[1]} steps of {freq.name!r} {span}",
            next_step="Check for a stray early or late stamp, or pass a coarser freq.",
        )
