"""What sampling does to plug-in D, S and I: bias, standard errors, and the null of equal partners."""

from __future__ import annotations

import numpy as np

from metier.core import as_generator

from .table import BehaviourTable, Floats


def bias_of_plug_in(table: BehaviourTable) -> tuple[float, float]:
    """Return the first-order bias of plug-in D (at most 0) and of S (at least 0), nats."""
    p, w, n, m = table.probabilities, table.weights, _episodes(table), table.mixture
    variance = (w**2 / n) @ (p * (1.0 - p))
    seen = m > 0
    specialization = float(np.sum(w * ((p > 0).sum(axis=1) - 1) / (2.0 * n)))
    return -0.5 * float(np.sum(variance[seen] / m[seen])), specialization


def standard_errors(table: BehaviourTable) -> dict[str, float]:
    """Return the delta-method standard errors, to second order.

    sqrt(sum_i w_i^2 Var_{x ~ P_i}[u_i(x)] / n_i + tr((B C)^2) / 2), with the influence u_i(x) log m(x) for D,
    log P_i(x) for S, log P_i(x)/m(x) for I, B the matrix of second derivatives and C the covariance of the
    shares. The first term alone vanishes where all do everything alike (D, at m uniform; I, at 0).
    """
    p, m = table.probabilities, table.mixture
    with np.errstate(divide="ignore"):
        log_p = np.where(p > 0, np.log(p), 0.0)
        log_m = np.where(m > 0, np.log(m), 0.0)
    influences = {
        "diversity": np.broadcast_to(log_m, p.shape),
        "specialization": log_p,
        "information": np.where(p > 0, log_p - log_m, 0.0),
    }
    curved = curvature_variances(table)
    return {name: float(np.sqrt(_variance(table, u) + curved[name])) for name, u in influences.items()}


def _variance(table: BehaviourTable, u: Floats) -> float:
    p = table.probabilities
    centered = u - (p * u).sum(axis=1, keepdims=True)
    variance = (p * centered**2).sum(axis=1)
    return float(np.sum(table.weights**2 * variance / _episodes(table)))


def curvature_variances(table: BehaviourTable) -> dict[str, float]:
    """Return tr((B C)^2) / 2 of D, S and I; for I it is that of chi2((N - 1)(K - 1)) / (2 N n) at I = 0."""
    p, w, n, m = table.probabilities, table.weights, _episodes(table), table.mixture
    seen, share = m > 0, w**2 / n
    covariance = np.diag(share @ p) - (share[:, None] * p).T @ p
    relative = covariance[np.ix_(seen, seen)] / m[seen]
    diversity = float(np.sum(relative * relative.T))
    specialization = float(np.sum(w**2 * ((p > 0).sum(axis=1) - 1) / n**2))
    both = float(np.sum((w**3 / n**2) @ (p * (1.0 - p))[:, seen] / m[seen]))
    information = max(diversity + specialization - 2.0 * both, 0.0)
    return {
        "diversity": diversity / 2.0,
        "specialization": specialization / 2.0,
        "information": information / 2.0,
    }


def independence_p_value(
    table: BehaviourTable, *, permutations: int, rng: int | np.random.Generator
) -> float:
    """Return (1 + #{null >= value}) / (1 + permutations) for plug-in I, permuting episodes over partners.

    A permutation keeps every partner's number of episodes and every behaviour's total: tables with fixed
    margins, whatever the draw weights are.
    """
    from scipy.stats import random_table

    n = _episodes(table)
    counts = np.rint(table.probabilities * n[:, None]).astype(np.int64)
    nulls = random_table(counts.sum(axis=1), counts.sum(axis=0)).rvs(
        size=permutations, random_state=as_generator(rng)
    )
    value = _information(counts[None] / n[:, None], table.weights)[0]
    null = _information(nulls / n[:, None], table.weights)
    return float((1 + np.sum(null >= value - 1e-12)) / (1 + permutations))


def _information(p: Floats, w: Floats) -> Floats:
    """Return sum_i w_i KL(P_i || m) for a stack of tables, shape (tables, partners, behaviours)."""
    m = np.einsum("i,tix->tx", w, p)[:, None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / m), 0.0)
    return np.asarray(np.einsum("i,tix->t", w, terms))


def _episodes(table: BehaviourTable) -> Floats:
    return np.asarray(table.episodes, dtype=np.float64)
