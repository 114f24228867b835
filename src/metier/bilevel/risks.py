"""Quadratic risks E[tr(B K B') / 2 + <B, G>]: closed form for a sieve, regressions for the rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from metier.core.errors import InputError

from .arrays import Floats
from .crossfit import fit_regressor, weight_parameter
from .sieve import FeatureMap, PenalizedSystem, SieveRidge, is_tuned, singular

RATIO_BELOW = 1e-8
"""Rows whose curvature is below this share of the mean would get unbounded responses."""
FLOOR = 1e-3
"""Least eigenvalue that a fitted curvature may have, as a share of the mean curvature."""


class Parts:
    """Covariates of a fold by part ("train", "test" and their "outer_" kin), with features made once."""

    def __init__(self, **X: Any) -> None:
        self.X = X
        self._maps: dict[int, FeatureMap] = {}
        self._features: dict[tuple[int, str], Floats] = {}

    def features(self, learner: SieveRidge, part: str) -> Floats:
        """Return the features (n, P + 1) of a part, by the basis as fitted on "train"."""
        key = id(learner)
        if key not in self._maps:
            self._maps[key] = FeatureMap.fit(learner, self.X["train"])
        if (key, part) not in self._features:
            self._features[key, part] = self._maps[key](self.X[part])
        return self._features[key, part]


class SieveSurface:
    """psi(x)' B with B (P, q, m)."""

    def __init__(self, parts: Parts, learner: SieveRidge, coefficients: Floats) -> None:
        self.parts, self.learner, self.coefficients = parts, learner, coefficients

    def predict(self, part: str) -> Floats:
        """Return (n, m, q)."""
        psi, (P, q, m) = self.parts.features(self.learner, part), self.coefficients.shape
        return (psi @ self.coefficients.reshape(P, q * m)).reshape(-1, q, m).transpose(0, 2, 1)


class SieveRisk:
    """The risk over a sieve: one factorization for all G."""

    def __init__(
        self,
        learner: SieveRidge,
        parts: Parts,
        K: Floats,
        weights: Floats | None,
        *,
        alpha: float | None = None,
    ) -> None:
        self.learner, self.parts, self.K, self.weights = learner, parts, K, weights
        self.psi = parts.features(learner, "train")
        n, P = self.psi.shape
        q = K.shape[1]
        S = np.empty((P, q, P, q))
        for a in range(q):
            for b in range(a, q):
                k = K[:, a, b] if weights is None else weights * K[:, a, b]
                S[:, a, :, b] = (self.psi * k[:, None]).T @ self.psi
                S[:, b, :, a] = S[:, a, :, b].T
        penalty = learner.penalty if alpha is None else alpha
        self.system = PenalizedSystem.build(S.reshape(P * q, P * q), q, penalty, n * q)

    def tuned_penalty(self, G: Floats) -> float:
        """Return the penalty that one G (n, q) would get."""
        b = _cross(self.psi, G[:, None, :], self.weights).reshape(-1, 1)
        return self.system.chosen(b, power_of(self.K, G[:, None, :], self.weights))

    def solve(self, G: Floats | None, *, outer: Floats | None = None, share: Any = 1.0) -> SieveSurface:
        """Return the minimizer.

        Args:
            G: (n, m, q) on the training rows, or None for zero.
            outer: (n_outer, m, q) on the outer training rows, weighted by `share`, which makes its mean
                count like one of n inner rows.
        """
        b = _cross(self.psi, G, self.weights)
        power = None
        if outer is not None:
            b = b + _cross(self.parts.features(self.learner, "outer_train"), outer, share)
        elif G is not None and is_tuned(self.learner):
            power = power_of(self.K, G, self.weights)
        P, q = self.psi.shape[1], self.K.shape[1]
        return SieveSurface(
            self.parts, self.learner, self.system.solve(b.reshape(P * q, -1), power).reshape(P, q, -1)
        )


def _cross(psi: Floats, G: Floats | None, weights: Any) -> Any:
    """Return -sum om psi G, (P, q, m)."""
    if G is None:
        return 0.0
    n, m, q = G.shape
    om = weights if weights is None or np.ndim(weights) == 0 else weights[:, None]
    weighted = psi if om is None else psi * om
    return -(weighted.T @ G.transpose(0, 2, 1).reshape(n, q * m)).reshape(-1, q, m)


