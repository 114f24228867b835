"""The orthogonal score, its mean with a covariance, and all that one evaluation at w yields.

The score is the uncentered efficient influence function of grad F(w), phi = phi_out + phi_in, (n, d):

    phi = d_w l_out + d2_wv l_in a + J (d2_v l_in a + d_v l_out) + A2 d_v l_in.

Source: derived; for squared losses the authors' score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .arrays import Codes, Floats, added
from .losses import Derivatives
from .setup import Sample


@dataclass(frozen=True, slots=True)
class Nuisances:
    """The four regressions at n rows.

    Attributes:
        h: Inner solution, (n, q).
        adjoint: a, (n, q).
        jacobian: J = d_w h, (n, d, q).
        adjoint_jacobian: A2 = d_w a, (n, d, q).

    Example:
        >>> Nuisances(*(np.zeros(s) for s in [(4, 1), (4, 1), (4, 3, 1), (4, 3, 1)])).jacobian.shape
        (4, 3, 1)
    """

    h: Floats
    adjoint: Floats
    jacobian: Floats
    adjoint_jacobian: Floats

    @classmethod
    def empty(cls, n: int, d: int, q: int) -> Nuisances:
        """Return arrays to be filled fold by fold."""
        return cls(np.empty((n, q)), np.empty((n, q)), np.empty((n, d, q)), np.empty((n, d, q)))


def _dot(matrix: Floats | None, vector: Floats) -> Floats | None:
    """(n, d, q) times (n, q), where None stands for zero."""
    return None if matrix is None else np.einsum("ndq,nq->nd", matrix, vector)


def outer_scores(outer: Derivatives, nuisances: Nuisances) -> Floats:
    """Return phi_out = d_w l_out + J d_v l_out, (n, d): also the plug-in score."""
    out: Floats = np.einsum("ndq,nq->nd", nuisances.jacobian, outer.d_v)
    return out if outer.d_w is None else out + outer.d_w


def inner_scores(inner: Derivatives, nuisances: Nuisances) -> Floats:
    """Return phi_in = d2_wv l_in a + J d2_v l_in a + A2 d_v l_in, (n, d)."""
    curved = np.einsum("nqp,np->nq", inner.d2_v, nuisances.adjoint)
    out: Floats = np.einsum("ndq,nq->nd", nuisances.jacobian, curved)
    out += np.einsum("ndq,nq->nd", nuisances.adjoint_jacobian, inner.d_v)
    moved = _dot(inner.d2_wv, nuisances.adjoint)
    return out if moved is None else out + moved


def inner_adjoint_terms(inner: Derivatives, adjoint: Floats, jacobian: Floats) -> Floats | None:
    """Return d_v(d2_wv l_in a) + J d3_v l_in[a], (n, d, q), or None where it is zero.

    With `outer_adjoint_terms` this is M, whose regression gives A2 = -M H^-1.
    """
    within = None if inner.d3_wvv is None else np.einsum("ndqp,np->ndq", inner.d3_wvv, adjoint)
    if inner.d3_v is not None:
        bent = np.einsum("nqpr,nr->nqp", inner.d3_v, adjoint)
        within = added(within, np.einsum("ndp,npq->ndq", jacobian, bent))
    return within


def outer_adjoint_terms(outer: Derivatives, jacobian: Floats) -> Floats:
    """Return d2_wv l_out + J d2_v l_out, (n, d, q)."""
    bent: Floats = np.einsum("ndp,npq->ndq", jacobian, outer.d2_v)
    return bent if outer.d2_wv is None else bent + outer.d2_wv


def objective_scores(inner: Derivatives, outer: Derivatives, adjoint: Floats) -> Floats:
    """Return m_F = l_out + a' d_v l_in, (n,): the orthogonal score of F(w) itself."""
    return np.asarray(outer.value + np.einsum("nq,nq->n", adjoint, inner.d_v))


def quadratic_scores(g: Floats, dg: Floats, y: Floats, jacobian: Floats, residual: Floats) -> Floats:
    """Return (g - y) j + (dg - j) r, (n, d): the score of squared losses.

    Args:
        g, y, residual: (n,); residual is r = E[g - y | X].
        dg, jacobian: (n, d).

    Example:
        >>> one = np.ones(1)
        >>> quadratic_scores(3 * one, 2 * one[:, None], one, one[:, None], 0.5 * one).item()
        2.5

    Source: the paper, Section 4 and the authors' code.
    """
    return (g - y)[:, None] * jacobian + (dg - jacobian) * residual[:, None]


@dataclass(frozen=True, slots=True)
class Mean:
    """A weighted mean of scores with its covariance and the number of independent units."""

    value: Floats
    covariance: Floats
    n: int


