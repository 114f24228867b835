"""What a base model is: fitted on stacked rows of a cluster, forecasting from features."""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from metier.core.errors import InputError

Floats = NDArray[np.float64]
Scale = Literal["standard", "mean"]
MAX_SEED = 2**31 - 1


@runtime_checkable
class FittedLearner(Protocol):
    """A fitted base model: a pure function of the features."""

    @property
    def quantiles(self) -> tuple[float, ...]:
        """Levels of `predict_quantiles`; empty where the caller has to add quantiles of residuals."""

    def predict(self, X: Floats) -> Floats:
        """(n, d) features to (n,) point forecasts on the training scale."""

    def predict_quantiles(self, X: Floats) -> Floats:
        """(n, d) features to (n, Q) quantiles, not decreasing along Q."""

    def to_bytes(self) -> bytes:
        """A safe text form that `load_fitted` reads; an InputError where the model has none."""


@runtime_checkable
class Learner(Protocol):
    """A base model to be fitted: `fit` is pure, the same arguments give the same fit."""

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def scale(self) -> Scale:
        """The targets it learns on.

        "standard": each series centered and divided by its TRAIN mean and standard deviation; "mean": divided
        by its TRAIN mean, so that counts stay at least 0.
        """

    def fit(self, X: Floats, y: Floats, *, rng: int | np.random.Generator) -> FittedLearner:
        """Fit on X (n, d) and y (n,)."""


def training_arrays(X: Any, y: Any) -> tuple[Floats, Floats]:
    """Float64 arrays of matching shapes without holes, or an InputError."""
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if X.ndim != 2 or y.shape != X.shape[:1] or not len(y):
        raise InputError(
            "a base model learns from features (n, d) and targets (n,), n at least 1",
            expected="matching shapes",
            got=f"{X.shape} and {y.shape}",
            next_step="Pass one row of features per target.",
        )

    def holes(array: Floats) -> int:
        return int(np.count_nonzero(~np.isfinite(array)))

    if not (np.isfinite(X).all() and np.isfinite(y).all()):
        raise InputError(
            "a base model learns from finite numbers",
            expected="no missing or infinite value",
            got=f"{holes(X)} in the features, {holes(y)} in the targets",
            next_step="Drop or mend these rows.",
        )
    return X, y


def no_quantiles(name: str) -> InputError:
    """The error for quantiles of a model that has none."""
    return InputError(
        f"{name} was fitted for point forecasts",
        expected="a model fitted under loss='pinball'",
        got="no quantile levels",
        next_step="Use quantiles of residuals, or model='lightgbm' with loss='pinball'.",
    )
