"""Metrics of forecasts: on arrays, averaged over one axis. `evaluate` applies them to frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core.checks import open_fraction
from metier.core.errors import InputError
from metier.forecast.evaluation import evaluate as evaluate
from metier.forecast.scaled import seasonal_scale as seasonal_scale

Floats = NDArray[np.float64]

__all__ = [
    "coverage",
    "evaluate",
    "interval_width",
    "mae",
    "mase",
    "pinball",
    "rmse",
    "rmsse",
    "seasonal_scale",
]


def mae(y: ArrayLike, yhat: ArrayLike, *, axis: int | None = -1) -> Any:
    """Mean absolute error, mean |y - yhat|.

    Args:
        y: (..., h) targets.
        yhat: (..., h) forecasts.
        axis: axis of the mean; None is all.

    Returns:
        The mean in units of y; NaN wherever an input is NaN.

    Raises:
        InputError: the shapes differ.

    Example:
        >>> mae([1.0, 2.0], [1.0, 4.0])
        np.float64(1.0)
    """
    y, yhat = _pair(y, yhat)
    return np.abs(y - yhat).mean(axis=axis)


def rmse(y: ArrayLike, yhat: ArrayLike, *, axis: int | None = -1) -> Any:
    """Root mean squared error, sqrt(mean (y - yhat)^2).

    Args:
        y: (..., h) targets.
        yhat: (..., h) forecasts.
        axis: axis of the mean; None is all.

    Returns:
        The root in units of y.

    Raises:
        InputError: the shapes differ.

    Example:
        >>> rmse([1.0, 2.0], [1.0, 4.0]).round(4)
        np.float64(1.4142)
    """
    y, yhat = _pair(y, yhat)
    return np.sqrt(np.square(y - yhat).mean(axis=axis))


def mase(y: ArrayLike, yhat: ArrayLike, *, train: ArrayLike, season_length: int = 1) -> Any:
    """Mean absolute scaled error: MAE over the MAE of the seasonal naive forecast inside `train`.

    Args:
        y: (..., h) targets.
        yhat: (..., h) forecasts.
        train: (..., T) history before the forecasts; NaN where a series has no value.
        season_length: steps m of the naive forecast y[t - m].

    Returns:
        (...) unit-free; NaN where the history has no pair m steps apart, or all such pairs are equal.

    Raises:
        InputError: the shapes differ.

    Example:
        >>> mase([4.0, 6.0], [4.0, 4.0], train=[1.0, 2.0, 3.0])
        np.float64(1.0)

    Source:
        Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006.
    """
    return mae(y, yhat) / seasonal_scale(train, season_length=season_length, power=1)


def rmsse(y: ArrayLike, yhat: ArrayLike, *, train: ArrayLike, season_length: int = 1) -> Any:
    """Root mean squared scaled error: RMSE over the RMSE of the seasonal naive forecast inside `train`.

    Args:
        y: (..., h) targets.
        yhat: (..., h) forecasts.
        train: (..., T) history before the forecasts; NaN where a series has no value.
        season_length: steps m of the naive forecast y[t - m].

    Returns:
        (...) unit-free; NaN where the history has no pair m steps apart, or all such pairs are equal.

    Raises:
        InputError: the shapes differ.

    Example:
        >>> rmsse([4.0, 6.0], [4.0, 4.0], train=[1.0, 2.0, 3.0]).round(4)
        np.float64(1.4142)

    Source:
        Makridakis, Spiliotis and Assimakopoulos, "The M5 accuracy competition", 2022, equation 1.
    """
    return rmse(y, yhat) / np.sqrt(seasonal_scale(train, season_length=season_length, power=2))


def pinball(y: ArrayLike, yhat: ArrayLike, *, quantile: float, axis: int | None = -1) -> Any:
    """Mean pinball loss of a forecast quantile, mean max(q (y - yhat), (q - 1)(y - yhat)).

    Args:
        y: (..., h) targets.
        yhat: (..., h) forecasts of the q-quantile.
        quantile: q, between 0 and 1.
        axis: axis of the mean; None is all.

    Returns:
        The mean in units of y; half the MAE at q = 0.5.

    Raises:
        InputError: the shapes differ, or q is no fraction.

    Example:
        >>> pinball([1.0, 2.0], [0.0, 4.0], quantile=0.9).round(6)
        np.float64(0.55)
    """
    y, yhat = _pair(y, yhat)
    q = open_fraction("quantile", quantile)
    return np.maximum(q * (y - yhat), (q - 1) * (y - yhat)).mean(axis=axis)


def coverage(y: ArrayLike, lower: ArrayLike, upper: ArrayLike, *, axis: int | None = -1) -> Any:
    """Share of targets inside their interval, ends included.

    Args:
        y: (..., h) targets.
        lower: (..., h) lower ends.
        upper: (..., h) upper ends.
        axis: axis of the mean; None is all.

    Returns:
        A share between 0 and 1; NaN wherever an input is NaN.

    Raises:
        InputError: the shapes differ.

    Example:
        >>> coverage([1.0, 2.0], [0.0, 2.5], [2.0, 3.0])
        np.float64(0.5)
    """
    y, lower = _pair(y, lower)
    y, upper = _pair(y, upper)
    inside = np.where(np.isnan(y + lower + upper), np.nan, (lower <= y) & (y <= upper))
    return inside.mean(axis=axis)


def interval_width(lower: ArrayLike, upper: ArrayLike, *, axis: int | None = -1) -> Any:
    """Mean width of intervals, mean (upper - lower).

    Args:
        lower: (..., h) lower ends.
        upper: (..., h) upper ends.
        axis: axis of the mean; None is all.

    Returns:
        The mean in units of y.

    Raises:
        InputError: the shapes differ.

    Example:
        >>> interval_width([0.0, 2.0], [1.0, 5.0])
        np.float64(2.0)
    """
    lower, upper = _pair(lower, upper)
    return (upper - lower).mean(axis=axis)


def _pair(y: ArrayLike, yhat: ArrayLike) -> tuple[Floats, Floats]:
    first, second = np.asarray(y, dtype=np.float64), np.asarray(yhat, dtype=np.float64)
    if first.shape != second.shape:
        raise InputError(
            "targets and forecasts match one to one",
            expected="equal shapes",
            got=f"{first.shape} and {second.shape}",
            next_step="Reshape one of them.",
        )
    return first, second
