"""Forecasts from many origins at once: one step, recursive steps, or a direct model per step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from metier.forecast.regression.design import Design, Index

Floats = NDArray[np.float64]


def linear_rollout(
    design: Design, series: Index, start: int, stop: int, *, steps: int, theta: Sequence[Floats]
) -> list[Floats]:
    """Forecasts (n, origins, M) of M linear models for steps 1..`steps` of each origin in [start, stop).

    The target of step h at origin o is the value at o + h - 1; nothing at or after o is used except known
    features.

    Args:
        theta: one (1 | n, d, M) array for a recursive model, or one per fitted step for a direct one.
    """
    if len(theta) > 1:
        return [
            np.matmul(_features(design.at_horizon(h + 1), series, start + h, stop + h), theta[h])
            for h in range(steps)
        ]
    lags = np.array(design.lags, dtype=np.intp)
    out: list[Floats] = []
    for h in range(1, steps + 1):
        X = _features(design, series, start + h - 1, stop + h - 1)
        unseen = np.flatnonzero(lags < h)
        X[:, :, unseen] = 0.0
        forecast = np.matmul(X, theta[0])
        for j in unseen:
            forecast += theta[0][:, None, j, :] * out[h - 1 - lags[j]]
        out.append(forecast)
    return out


def recursive_rollout(
    design: Design,
    series: Index,
    start: int,
    stop: int,
    *,
    steps: int,
    predict: Callable[[Floats, int], Floats],
) -> list[Floats]:
    """The same for any model: `predict(X (n, origins, d), h)` gives (n, origins)."""
    lags = np.array(design.lags, dtype=np.intp)
    out: list[Floats] = []
    for h in range(1, steps + 1):
        X = _features(design, series, start + h - 1, stop + h - 1)
        for j in np.flatnonzero(lags < h):
            X[:, :, j] = out[h - 1 - lags[j]]
        out.append(predict(X, h))
    return out


def origin_valid(design: Design, series: Index, start: int, stop: int, *, step: int) -> NDArray[np.bool_]:
    """Origins (n, stop - start) with every lag observed and the target of `step` observed."""
    origins = np.arange(start, stop)
    target = origins + step - 1
    return design.valid(series, start, stop) & (target < design.stop[series][:, None])


def targets(design: Design, series: Index, start: int, stop: int, *, step: int) -> Floats:
    """Values at o + step - 1 for the origins o in [start, stop)."""
    return np.asarray(design.values[series, start + step - 1 : stop + step - 1], dtype=np.float64)


def _features(design: Design, series: Index, start: int, stop: int) -> Floats:
    """Feature rows; not masked by the target, which at these stamps may lie in the future."""
    X, _, _ = design.rows(series, start, stop)
    return X
