"""The scale of scaled errors: what the seasonal naive forecast costs inside the history."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core.checks import positive_int


def seasonal_scale(train: ArrayLike, *, season_length: int = 1, power: int = 1) -> NDArray[np.float64]:
    """Mean |y[t] - y[t - m]|^power over the pairs of the history, m = `season_length`.

    Args:
        train: (..., T) history; NaN where a series has no value.
        season_length: m, in steps.
        power: 1 for MASE, 2 for RMSSE.

    Returns:
        (...) the scale; NaN where there is no pair, or all pairs are equal and the scale is 0.

    Raises:
        InputError: `season_length` is no positive integer.

    Example:
        >>> seasonal_scale([1.0, 2.0, 4.0], season_length=1)
        array(1.5)
    """
    m = positive_int("season_length", season_length)
    history = np.asarray(train, dtype=np.float64)
    steps = np.abs(history[..., m:] - history[..., :-m]) ** power
    known = ~np.isnan(steps)
    count, total = known.sum(axis=-1), np.where(known, steps, 0.0).sum(axis=-1)
    return np.where(total > 0, total / np.maximum(count, 1), np.nan)
