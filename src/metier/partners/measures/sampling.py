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
    """Return the delta-method standard errors: sqrt(sum_i w_i^2 Var_{x ~ P_i}[u_i(x)] / n_i).

    The influence u_i(x) is log m(x) for D, log P_i(x) for S, and log P_i(x)/m(x) for I.
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
    return {name: _stderr(table, u) for name, u in influences.items()}


def _stderr(table: BehaviourTable, u: Floats) -> float:
    p = table.probabilities
    centered = u - (p * u).sum(axis=1, keepdims=True)
    variance = (p * centered**2).sum(axis=1)
    return float(np.sqrt(np.sum(table.weights**2 * variance / _episodes(table))))


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
