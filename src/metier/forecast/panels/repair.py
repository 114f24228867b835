"""Problems of a panel, found and named, and the repairs a user can ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import one_of
from metier.core.errors import InputError
from metier.forecast.panels.frequency import stamp_text

Array = NDArray[Any]
Mask = NDArray[np.bool_]

DUPLICATE_REPAIRS = ("sum_duplicates", "mean_duplicates", "last_duplicate")
FILL_REPAIRS = ("fill_zero", "fill_forward", "interpolate")
REPAIRS = (*DUPLICATE_REPAIRS, *FILL_REPAIRS, "drop_short", "drop_empty")


@dataclass(frozen=True, slots=True)
class Repairs:
    """The repairs asked for: at most one rule for duplicates, one for holes, and what may be dropped."""

    duplicates: str | None = None
    fill: str | None = None
    drop_short: bool = False
    drop_empty: bool = False

    @classmethod
    def parse(cls, repair: str | Sequence[str] | Repairs) -> Repairs:
        """Read repair names.

        - ``sum_duplicates``, ``mean_duplicates``: one value for rows that repeat a stamp (exogenous values
          are averaged); ``last_duplicate`` keeps the last row of the frame.
        - ``fill_zero``, ``fill_forward``, ``interpolate``: a value for missing stamps inside a series and for
          targets that are not finite. Forward filling needs an earlier value; interpolation is linear and
          takes the nearest value beyond the outermost ones. Exogenous values are interpolated by
          ``interpolate`` and carried forward by the other two.
        - ``drop_short``, ``drop_empty``: leave out series with too few stamps, or without a finite target.

        Args:
            repair: one name or several.

        Returns:
            The parsed repairs.

        Raises:
            InputError: an unknown name, or two rules for the same problem.

        Example:
            >>> Repairs.parse(["fill_zero", "drop_short"]).fill
            'fill_zero'
        """
        if isinstance(repair, Repairs):
            return repair
        names = tuple(
            one_of("repair", name, REPAIRS) for name in ([repair] if isinstance(repair, str) else repair)
        )
        return cls(
            duplicates=_single(names, DUPLICATE_REPAIRS, "repeated stamps"),
            fill=_single(names, FILL_REPAIRS, "missing values"),
            drop_short="drop_short" in names,
            drop_empty="drop_empty" in names,
        )


def _single(names: Sequence[str], family: Sequence[str], problem: str) -> str | None:
    chosen = [name for name in dict.fromkeys(names) if name in family]
    if len(chosen) > 1:
        raise InputError(
            f"repair takes one rule for {problem}",
            expected="one of " + ", ".join(repr(name) for name in family),
            got=" and ".join(repr(name) for name in chosen),
            next_step="Keep one of them.",
        )
    return chosen[0] if chosen else None


@dataclass(frozen=True, slots=True)
class Grid:
    """Series on their common grid: `present` marks the cells that had a row, all else is NaN."""

    ids: Array
    stamps: Array
    values: NDArray[np.float64]
    exog: NDArray[np.float64]
    exog_names: tuple[str, ...]
    present: Mask

    @property
    def first(self) -> NDArray[np.int64]:
        """(N,) column of each series' first row."""
        return np.asarray(np.argmax(self.present, axis=1), dtype=np.int64)

    @property
    def stop(self) -> NDArray[np.int64]:
        """(N,) column after each series' last row."""
        return np.asarray(self.present.shape[1] - np.argmax(self.present[:, ::-1], axis=1), dtype=np.int64)

    @property
    def inside(self) -> Mask:
        """(N, T) cells from a series' first row to its last."""
        columns = np.arange(self.present.shape[1])
        return np.asarray((columns >= self.first[:, None]) & (columns < self.stop[:, None]))

    def select(self, rows: Array) -> Grid:
        """The given series; the grid is cut to the stamps that they cover."""
        present = self.present[rows]
        used = np.flatnonzero(present.any(axis=0))
        cut = slice(used[0], used[-1] + 1)
        return replace(
            self,
            ids=self.ids[rows],
            stamps=self.stamps[cut],
            values=self.values[rows, cut],
            exog=self.exog[rows, cut],
            present=present[:, cut],
        )


def mend(grid: Grid, repairs: Repairs, *, min_length: int = 1) -> Grid:
    """Apply the repairs asked for and refuse what remains, one error per problem.

    Args:
        grid: the series as they came; repeated stamps are settled already.
        repairs: what the user asked for.
        min_length: stamps a series needs.

    Returns:
        A grid without empty or short series, gaps, or values that are not finite.

    Raises:
        InputError: a problem remains; the series are named, and the repair that would mend them.
    """
    grid = _mend_empty(grid, repairs)
    if not grid.present.all() or not np.isfinite(grid.values).all() or not np.isfinite(grid.exog).all():
        grid = _mend_holes(grid, repairs)
    return _mend_short(grid, repairs, min_length)


def _mend_empty(grid: Grid, repairs: Repairs) -> Grid:
    empty = ~np.isfinite(grid.values).any(axis=1)
    if not empty.any() or (repairs.fill == "fill_zero" and not repairs.drop_empty):
        return grid
    if repairs.drop_empty:
        return _keep(grid, ~empty, "drop_empty")
    raise InputError(
        "each series needs at least one finite target",
        expected="some numbers",
        got=f"none in {named(grid.ids, empty)}",
        next_step="Pass repair='drop_empty' to leave these series out.",
    )


