"""Gaussian-kernel ridge, and the kernel rival: a plug-in whose target is the regularized problem."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh
from sklearn.base import BaseEstimator, RegressorMixin

from metier.core.checks import ensure

from .arrays import Codes, Floats
from .crossfit import RegressorCrossFit, fold_codes
from .scores import Evaluation, Fitted
from .setup import Setup
from .targets import AffineTarget, as_target

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
ACCURACY = 1e-9
LOW_RANK_FROM = 300
"""Rows from which a low-rank factor is tried, and given up beyond a third of them."""
PENALTIES = np.logspace(-8.0, 0.0, 17)


class GaussianRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Kernel ridge f(x) = k(x, inner) (K + n penalty I)^-1 y with k = exp(-|x - x'|^2 / (2 width^2)).

    Args:
        width: Kernel width in units of x; "gcv" tries multiples of the median distance.
        penalty: lambda; "gcv" tries a grid from 1e-8 to 1.

    Attributes:
        width_, penalty_: What was used.

    Example:
        >>> X = np.linspace(0, 1, 9)[:, None]
        >>> GaussianRidge(width=0.5, penalty=1e-6).fit(X, X[:, 0]).predict(X[:1]).round(2).item()
        0.0
    """

    def __init__(self, width: float | str = "gcv", *, penalty: float | str = "gcv") -> None:
        self.width = width
        self.penalty = penalty

    def fit(self, X: Any, y: Any) -> GaussianRidge:
        """Fit on X (n, p) and y (n,) or (n, outputs)."""
        for name in ("width", "penalty"):
            value = getattr(self, name)
            ensure(
                value == "gcv" or (isinstance(value, int | float) and value > 0),
                f"{name} of a GaussianRidge",
                expected='a positive number, or "gcv"',
                got=repr(value),
                next_step=f'Pass {name}="gcv" to have it tuned.',
            )
        self.X_, Y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
        targets = Y[:, None] if Y.ndim == 1 else Y
        n = len(targets)
        if self.width == "gcv" or self.penalty == "gcv":
            self.width_, self.penalty_ = self._tuned(targets)
        else:
            self.width_, self.penalty_ = float(self.width), float(self.penalty)
        solution = _regularized_solve(self.X_, targets, self.width_, n * self.penalty_)
        self.dual_ = solution[:, 0] if Y.ndim == 1 else solution
        return self

    def predict(self, X: Any) -> Floats:
        """Predict (n,) or (n, outputs)."""
        out: Floats = gaussian_gram(np.asarray(X, dtype=np.float64), self.X_, self.width_) @ self.dual_
        return out

    def _tuned(self, Y: Floats) -> tuple[float, float]:
        """Return width and penalty of least generalized cross-validation error over scaled outputs."""
        n = len(Y)
        scaled = Y / np.maximum(Y.std(axis=0), 1e-300)
        center = _median_distance(self.X_)
        widths = [center * c for c in WIDTHS] if self.width == "gcv" else [float(self.width)]
        penalties = PENALTIES if self.penalty == "gcv" else np.array([float(self.penalty)])
        best, chosen = np.inf, (widths[0], float(penalties[0]))
        for width in widths:
            values, vectors = eigh(gaussian_gram(self.X_, self.X_, width))
            shrunk = n * penalties[:, None] / (np.maximum(values, 0.0) + n * penalties[:, None])
            error = (shrunk**2) @ ((vectors.T @ scaled) ** 2).sum(axis=1)
            score = error / np.maximum(shrunk.mean(axis=1), 1e-3) ** 2
            k = int(np.argmin(score))
            if score[k] < best:
                best, chosen = float(score[k]), (width, float(penalties[k]))
        return chosen


def _regularized_solve(X: Floats, Y: Floats, width: float, ridge: float) -> Floats:
    """Return (K + ridge I)^-1 Y: by a low-rank factor where it is exact to `ACCURACY`, else by Cholesky."""
    n = len(X)
    L = _pivoted_cholesky(X, width, tolerance=ACCURACY * ridge) if n >= LOW_RANK_FROM else None
    if L is None:
        K = gaussian_gram(X, X, width)
        K[range(n), range(n)] += ridge
        factor = cho_factor(K, lower=True, overwrite_a=True, check_finite=False)
        return np.asarray(cho_solve(factor, Y))
    inner = L @ L.T
    inner[range(len(L)), range(len(L))] += ridge
    # Woodbury: (L'L + r I)^-1 = (I - L' (L L' + r I)^-1 L) / r.
    return np.asarray((Y - L.T @ cho_solve(cho_factor(inner, lower=True), L @ Y)) / ridge)


