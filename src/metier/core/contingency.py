"""Tables of contexts x specialists that are rebuilt fast for every permutation of the contexts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shuffle = Callable[[np.random.Generator], NDArray[np.int64]]
Table = Callable[[NDArray[np.int64]], NDArray[np.float64]]

_FEW_STRATA = 64


@dataclass(frozen=True, slots=True)
class Cells:
    """Which row of the table an item counts in: `offset[i] + code[unit[i]]`.

    Attributes:
        unit: Unit of each item, shape (n,); units are what a permutation moves.
        code: Code of each unit's context, shape (units,).
        stratum: Stratum that each unit is permuted within, shape (units,).
        offset: First row of each item's stratum, shape (n,), or zeros.
        row_stratum: Stratum of each row of the table, ascending.

    Example:
        >>> cells = Cells.within(np.arange(3), np.array([0, 1, 1]), np.array([0, 0, 1]))
        >>> cells.row_stratum.tolist(), cells.code.tolist()
        ([0, 0, 1], [0, 1, 2])
    """

    unit: NDArray[np.int64]
    code: NDArray[np.int64]
    stratum: NDArray[np.int64]
    offset: NDArray[np.int64]
    row_stratum: NDArray[np.int64]

    @classmethod
    def within(cls, unit: NDArray[np.int64], context: NDArray[np.int64], stratum: NDArray[np.int64]) -> Cells:
        """Permute within strata: only the pairs (stratum, context) that occur need a row."""
        C = int(context.max()) + 1
        pairs, code = np.unique(stratum * C + context, return_inverse=True)
        return cls(unit, code.astype(np.int64), stratum, np.zeros_like(unit), pairs // C)

    @classmethod
    def across(cls, unit: NDArray[np.int64], context: NDArray[np.int64], g: NDArray[np.int64]) -> Cells:
        """Permute over all units, whose items may lie in several strata `g`."""
        C, S = int(context.max()) + 1, int(g.max()) + 1
        return cls(unit, context, np.zeros_like(context), g * C, np.repeat(np.arange(S), C))


def hard_table(cells: Cells, k: NDArray[np.int64]) -> Table:
    """Return the function from unit codes to counts (rows, specialists), for one specialist per item."""
    R, K = cells.row_stratum.size, int(k.max()) + 1
    unit, base, counts = cells.unit, cells.offset * K + k, None
    if cells.code.size < unit.size:
        width = R * K
        distinct, counts = np.unique(unit * width + base, return_counts=True)
        unit, base = distinct // width, distinct % width

    def table(code: NDArray[np.int64]) -> NDArray[np.float64]:
        flat = np.bincount(base + code[unit] * K, weights=counts, minlength=R * K)
        return flat.reshape(R, K).astype(np.float64, copy=False)

    return table


def soft_table(cells: Cells, weights: NDArray[np.floating[Any]]) -> Table:
    """Return the function from unit codes to soft counts (rows, specialists), for weights per item."""
    R, unit, offset = cells.row_stratum.size, cells.unit, cells.offset
    weights = weights.astype(np.float64, copy=False)
    if cells.code.size < unit.size:
        distinct, inverse = np.unique(unit * R + offset, return_inverse=True)
        weights = _sum_rows(inverse, weights, distinct.size)
        unit, offset = distinct // R, distinct % R
    return lambda code: _sum_rows(offset + code[unit], weights, R)


def _sum_rows(
    rows: NDArray[np.int64], weights: NDArray[np.floating[Any]], n_rows: int
) -> NDArray[np.float64]:
    from scipy.sparse import csc_array

    # One column per item: the product reads the weights in order and keeps the small table in cache.
    members = csc_array((np.ones(rows.size), rows, np.arange(rows.size + 1)), shape=(n_rows, rows.size))
    return np.asarray(members @ weights)


def shuffler(code: NDArray[np.int64], stratum: NDArray[np.int64]) -> Shuffle:
    """Return the function that permutes `code` uniformly within each stratum.

    Example:
        >>> shuffle = shuffler(np.array([5, 5, 7, 7]), np.array([0, 0, 1, 1]))
        >>> shuffle(np.random.default_rng(0)).tolist()
        [5, 5, 7, 7]
    """
    order = np.argsort(stratum, kind="stable")
    sizes = np.bincount(stratum)
    if sizes.size > _FEW_STRATA:
        # Sorting random keys costs the same for any number of strata; a loop would not.
        key = stratum.astype(np.float64)
        return lambda rng: _scatter(order, code[np.argsort(key + rng.random(key.size))])
    ends = np.cumsum(sizes)
    pieces = [code[order[end - size : end]] for size, end in zip(sizes, ends, strict=True)]
    return lambda rng: _scatter(order, np.concatenate([rng.permutation(piece) for piece in pieces]))


def _scatter(order: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    out = np.empty_like(values)
    out[order] = values
    return out


def strata_sums(table: NDArray[np.float64], row_stratum: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum the rows of each stratum, shape (strata, specialists).

    Example:
        >>> strata_sums(np.ones((3, 2)), np.array([0, 0, 1])).tolist()
        [[2.0, 2.0], [1.0, 1.0]]
    """
    starts = np.flatnonzero(np.diff(row_stratum, prepend=-1))
    return np.add.reduceat(table, starts, axis=0)