def _mend_short(grid: Grid, repairs: Repairs, min_length: int) -> Grid:
    lengths = grid.stop - grid.first
    short = lengths < min_length
    if not short.any():
        return grid
    if repairs.drop_short:
        return _keep(grid, ~short, "drop_short")
    raise too_short(grid.ids, lengths, min_length)


def too_short(ids: Array, lengths: Array, min_length: int) -> InputError:
    """The error for series with fewer than `min_length` stamps."""
    short = lengths < min_length
    return InputError(
        "each series needs enough stamps to learn from",
        expected=f"at least {min_length}",
        got=f"fewer (the shortest has {int(lengths.min())}) in {named(ids, short)}",
        next_step="Pass repair='drop_short' to leave these series out, or shorten the horizon or the lags.",
    )


def _keep(grid: Grid, keep: Any, repair: str) -> Grid:
    if not keep.any():
        raise InputError(
            f"repair={repair!r} must leave at least one series",
            expected="one good series",
            got=f"none of {keep.size}",
            next_step="Check the target column.",
        )
    return grid.select(np.flatnonzero(keep))


def _mend_holes(grid: Grid, repairs: Repairs) -> Grid:
    inside = grid.inside
    holes = inside & ~np.isfinite(grid.values)
    if repairs.fill is None:
        _refuse_gaps(grid, inside & ~grid.present)
        _refuse_not_finite(grid, holes)
        _refuse_exog(grid, inside)
        return grid
    values = _filled(grid.values, holes, inside, repairs.fill)
    exog_rule = "interpolate" if repairs.fill == "interpolate" else "fill_forward"
    columns = [
        _filled(column, inside & ~np.isfinite(column), inside, exog_rule)
        for column in np.moveaxis(grid.exog, 2, 0)
    ]
    exog = np.stack(columns, axis=2) if columns else grid.exog
    mended = replace(grid, values=values, exog=exog, present=inside)
    _refuse_leading(mended, inside & ~np.isfinite(values))
    _refuse_exog(mended, inside)
    return mended


def _filled(values: NDArray[np.float64], holes: Mask, inside: Mask, rule: str) -> NDArray[np.float64]:
    filled = values.copy()
    if rule == "fill_zero":
        filled[holes] = 0.0
        return filled
    for row in np.flatnonzero(holes.any(axis=1)):
        known = np.flatnonzero(inside[row] & np.isfinite(values[row]))
        wanted = np.flatnonzero(holes[row])
        if rule == "interpolate" and known.size:
            filled[row, wanted] = np.interp(wanted, known, values[row, known])
        elif rule == "fill_forward":
            before = np.searchsorted(known, wanted) - 1
            has = before >= 0
            filled[row, wanted] = np.nan
            filled[row, wanted[has]] = values[row, known[before[has]]]
    return filled


def _refuse_gaps(grid: Grid, gaps: Mask) -> None:
    if gaps.any():
        raise InputError(
            "stamps must follow the grid without a gap inside a series",
            expected="every step from a series' first stamp to its last",
            got=f"missing stamps in {_whose(grid, gaps)}",
            next_step="Pass repair='fill_zero', 'fill_forward' or 'interpolate'.",
        )


def _refuse_not_finite(grid: Grid, holes: Mask) -> None:
    if holes.any():
        raise InputError(
            "targets must be finite; a series that has ended has no rows",
            expected="numbers",
            got=f"missing or infinite targets in {_whose(grid, holes)}",
            next_step="Pass repair='fill_zero', 'fill_forward' or 'interpolate'; drop rows after the end.",
        )


def _refuse_leading(grid: Grid, holes: Mask) -> None:
    if holes.any():
        raise InputError(
            "repair='fill_forward' needs an earlier value",
            expected="a finite first target",
            got=f"none in {_whose(grid, holes)}",
            next_step="Drop the leading rows, or pass repair='fill_zero' or 'interpolate'.",
        )


def _refuse_exog(grid: Grid, inside: Mask) -> None:
    for number, name in enumerate(grid.exog_names):
        holes = inside & ~np.isfinite(grid.exog[:, :, number])
        if holes.any():
            raise InputError(
                f"exogenous column {name!r} must be finite",
                expected="numbers",
                got=f"missing or infinite values in {_whose(grid, holes)}",
                next_step="Pass repair='fill_forward' or 'interpolate', or drop the column.",
            )


def _whose(grid: Grid, cells: Mask) -> str:
    rows: Any = cells.any(axis=1)
    row = int(np.argmax(rows))
    stamp = grid.stamps[int(np.argmax(cells[row]))]
    return f"{named(grid.ids, rows)}, first {stamp_text(stamp)} in {grid.ids[row]!r}"


def named(ids: Array, mask: Any, *, limit: int = 5) -> str:
    """Name the marked series: up to `limit`, then how many more.

    Example:
        >>> named(np.array(["a", "b", "c"], dtype=object), np.array([True, True, False]), limit=1)
        "2 series: 'a' and 1 more"
    """
    marked = [repr(label) for label in ids[mask]]
    shown = ", ".join(marked[:limit])
    rest = len(marked) - limit
    return f"{len(marked)} series: {shown}" + (f" and {rest} more" if rest > 0 else "")