def power_of(K: Floats, G: Floats, weights: Floats | None) -> Floats:
    """Return sum om G K^-1 G', (m,), over rows whose curvature is not negligible."""
    if K.shape[1] == 1:
        k = K[:, 0, 0]
        usable = k > RATIO_BELOW * k.mean()
        per_row = G[usable, :, 0] ** 2 / k[usable, None]
    else:
        usable = np.linalg.eigvalsh(K)[:, 0] > RATIO_BELOW * np.trace(K, axis1=1, axis2=2).mean()
        per_row = (
            np.linalg.solve(K[usable], G[usable].transpose(0, 2, 1)) * G[usable].transpose(0, 2, 1)
        ).sum(1)
    out: Floats = per_row.sum(axis=0) if weights is None else weights[usable] @ per_row
    return out


class RegressorSurface:
    """Fitted regressors: the responses themselves, or numerators over a fitted curvature."""

    def __init__(
        self, parts: Parts, numerators: Any, m: int, q: int, curvature: CurvatureSurface | None
    ) -> None:
        self.parts, self.numerators, self.m, self.q, self.curvature = parts, numerators, m, q, curvature

    def predict(self, part: str) -> Floats:
        """Return (n, m, q)."""
        raw = self.numerators(self.parts.X[part]).reshape(-1, self.m, self.q)
        return raw if self.curvature is None else self.curvature.solve(part, raw)


class CurvatureSurface:
    """E[K | x] by regression, with its eigenvalues floored."""

    def __init__(self, parts: Parts, fitted: Any, K: Floats) -> None:
        self.parts, self.fitted, self.q = parts, fitted, K.shape[1]
        self.scale = float(np.trace(K, axis1=1, axis2=2).mean()) / self.q
        self.floored: dict[str, int] = {}
        self.least: dict[str, float] = {}

    def solve(self, part: str, G: Floats) -> Floats:
        """Return G H^-1 rows by row, (n, m, q)."""
        H = self.fitted(self.parts.X[part]).reshape(-1, self.q, self.q)
        values, vectors = np.linalg.eigh((H + H.transpose(0, 2, 1)) / 2.0)
        self.floored[part] = int((values[:, 0] < FLOOR * self.scale).sum())
        self.least[part] = float(values.min()) / self.scale
        values = np.maximum(values, FLOOR * self.scale)
        turned = np.einsum("nmq,nqr->nmr", G, vectors) / values[:, None, :]
        return np.asarray(np.einsum("nmr,nqr->nmq", turned, vectors))


class RegressorRisk:
    """The risk over whatever a regressor can fit.

    Scalar values: weighted least squares of -G / K with weights K. Vector values, learners that take no
        weights,
    and rows without curvature: the ratio form, K and G regressed apart and solved row by row.
    """

    def __init__(self, learner: Any, parts: Parts, K: Floats, weights: Floats | None) -> None:
        self.learner, self.parts, self.K, self.weights = learner, parts, K, weights
        n, q, _ = K.shape
        mean = float(np.trace(K, axis1=1, axis2=2).mean()) / q
        if not mean > 0:
            raise singular(None)
        k = K[:, 0, 0]
        self.constant = q == 1 and bool((k == k[0]).all())
        weighted = q == 1 and bool(k.min() >= RATIO_BELOW * mean) and weight_parameter(learner) is not None
        self.curvature: CurvatureSurface | None = None
        if not (self.constant or weighted):
            fitted = fit_regressor(learner, parts.X["train"], K.reshape(n, q * q), weights)
            self.curvature = CurvatureSurface(parts, fitted, K)

    def solve(self, G: Floats | None, *, outer: Floats | None = None, share: Any = 1.0) -> RegressorSurface:
        """Return the minimizer for G (n, m, q)."""
        if outer is not None or G is None:
            raise InputError(
                "two samples need sums of both in one system",
                expected="learner=SieveRidge(...)",
                got=type(self.learner).__name__,
                next_step="Use a SieveRidge, with a basis such as SplineTransformer() or RBFSampler().",
            )
        (n, m, q), X, om = G.shape, self.parts.X["train"], self.weights
        if self.curvature is not None:
            numerators = fit_regressor(self.learner, X, -G.reshape(n, m * q), om)
            return RegressorSurface(self.parts, numerators, m, q, self.curvature)
        k = self.K[:, 0]
        if not self.constant:
            om = k[:, 0] if om is None else om * k[:, 0]
        return RegressorSurface(self.parts, fit_regressor(self.learner, X, -G[:, :, 0] / k, om), m, q, None)


def quadratic_risk(
    learner: Any, parts: Parts, K: Floats, weights: Floats | None, *, alpha: float | None = None
) -> SieveRisk | RegressorRisk:
    """Return the risk as the learner can minimize it."""
    if isinstance(learner, SieveRidge):
        return SieveRisk(learner, parts, K, weights, alpha=alpha)
    return RegressorRisk(learner, parts, K, weights)
