"""Where a clustering run starts, and the two partitions that any clustering must beat."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from metier.core import derive, derive_seed
from metier.forecast.regression.gram import Block, GramTable, distance_coefficients, unpack
from metier.forecast.regression.ridge import local_ridge

Floats = NDArray[np.float64]
TRAIN = 0

FEATURE_SERIES = 5_000
"""Series that place the centers of the feature clusters."""


def local_models(table: GramTable, theta_global: Floats, *, penalty: float, strength: float) -> Floats:
    """Every series' own TRAIN model, pulled to the global one, (N, d); remembered by the table."""
    key = ("local", penalty, strength, theta_global.tobytes())
    if key in table.memo:
        return np.asarray(table.memo[key])

    def solve(block: Block) -> Floats:
        return local_ridge(block.sums[TRAIN], theta_global, penalty=penalty, strength=strength)

    local = np.concatenate(table.map(solve, (TRAIN,)))
    table.memo[key] = local
    return local


def local_strength(table: GramTable, n_features: int, *, share: float) -> float:
    """m = share * median over active series of trace(G_i) / d."""
    traces = table.train_summary()[1][table.active]
    return float(share * np.median(traces) / n_features) if traces.size else 0.0


def seed_chains(
    table: GramTable, local: Floats, *, rngs: list[np.random.Generator], length: int
) -> NDArray[np.intp]:
    """k-means++ chains of seed series, (chains, length), all chains advanced by one product a step.

    The distance of series i to seed j is (l_i - l_j)' G_i (l_i - l_j); the first K seeds of a chain are
    exactly a k-means++ draw of K seeds. Where every distance is zero the draw is uniform.
    """
    candidates = np.flatnonzero(table.active)
    pulled, own = _local_products(table, local)
    seeds = np.empty((len(rngs), length), dtype=np.intp)
    nearest = np.full((len(rngs), len(local)), np.inf)
    for step in range(length):
        for c, rng in enumerate(rngs):
            weight = np.ones(candidates.size) if step == 0 else nearest[c, candidates]
            total = weight.sum()
            p = weight / total if total > 0 else None
            seeds[c, step] = candidates[rng.choice(candidates.size, p=p)]
        chosen = local[seeds[:, step]]
        quadratic = distance_coefficients(chosen)
        distance = np.concatenate(table.map(partial(_against, quadratic), (TRAIN,)), axis=1)
        distance += own - 2.0 * (chosen @ pulled.T)
        np.minimum(nearest, np.maximum(distance, 0.0), out=nearest)
        nearest[np.arange(len(rngs)), seeds[:, step]] = 0.0
    return seeds


def _against(quadratic: Floats, block: Block) -> Floats:
    return np.asarray(quadratic @ block.sums[TRAIN])


def _local_products(table: GramTable, local: Floats) -> tuple[Floats, Floats]:
    """G_i l_i, (N, d), and l_i' G_i l_i, (N,)."""

    def product(block: Block) -> Floats:
        G, _, _ = unpack(block.sums[TRAIN], local.shape[1])
        return np.asarray(np.einsum("nij,nj->ni", G, local[block.series]))

    pulled = np.concatenate(table.map(product, (TRAIN,)))
    return pulled, np.einsum("ni,ni->n", pulled, local)


def feature_clusters(local: Floats, lags: int, *, n_clusters: int, rng: int) -> NDArray[np.int16]:
    """k-means of the series' autoregressive coefficients: clusters by features, not by loss.

    Centers come from at most `FEATURE_SERIES` series, drawn at random; all series go to the nearest.
    """
    features, n = local[:, :lags], len(local)
    drawn = (
        derive(rng, "feature series").choice(n, FEATURE_SERIES, replace=False) if n > FEATURE_SERIES else ...
    )
    seed = derive_seed(rng, "feature k-means") % 2**32
    with threadpool_limits(limits=1), warnings.catch_warnings():  # sums over threads come in any order
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct series than clusters
        means = KMeans(n_clusters=n_clusters, n_init=5, random_state=seed).fit(features[drawn])
        return np.asarray(means.predict(features), dtype=np.int16)


def random_balanced(n_series: int, *, n_clusters: int, rng: int) -> NDArray[np.int16]:
    """Clusters of equal size drawn at random: what splitting alone gives."""
    order = derive(rng, "random balanced").permutation(n_series)
    labels = np.empty(n_series, dtype=np.int16)
    labels[order] = np.arange(n_series) % n_clusters
    return labels
