"""Ridge on a basis: the built-in nuisance learner, in closed form for every quadratic risk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigh
from sklearn.base import BaseEstimator, RegressorMixin, clone

from metier.core.checks import ensure
from metier.core.errors import InputError

from .arrays import Floats, two_dimensional

GRID = np.logspace(-8.0, 2.0, 41)
"""Penalties that `penalty="gcv"` tries, in units of the mean squared feature times the number of rows."""


class SieveRidge(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge on a basis psi(x) with an unpenalized intercept: (Psi' W Psi + penalty D)^-1 Psi' W y.

    As a nuisance learner it solves every quadratic risk in closed form, also with vector values and two
    samples, and shares sums and factorizations over folds and nuisances. With a number as penalty it is a
    linear smoother of fixed tuning.

    Args:
        basis: None for the columns of X as they are; a function X -> (n, P); or a scikit-learn transformer,
            which is fitted on the training rows.
        penalty: alpha >= 0 on the sums, as in the formula; or "gcv": features are standardized and
            generalized cross-validation chooses it anew for every fold and output.

    Attributes:
        coef_: (P + 1, outputs) after `fit`, intercept first, for the centered and scaled features.

    Example:
        >>> X = np.arange(5.0)[:, None]
        >>> SieveRidge(penalty=0.0).fit(X, 2 * X[:, 0] + 1).predict(np.array([[10.0]])).round(6).tolist()
        [21.0]
    """

    def __init__(self, basis: Any = None, *, penalty: float | str = "gcv") -> None:
        self.basis = basis
        self.penalty = penalty

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SieveRidge:
        """Fit on X (n, p) and y (n,) or (n, outputs)."""
        targets = np.asarray(y, dtype=np.float64)
        self.single_ = targets.ndim == 1
        targets = targets[:, None] if self.single_ else targets
        om = None if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        self.map_ = FeatureMap.fit(self, X)
        psi = self.map_(X)
        weighted = psi if om is None else psi * om[:, None]
        power = (targets * targets).sum(axis=0) if om is None else om @ (targets * targets)
        system = PenalizedSystem.build(weighted.T @ psi, 1, self.penalty, len(psi))
        self.coef_ = system.solve(weighted.T @ targets, power)
        return self

    def predict(self, X: Any) -> Floats:
        """Predict (n,) or (n, outputs)."""
        out: Floats = self.map_(X) @ self.coef_
        return out[:, 0] if self.single_ else out

    @property
    def shares_features(self) -> bool:
        """Whether the features of a row do not depend on the training rows."""
        return self.basis is None or not hasattr(self.basis, "fit")


def checked_penalty(penalty: float | str) -> float | None:
    """Return the penalty as a number, or None for "gcv"."""
    if isinstance(penalty, str) and penalty == "gcv":
        return None
    ensure(
        isinstance(penalty, int | float | np.floating) and 0 <= penalty < np.inf,
        "penalty of a SieveRidge",
        expected='a number of at least 0, or "gcv"',
        got=repr(penalty),
        next_step='Pass penalty="gcv" to have it tuned.',
    )
    return float(penalty)


def is_tuned(learner: Any) -> bool:
    """Whether a learner is a `SieveRidge` that tunes its penalty, which is checked."""
    return isinstance(learner, SieveRidge) and checked_penalty(learner.penalty) is None


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """x -> (1, centered and scaled psi(x))."""

    raw: Callable[[Any], Floats]
    shift: Floats
    scale: Floats

    @classmethod
    def fit(cls, learner: SieveRidge, X: Any) -> FeatureMap:
        """Fit basis, centers and, where the penalty is tuned, scales on the training rows."""
        basis = learner.basis
        if basis is None:
            raw: Callable[[Any], Floats] = two_dimensional
        elif hasattr(basis, "fit"):
            fitted = clone(basis).fit(X)
            raw = lambda Z: _dense(fitted.transform(Z))  # noqa: E731
        else:
            raw = lambda Z: _dense(basis(two_dimensional(Z)))  # noqa: E731
        psi = raw(X)
        # The intercept is free, so centers change nothing but the rounding.
        shift = psi.mean(axis=0)
        scale = np.ones(psi.shape[1])
        if is_tuned(learner):
            sd = psi.std(axis=0)
            scale = np.where(sd > 1e-12 * (1.0 + np.abs(shift)), sd, 1.0)
        return cls(raw, shift, scale)

    def __call__(self, X: Any) -> Floats:
        """Return (n, P + 1)."""
        psi = self.raw(X)
        out = np.empty((len(psi), psi.shape[1] + 1))
        out[:, 0] = 1.0
        np.subtract(psi, self.shift, out=out[:, 1:])
        out[:, 1:] /= self.scale
        return out


def _dense(features: Any) -> Floats:
    return two_dimensional(features.toarray() if hasattr(features, "toarray") else features)


