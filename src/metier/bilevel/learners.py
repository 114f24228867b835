"""Any scikit-learn regressor as a nuisance learner: weights through pipelines, one or many outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.dummy import DummyRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor, RadiusNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from metier.core.errors import InputError
from metier.core.parallel import map_tasks

from .arrays import Floats
from .sieve import SieveCrossFit, SieveRidge, checked_penalty

LINEAR_SMOOTHERS = (
    LinearRegression,
    Ridge,
    KernelRidge,
    KNeighborsRegressor,
    RadiusNeighborsRegressor,
    DummyRegressor,
)
Predictor = Callable[[Any], Floats]


def rows_of(X: Any, index: Any) -> Any:
    """Return rows of an array or a frame."""
    return X.iloc[index] if hasattr(X, "iloc") else X[index]


def is_linear_smoother(learner: Any) -> bool:
    """Whether predictions are linear in the targets: a fixed rule of X alone.

    Example:
        >>> is_linear_smoother(SieveRidge(penalty=1.0)), is_linear_smoother(SieveRidge(penalty="gcv"))
        (True, False)
    """
    if isinstance(learner, SieveRidge):
        return checked_penalty(learner.penalty) is not None
    if isinstance(learner, Pipeline):
        return all(_ignores_target(step) for _, step in learner.steps[:-1]) and is_linear_smoother(
            learner.steps[-1][1]
        )
    if isinstance(learner, LinearRegression | Ridge):
        return not learner.positive
    return type(learner) in LINEAR_SMOOTHERS


def _ignores_target(step: Any) -> bool:
    return step in (None, "passthrough") or not get_tags(step).target_tags.required


def weight_parameter(learner: Any) -> str | None:
    """Return the keyword by which `fit` takes row weights, or None.

    Example:
        >>> from sklearn.pipeline import make_pipeline
        >>> weight_parameter(make_pipeline(Ridge())), weight_parameter(KNeighborsRegressor())
        ('ridge__sample_weight', None)
    """
    if isinstance(learner, Pipeline):
        name, last = learner.steps[-1]
        inner = weight_parameter(last)
        return None if inner is None else f"{name}__{inner}"
    nested = getattr(learner, "estimator", None)
    if nested is not None and "sample_weight" not in inspect.signature(learner.fit).parameters:
        return weight_parameter(nested)
    return "sample_weight" if has_fit_parameter(learner, "sample_weight") else None


def fit_regressor(learner: Any, X: Any, Y: Floats, weights: Floats | None) -> Predictor:
    """Fit clones of a learner to the targets (n, m) and return X -> (n, m)."""
    extra = {}
    if weights is not None:
        name = weight_parameter(learner)
        if name is None:
            raise InputError(
                "weights reach every nuisance learner",
                expected="learners whose fit takes sample_weight",
                got=type(learner).__name__,
                next_step="Drop weights, or choose a learner that takes them.",
            )
        extra[name] = weights
    if Y.shape[1] == 1:
        one = clone(learner).fit(X, Y[:, 0], **extra)
        return lambda Z: _column(one.predict(Z))
    if get_tags(learner).target_tags.multi_output:
        many = clone(learner).fit(X, Y, **extra)
        return lambda Z: np.asarray(many.predict(Z), dtype=np.float64).reshape(-1, Y.shape[1])
    each = [clone(learner).fit(X, Y[:, k], **extra) for k in range(Y.shape[1])]
    return lambda Z: np.concatenate([_column(model.predict(Z)) for model in each], axis=1)


def _column(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64).reshape(-1, 1)


class RegressorCrossFit:
    """Out-of-fold predictions of any regressor."""

    def __init__(
        self, learner: Any, X: Any, codes: Any, weights: Floats | None, *, backend: str = "serial"
    ) -> None:
        self.learner, self.X, self.weights, self.backend = learner, X, weights, backend
        self.folds = [
            (np.flatnonzero(codes != k), np.flatnonzero(codes == k)) for k in range(codes.max() + 1)
        ]

    def predict(self, Y: Floats) -> Floats:
        """Return out-of-fold predictions (n, m) of the targets (n, m)."""
        out = np.empty_like(Y)
        task = partial(_fit_fold, self.learner, self.X, Y, self.weights)
        for (_, test), predicted in zip(
            self.folds, map_tasks(task, self.folds, backend=self.backend), strict=True
        ):
            out[test] = predicted
        return out


def _fit_fold(learner: Any, X: Any, Y: Floats, weights: Floats | None, fold: tuple[Any, Any]) -> Floats:
    train, test = fold
    om = None if weights is None else weights[train]
    return fit_regressor(learner, rows_of(X, train), Y[train], om)(rows_of(X, test))


def cross_fitter(
    learner: Any, X: Any, codes: Any, weights: Floats | None, *, backend: str = "serial"
) -> SieveCrossFit | RegressorCrossFit:
    """Return the object that cross-fits a learner on fixed folds."""
    if isinstance(learner, SieveRidge) and learner.shares_features:
        return SieveCrossFit(learner, X, codes, weights)
    return RegressorCrossFit(learner, X, codes, weights, backend=backend)
