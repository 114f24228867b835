"""Gaussian-kernel ridge, the learner of the kernel rival: fixed or tuned width and penalty."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh
from sklearn.base import BaseEstimator, RegressorMixin

from metier.core.errors import InputError

from .arrays import Floats

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
            if value != "gcv" and not (isinstance(value, int | float) and value > 0):
                raise InputError(
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
