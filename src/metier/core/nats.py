"""Entropies in nats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import simplex_rows


def x_log_x(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return x log x with 0 log 0 = 0.

    Example:
        >>> x_log_x(np.array([0.0, 1.0, 2.0])).round(4).tolist()
        [0.0, 0.0, 1.3863]
    """
    return np.asarray(x * np.log(np.where(x > 0.0, x, 1.0)))


def entropy(p: ArrayLike, axis: int | None = -1, *, check: bool = True) -> Any:
    r"""Shannon entropy H(p) = -sum p log p in nats, with 0 log 0 = 0.

    Args:
        p: Probabilities; along `axis` they are at least 0 and sum to 1 within 1e-6.
        axis: The axis of the distribution; None means the whole array.
        check: False skips the check, for arrays that were checked before.

    Returns:
        H, with `axis` removed.

    Raises:
        InputError: Something along `axis` is no probability vector.

    Example:
        >>> entropy([[0.5, 0.5], [1.0, 0.0]]).round(4).tolist()
        [0.6931, 0.0]
    """
    array = np.asarray(p, dtype=np.float64)
    if check:
        rows = array.reshape(1, -1) if axis is None else np.moveaxis(np.atleast_2d(array), axis, -1)
        simplex_rows("p", rows.reshape(-1, rows.shape[-1]))
    return np.abs(x_log_x(array).sum(axis=axis))
