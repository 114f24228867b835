"""Folds, and the weighted mean of scores with its covariance: rows or clusters, one repeat or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.core.errors import InputError

from .arrays import Floats

Codes = NDArray[np.int64]


def draw_folds(n: int, n_folds: int, rng: np.random.Generator, clusters: Codes | None = None) -> Codes:
    """Return the fold of every row; rows of one cluster share a fold.

    A permutation of the units is cut by `numpy.array_split`, so that sizes differ by at most one.

    Example:
        >>> np.bincount(draw_folds(7, 3, np.random.default_rng(0))).tolist()
        [3, 2, 2]
    """
    n_units = n if clusters is None else int(clusters.max()) + 1
    unit = "rows" if clusters is None else "clusters"
    if n_units < n_folds:
        raise InputError(
            f"every fold holds {unit}",
            expected=f"at least {n_folds} {unit}",
            got=f"{n_units}",
            next_step=f"Lower folds to {max(n_units, 2)} or collect more {unit}.",
        )
    fold_of = np.empty(n_units, dtype=np.int64)
    for k, members in enumerate(np.array_split(rng.permutation(n_units), n_folds)):
        fold_of[members] = k
    return fold_of if clusters is None else fold_of[clusters]


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
    kept = int(order[len(means) // 2])
    return Mean(value, covariances[kept], means[kept].n), kept