@dataclass(frozen=True, slots=True)
class PenalizedSystem:
    """(S + penalty D) theta = b, where D leaves the first `n_free` coordinates alone; factored once.

    With a tuned penalty the free block is eliminated and the rest kept by its eigenvectors, so that every
    right-hand side can have its own penalty at the cost of a product.
    """

    n_free: int
    n_rows: int
    factor: Any
    cross: Floats | None = None
    eigenvalues: Floats | None = None
    vectors: Floats | None = None

    @classmethod
    def build(cls, S: Floats, n_free: int, penalty: float | str, n_rows: int) -> PenalizedSystem:
        """Factor (P, P) sums."""
        alpha = checked_penalty(penalty)
        if alpha is not None:
            A = S.copy()
            A[range(n_free, len(S)), range(n_free, len(S))] += alpha
            return cls(n_free, n_rows, _cholesky(A, alpha))
        free = _cholesky(S[:n_free, :n_free], None)
        cross = cho_solve(free, S[:n_free, n_free:])
        rest = S[n_free:, n_free:] - S[n_free:, :n_free] @ cross
        values, vectors = eigh(rest) if rest.size else (np.zeros(0), np.zeros((0, 0)))
        return cls(n_free, n_rows, free, cross, np.maximum(values, 0.0), vectors)

    def solve(self, b: Floats, power: Floats | None = None) -> Floats:
        """Return theta (P, m) for b (P, m); `power` (m,), y'y per output, is needed to tune."""
        if self.eigenvalues is None or self.vectors is None or self.cross is None:
            return np.asarray(cho_solve(self.factor, b))
        start, z, alpha = self._eliminated(b, power)
        theta = self.vectors @ (z / (self.eigenvalues[:, None] + alpha))
        return np.concatenate([start - self.cross @ theta, theta])

    def chosen(self, b: Floats, power: Floats) -> float:
        """Return the penalty that one right-hand side (P, 1) would get."""
        return float(self._eliminated(b, power)[2][0])

    def _eliminated(self, b: Floats, power: Floats | None) -> tuple[Floats, Floats, Floats]:
        """Return the free block's solution, the rest by eigenvectors, and the penalty of every output."""
        assert self.vectors is not None
        assert self.cross is not None
        f = self.n_free
        start = cho_solve(self.factor, b[:f])
        z = self.vectors.T @ (b[f:] - self.cross.T @ b[:f])
        rest = np.zeros(b.shape[1]) if power is None else power - (b[:f] * start).sum(axis=0)
        return start, z, self._tuned(z, rest)

    def _tuned(self, z: Floats, power: Floats) -> Floats:
        """Return the penalty of least generalized cross-validation error, (m,)."""
        L = self.eigenvalues
        assert L is not None
        if not L.size:
            return np.ones(z.shape[1])
        grid = GRID * max(float(L.mean()), 1e-300)
        shrunk = 1.0 / (L + grid[:, None])  # (grid, P)
        explained = (shrunk * shrunk * (L + 2.0 * grid[:, None])) @ (z * z)
        dof = self.n_free + (L * shrunk).sum(axis=1)
        room = np.maximum(1.0 - dof / self.n_rows, 1e-3)
        error = np.maximum(power - explained, 1e-14 * np.maximum(power, 1e-300)) / (room * room)[:, None]
        return np.asarray(grid[np.argmin(error, axis=0)])


def _cholesky(A: Floats, alpha: float | None) -> Any:
    try:
        factor = cho_factor(A, lower=True)
    except (LinAlgError, ValueError) as error:
        raise singular(alpha) from error
    # The ratio is sqrt(1 - R^2) of a feature on those before it; a positive penalty settles collinearity.
    if not alpha and not (np.diag(factor[0]) > 1e-7 * np.sqrt(np.diag(A))).all():
        raise singular(alpha)
    return factor


def singular(alpha: float | None) -> InputError:
    """Return the error of a system without a unique solution."""
    return InputError(
        "the normal equations of a nuisance have one solution",
        expected="positive curvature and features that are not collinear",
        got="a singular or indefinite system" + (f" at penalty {alpha:g}" if alpha is not None else ""),
        next_step="Drop duplicate features, raise the penalty, or check the inner loss's curvature.",
    )


class SieveCrossFit:
    """Out-of-fold predictions of a SieveRidge: features, sums and factors made once for all targets."""

    def __init__(self, learner: SieveRidge, X: Any, codes: Any, weights: Floats | None) -> None:
        self.penalty, n_folds = learner.penalty, int(codes.max()) + 1
        psi = FeatureMap.fit(learner, X)(X)
        self.order = np.argsort(codes, kind="stable")
        self.psi = psi[self.order]
        self.weights = None if weights is None else weights[self.order]
        ends = np.cumsum(np.bincount(codes, minlength=n_folds))
        self.slices = [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        grams = [self._weighted(s).T @ self.psi[s] for s in self.slices]
        self.systems = [
            PenalizedSystem.build(_others(grams, k), 1, self.penalty, len(psi) - (s.stop - s.start))
            for k, s in enumerate(self.slices)
        ]

    def _weighted(self, s: slice) -> Floats:
        return self.psi[s] if self.weights is None else self.psi[s] * self.weights[s, None]

    def predict(self, Y: Floats) -> Floats:
        """Return out-of-fold predictions (n, m) of the targets (n, m)."""
        Y = Y[self.order]
        crosses = [self._weighted(s).T @ Y[s] for s in self.slices]
        om = self.weights
        powers = [(Y[s] ** 2).sum(axis=0) if om is None else om[s] @ Y[s] ** 2 for s in self.slices]
        out = np.empty_like(Y)
        for k, s in enumerate(self.slices):
            out[self.order[s]] = self.psi[s] @ self.systems[k].solve(_others(crosses, k), _others(powers, k))
        return out


def _others(parts: list[Floats], k: int) -> Floats:
    # Adding the other folds, not subtracting this one, keeps the last digits.
    return np.asarray(np.sum([part for j, part in enumerate(parts) if j != k], axis=0))
