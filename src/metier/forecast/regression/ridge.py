"""Penalized least squares from sums: global, local, cluster and leave-series-out solutions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metier.forecast.regression.gram import unpack

Floats = NDArray[np.float64]

LOCAL_SHARE = 0.05
"""Pull of the local models to the global one, as a share of the median mean diagonal of G_i."""


def solve_spd(A: Floats, b: Floats) -> Floats:
    """Solve a batch of symmetric positive (semi)definite systems.

    Cholesky where it exists; a batch with a singular member gets that member's minimum-norm solution.

    Args:
        A: (M, d, d).
        b: (M, d).
    """
    try:
        L = np.linalg.cholesky(A).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        return np.concatenate([_solve_one(A[i : i + 1], b[i : i + 1]) for i in range(len(A))])
    return _back_substitute(L, _forward_substitute(L, b))


def _solve_one(A: Floats, b: Floats) -> Floats:
    try:
        L = np.linalg.cholesky(A).astype(np.float64, copy=False)
    except np.linalg.LinAlgError:
        return np.asarray(np.einsum("mij,mj->mi", np.linalg.pinv(A, hermitian=True), b))
    return _back_substitute(L, _forward_substitute(L, b))


def _forward_substitute(L: Floats, b: Floats) -> Floats:
    x = b.copy()
    for j in range(b.shape[1]):
        x[:, j] /= L[:, j, j]
        x[:, j + 1 :] -= x[:, j, None] * L[:, j + 1 :, j]
    return x


def _back_substitute(L: Floats, b: Floats) -> Floats:
    x = b.copy()
    for j in range(b.shape[1] - 1, -1, -1):
        x[:, j] /= L[:, j, j]
        x[:, :j] -= x[:, j, None] * L[:, j, :j]
    return x


def ridge(G: Floats, b: Floats, penalty: float | Floats) -> Floats:
    """theta = (G + penalty I)^-1 b for a batch; one penalty, or one per member."""
    eye = np.eye(G.shape[-1])
    return solve_spd(G + np.multiply.outer(np.broadcast_to(penalty, G.shape[0]), eye), b)


def shrunk_ridge(
    G: Floats, b: Floats, *, G_mean: Floats, theta_global: Floats, shrinkage: Floats, penalty: float
) -> Floats:
    """theta_k = (G_k + g Gbar + lam I)^-1 (b_k + g Gbar theta_g).

    Args:
        G, b: (M, d, d) and (M, d) sums of each cluster.
        G_mean: (d, d) mean Gram of a series.
        shrinkage: (M,) g, in average series: free of the data's scale.
        penalty: lam.
    """
    pull = G_mean @ theta_global
    return ridge(G + shrinkage[:, None, None] * G_mean, b + shrinkage[:, None] * pull, penalty)


def local_ridge(packed: Floats, theta_global: Floats, *, penalty: float, strength: float) -> Floats:
    """local_i = (G_i + (lam + m) I)^-1 (b_i + m theta_g) for the series of a block, (n, d)."""
    G, b, _ = unpack(packed, theta_global.shape[0])
    return ridge(G, b + strength * theta_global, penalty + strength)


def leave_series_out(
    G: Floats,
    b: Floats,
    packed: Floats,
    *,
    G_mean: Floats,
    theta_global: Floats,
    shrinkage: float,
    penalty: float,
    members: NDArray[np.intp],
) -> Floats:
    """Each series' own cluster solved without it, (n, d): subtract G_i and b_i, then solve.

    Args:
        G, b: (n, d, d) and (n, d) sums of the own cluster of each series.
        packed: (P, n) the series' own sums.
        members: (n,) size of the own cluster; a singleton uses the global model.
    """
    own_G, own_b, _ = unpack(packed, theta_global.shape[0])
    theta = shrunk_ridge(
        G - own_G,
        b - own_b,
        G_mean=G_mean,
        theta_global=theta_global,
        shrinkage=np.full(len(b), shrinkage),
        penalty=penalty,
    )
    return np.where((members <= 1)[:, None], theta_global, theta)