def mean_of_scores(scores: Floats, weights: Floats | None, clusters: Codes | None) -> Mean:
    """Return the weighted mean of (n, d) scores and its covariance.

    With s_i = om_i (phi_i - value) / mean(om): sum s s' / (n (n - 1)), and with clusters
    G / (G - 1) / n^2 sum_g s_g s_g'; the two agree where every cluster is one row.
    """
    n = len(scores)
    if weights is None:
        value = scores.mean(axis=0)
        s = scores - value
    else:
        value = weights @ scores / weights.sum()
        s = (scores - value) * (weights / weights.mean())[:, None]
    if clusters is None:
        return Mean(value, s.T @ s / (n * (n - 1)), n)
    sums = cluster_sums(s, clusters)
    G = len(sums)
    return Mean(value, G / (G - 1) * (sums.T @ sums) / n**2, G)


def cluster_sums(s: Floats, clusters: Codes) -> Floats:
    """Return (G, d) sums of rows by cluster."""
    sums = np.zeros((int(clusters.max()) + 1, s.shape[1]))
    np.add.at(sums, clusters, s)
    return sums


def median_of_repeats(means: Sequence[Mean]) -> tuple[Mean, int]:
    """Return the coordinate-wise median with the covariance of median trace, and which repeat gave it.

    Each repeat's covariance first takes up its distance from the median: cov_r + (v_r - med)(v_r - med)'.
    """
    if len(means) == 1:
        return means[0], 0
    value = np.median([m.value for m in means], axis=0)
    covariances = [m.covariance + np.outer(m.value - value, m.value - value) for m in means]
    order = np.argsort([np.trace(c) for c in covariances], kind="stable")
    # With an even number of repeats the larger of the two middle ones, to be safe.
    middle = int(order[len(means) // 2])
    return Mean(value, covariances[middle], means[middle].n), middle


@dataclass(frozen=True, slots=True)
class Fitted:
    """A nuisance's response and out-of-fold prediction, (n, m), with the weight of its risk, (n,) or None."""

    response: Floats
    prediction: Floats
    weight: Floats | None = None

    def r2(self) -> float:
        """Return the worst output's out-of-fold R^2; NaN where no response varies."""
        om = np.ones(len(self.response)) if self.weight is None else self.weight
        center = om @ self.response / om.sum()
        total = om @ (self.response - center) ** 2
        error = om @ (self.response - self.prediction) ** 2
        varies = total > 1e-24 * (1.0 + om @ self.response**2)
        return float((1.0 - error[varies] / total[varies]).min()) if varies.any() else float("nan")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of one repeat at one w, one array per sample (one, or inner and outer).

    Attributes:
        samples: The samples the arrays belong to.
        orthogonal: (n_s, d) per sample, whose means add up to the OBiGrad estimate.
        plugin: The same for the plug-in.
        objective: (n_s,) per sample, whose means add up to the debiased objective.
        plugin_objective: The same for the outer loss at the fitted inner solution.
        instrument: Scores of the adjoint-as-instrument estimate, where it exists.
        slope: (d, d) Jacobian of the estimate in w, where it is known in closed form.
        fitted: Nuisances by name.
        slopes: Per nuisance (n, d) rows whose mean is the derivative of the estimate along a fitted nuisance.
        errors: Products that bias the estimate, each as (left (n, d), right (n,), curvature (n,), fits (n,
            m)): risk gradients of two nuisances, whose conditional means are the curvature times their
            errors.
        min_curvature: Least fitted curvature over its mean.
        floored: Rows at the curvature's floor.
        flat: Rows without curvature that a tuned penalty met.
    """

    samples: tuple[Sample, ...]
    orthogonal: tuple[Floats, ...]
    plugin: tuple[Floats, ...]
    objective: tuple[Floats, ...] | None = None
    plugin_objective: tuple[Floats, ...] | None = None
    instrument: tuple[Floats, ...] | None = None
    slope: Floats | None = None
    fitted: dict[str, Fitted] = field(default_factory=dict)
    slopes: dict[str, Floats] = field(default_factory=dict)
    errors: tuple[tuple[Floats, Floats, Floats, Floats], ...] = ()
    min_curvature: float = float("nan")
    floored: int = 0
    flat: int = 0

    def scores_of(self, estimator: str) -> tuple[Floats, ...]:
        """Return the scores whose mean is an estimator's estimate."""
        if estimator == "plugin":
            return self.plugin
        if estimator == "adjoint_instrument":
            assert self.instrument is not None
            return self.instrument
        return self.orthogonal

    def mean(self, scores: Sequence[Floats]) -> Mean:
        """Return the sum over samples of the weighted means; covariances of independent samples add up."""
        means = [
            mean_of_scores(one, sample.weights, sample.clusters)
            for one, sample in zip(scores, self.samples, strict=True)
        ]
        if len(means) == 1:
            return means[0]
        value = np.sum([m.value for m in means], axis=0)
        covariance = np.sum([m.covariance for m in means], axis=0)
        return Mean(value, covariance, sum(m.n for m in means))


class Repeat(Protocol):
    """Nuisances of one draw of folds; evaluated at any w."""

    codes: Codes | None
    exact_slope: bool
    """Whether the estimate is affine in w with the evaluation's slope."""

    def at(self, w: Floats) -> Evaluation:
        """Return scores at w."""
        ...
