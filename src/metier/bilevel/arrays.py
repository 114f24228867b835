"""Shapes that every file of this room shares: rows of data as named arrays, and small diagonal tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
"""Fold or cluster of every row, counted from 0."""
Rows = Mapping[str, NDArray[Any]]
"""Named arrays whose first axis is the row; the covariates are there as "X"."""
RowFunction = Callable[[Floats, Rows], Any]


def two_dimensional(values: Any) -> Floats:
    """Return values (n,) or (n, m) as numbers (n, m)."""
    array = np.asarray(values, dtype=np.float64)
    return array[:, None] if array.ndim == 1 else array


def take(rows: Rows, index: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the rows of `index` of every column."""
    return {name: column[index] for name, column in rows.items()}


def diagonal2(x: Floats) -> Floats:
    """(n, q) -> (n, q, q) with x on the diagonal; a view where q = 1."""
    return x[:, :, None] if x.shape[1] == 1 else np.einsum("ni,ij->nij", x, np.eye(x.shape[1]))


def diagonal3(x: Floats) -> Floats:
    """(n, q) -> (n, q, q, q) with x on the diagonal; a view where q = 1."""
    if x.shape[1] == 1:
        return x[:, :, None, None]
    q = x.shape[1]
    out = np.zeros((x.shape[0], q, q, q))
    out[:, range(q), range(q), range(q)] = x
    return out


def added(a: Floats | None, b: Floats | None) -> Floats | None:
    """Return a + b, where None stands for zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b