def _pivoted_cholesky(X: Floats, width: float, *, tolerance: float) -> Floats | None:
    """Return L (rank, n) with K - L'L positive semidefinite of trace at most `tolerance`, or None.

    The trace bounds the spectral error, so that solutions are off by at most tolerance / ridge in relative
    terms; None stands for more columns than pay.
    """
    n, Z = len(X), X / width
    half_norms = 0.5 * (Z * Z).sum(axis=1)
    L = np.empty((n // 3, n))
    rest = np.ones(n)
    for r in range(len(L)):
        pivot = int(rest.argmax())
        row = Z @ Z[pivot]
        row -= half_norms
        row -= half_norms[pivot]
        np.exp(np.minimum(row, 0.0, out=row), out=row)
        row -= L[:r, pivot] @ L[:r]
        np.divide(row, np.sqrt(rest[pivot]), out=L[r])
        np.square(L[r], out=row)
        rest -= row
        np.maximum(rest, 0.0, out=rest)
        if rest.sum() <= tolerance:
            return L[: r + 1]
    return None


def gaussian_gram(X: Floats, Z: Floats, width: float) -> Floats:
    """Return exp(-|x - z|^2 / (2 width^2)), (n, m)."""
    scaled, other = X / width, Z / width
    gram = scaled @ other.T
    gram -= 0.5 * (scaled**2).sum(axis=1)[:, None]
    gram -= 0.5 * (other**2).sum(axis=1)
    np.minimum(gram, 0.0, out=gram)
    return np.exp(gram, out=gram)


def _median_distance(X: Floats) -> float:
    few = X[:: max(1, len(X) // 300)]
    squared = ((few[:, None, :] - few) ** 2).sum(axis=2)
    return float(np.sqrt(np.median(squared[np.triu_indices(len(few), 1)]))) or 1.0


class KernelRepeat:
    """C'(C w + c0 - Y) / m, where C predicts dg and c0 predicts g0 on the outer rows.

    With an outer sample the ridge is fitted on the inner rows; with one sample it is cross-fitted. The
    reported covariance is that of the outer rows alone, and no covariance repairs the regularization bias.
    """

    exact_slope = True

    def __init__(self, setup: Setup, rng: np.random.Generator) -> None:
        learner = _kernel_learner(setup)
        target = as_target(setup.problem.inner_loss.target)  # type: ignore[attr-defined]
        sample, outer = setup.sample, setup.outer
        assert isinstance(target, AffineTarget)
        g0, dg = target.parts(sample.rows)
        constant, d = bool((g0 == g0[0]).all()), dg.shape[1]
        Y = dg[:, :, 0] if constant else np.concatenate([dg[:, :, 0], g0], axis=1)
        self.codes: Codes | None = None
        self.fitted: dict[str, Fitted] = {}
        if outer is None:
            self.codes = fold_codes(setup.folds, sample.n, rng, sample.clusters)
            predicted = RegressorCrossFit(learner, sample.X, self.codes, None).predict(Y)
            self.fitted["jacobian"] = Fitted(dg[:, :, 0], predicted[:, :d])
        else:
            predicted = learner.fit(sample.X, Y).predict(outer.X)
        self.sample, self.C = sample if outer is None else outer, predicted[:, :d]
        self.c0 = np.full(len(predicted), g0[0, 0]) if constant else predicted[:, d]
        y = as_target(setup.problem.outer_loss.target)  # type: ignore[attr-defined]
        self.y = y.evaluate(np.zeros(0), self.sample.rows)[0][:, 0]

    def at(self, w: Floats) -> Evaluation:
        """Return the plug-in scores at w."""
        error = self.C @ w + self.c0 - self.y
        scores = error[:, None] * self.C
        return Evaluation(
            samples=(self.sample,),
            orthogonal=(scores,),
            plugin=(scores,),
            slope=self.sample.weighted(self.C).T @ self.C / len(self.C),
            fitted=self.fitted,
        )


def _kernel_learner(setup: Setup) -> GaussianRidge:
    learner = GaussianRidge() if setup.learner is None else setup.learner
    ensure(
        setup.is_scalar and setup.problem.is_affine,
        'estimator="kbo" is one of affine squared problems',
        expected="Squared(AffineTarget(...)) inside and Squared outside, with one value per row",
        got=f"{type(setup.problem.inner_loss).__name__} inside",
        next_step='Use estimator="obigrad".',
    )
    ensure(
        setup.sample.weights is None,
        'estimator="kbo" takes rows of equal weight',
        expected="weights=None",
        got="weights",
        next_step='Drop weights, or use estimator="obigrad".',
    )
    ensure(
        isinstance(learner, GaussianRidge),
        'estimator="kbo" learns with a kernel',
        expected="learner=GaussianRidge(width, penalty=...)",
        got=type(learner).__name__,
        next_step="Pass a GaussianRidge, or None for a tuned one.",
    )
    return learner
