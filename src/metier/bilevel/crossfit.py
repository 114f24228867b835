"""Folds, and any scikit-learn regressor cross-fitted on them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
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

from metier.core.checks import ensure, label_codes
from metier.core.parallel import map_tasks

from .arrays import Codes, Floats
from .sieve import SieveCrossFit, SieveRidge, checked_penalty


def draw_folds(n: int, n_folds: int, rng: np.random.Generator, clusters: Codes | None = None) -> Codes:
    """Return the fold of every row; rows of one cluster share a fold.

    A permutation of the units is cut by `numpy.array_split`, so that sizes differ by at most one.

    Example:
        >>> np.bincount(draw_folds(7, 3, np.random.default_rng(0))).tolist()
        [3, 2, 2]
    """
    n_units = n if clusters is None else int(clusters.max()) + 1
    unit = "rows" if clusters is None else "clusters"
    ensure(
        n_units >= n_folds,
        f"every fold holds {unit}",
        expected=f"at least {n_folds} {unit}",
        got=n_units,
        next_step=f"Lower folds to {max(n_units, 2)} or collect more {unit}.",
    )
    fold_of = np.empty(n_units, dtype=np.int64)
    for k, members in enumerate(np.array_split(rng.permutation(n_units), n_folds)):
        fold_of[members] = k
    return fold_of if clusters is None else fold_of[clusters]


def fold_codes(folds: Any, n: int, rng: np.random.Generator, clusters: Codes | None = None) -> Codes:
    """Return the fold of every row: drawn where `folds` is a number, else as given."""
    if isinstance(folds, int):
        return draw_folds(n, folds, rng, clusters)
    codes, levels = label_codes("folds", folds)
    ensure(
        codes.size == n and len(levels) >= 2,
        "given folds name the fold of every row",
        expected=f"{n} labels of at least two folds",
        got=f"{codes.size} labels of {len(levels)} fold(s)",
        next_step="Pass one label per row, or a number of folds.",
    )
    ensure(
        clusters is None or len(np.unique(np.stack([clusters, codes]), axis=1).T) == int(clusters.max()) + 1,
        "rows of one cluster share a fold",
        expected="one fold per cluster",
        got="a cluster in two folds",
        next_step="Draw the folds by cluster, or pass a number of folds.",
    )
    return codes


def folds_within(rows: Any, n_folds: int, rng: np.random.Generator, clusters: Codes | None) -> Codes:
    """Return the fold of each of some rows, drawn among their own clusters."""
    units, unit = np.unique(rows if clusters is None else clusters[rows], return_inverse=True)
    return draw_folds(len(units), n_folds, rng)[unit]


def train_and_test(codes: Codes) -> list[tuple[Any, Any]]:
    """Return the training rows and the test rows of every fold."""
    return [(np.flatnonzero(codes != k), np.flatnonzero(codes == k)) for k in range(int(codes.max()) + 1)]


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


def is_rough(learners: Mapping[str, Any]) -> bool:
    """Whether a learner's fit may jump where its targets move a little: trees, forests, networks."""
    last = [one.steps[-1][1] if hasattr(one, "steps") else one for one in learners.values()]
    return not all(
        type(one).__module__.startswith("sklearn.linear_model")
        or isinstance(one, SieveRidge)
        or is_linear_smoother(one)
        for one in last
    )


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


def weight_arguments(learner: Any, weights: Floats | None) -> dict[str, Floats]:
    """Return the row weights as the keyword argument of the learner's `fit`."""
    name = None if weights is None else weight_parameter(learner)
    ensure(
        weights is None or name is not None,
        "weights reach every nuisance learner",
        expected="learners whose fit takes sample_weight",
        got=type(learner).__name__,
        next_step="Choose a learner that takes them, or drop the weights.",
    )
    return {} if weights is None or name is None else {name: weights}


def fit_regressor(learner: Any, X: Any, Y: Floats, weights: Floats | None) -> Predictor:
    """Fit clones of a learner to the targets (n, m) and return X -> (n, m)."""
    extra = weight_arguments(learner, weights)
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
        self.folds = train_and_test(codes)

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
