"""What a true partition is worth: autocorrelations of AR processes and the oracle's relative gain."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core import InputError

FloatArray = NDArray[np.float64]


def check_stationary(coefficients: ArrayLike) -> FloatArray:
    """Return the coefficients as a (n_regimes, p) array; raise unless every row is stationary."""
    rows = np.atleast_2d(np.asarray(coefficients, dtype=float))
    for k, row in enumerate(rows):
        radius = spectral_radius(row)
        if not radius < 1.0:
            raise InputError(
                "every regime must be a stationary autoregression",
                expected="all roots of the companion matrix inside the unit circle",
                got=f"radius {radius:.4g} for regime {k} with coefficients {row.round(6).tolist()}",
                next_step="Shrink that regime's coefficients.",
            )
    return rows


def spectral_radius(coefficients: ArrayLike) -> float:
    """Largest modulus of the companion matrix's eigenvalues; 0 without coefficients, inf if not finite."""
    phi = np.asarray(coefficients, dtype=float)
    if phi.size == 0:
        return 0.0
    if not np.isfinite(phi).all():
        return float("inf")
    companion = np.eye(phi.size, k=-1)
    companion[0] = phi
    return float(np.abs(np.linalg.eigvals(companion)).max())


def autocorrelations(coefficients: ArrayLike, n_lags: int) -> FloatArray:
    r"""Autocorrelations rho_0..rho_{n_lags} of a stationary AR(p), by the Yule-Walker equations.

    rho_j = sum_m phi_m rho_{|j-m|} for j >= 1 and rho_0 = 1: a linear system for rho_1..rho_p, then the
    recursion for larger lags.

    Args:
        coefficients: (p,) the phi_m, most recent lag first.
        n_lags: largest lag wanted.

    Returns:
        (n_lags + 1,) array.

    Example:
        >>> autocorrelations([0.5], 3).tolist()
        [1.0, 0.5, 0.25, 0.125]
    """
    phi = check_stationary(coefficients)[0]
    p = phi.size
    system = np.eye(p)
    for j in range(1, p + 1):
        for m in range(1, p + 1):
            if j != m:
                system[j - 1, abs(j - m) - 1] -= phi[m - 1]
    rho = [1.0, *np.linalg.solve(system, phi)]
    while len(rho) <= n_lags:
        rho.append(sum(phi[m - 1] * rho[len(rho) - m] for m in range(1, p + 1)))
    return np.array(rho[: n_lags + 1])


def oracle_gain(coefficients: ArrayLike, shares: ArrayLike, *, lags: int | None = None) -> float:
    r"""Relative gain in squared loss of the true partition over one global model, standardized series.

    With w_k the shares, R_k the autocorrelation matrix of regime k, v_k = 1 / Var(y_k) at unit innovations,

        theta_g = (sum_k w_k R_k)^-1 sum_k w_k R_k theta_k,
        e = sum_k w_k (theta_k - theta_g)' R_k (theta_k - theta_g),    gain = e / (sum_k w_k v_k + e).

    Both models have infinite data, so this is the limit of long histories, not a bound for short ones.

    Args:
        coefficients: (n_regimes, p) autoregressive coefficients theta_k, most recent lag first.
        shares: (n_regimes,) w_k >= 0, summing to 1.
        lags: number of lags of the forecasting model, at least p; p by default. A global model with more
            lags than p forecasts a mixture of regimes better, so the gain falls with it.

    Returns:
        The gain, in [0, 1).

    Raises:
        InputError: a regime is not stationary, the shares are not a distribution, or lags < p.

    Example:
        >>> round(oracle_gain([[0.5], [-0.5]], [0.5, 0.5]), 4)  # global forecasts 0: 1 against 0.75
        0.25
        >>> round(oracle_gain([[0.5, 0.2]], [1.0]), 12)
        0.0

    Source: derived (method note of this family); Yule-Walker equations for R_k and v_k.
    """
    rows = check_stationary(coefficients)
    weights = _distribution(shares, rows.shape[0])
    n_lags = rows.shape[1] if lags is None else lags
    if n_lags < rows.shape[1]:
        raise InputError(
            "the forecasting model must hold every lag of the regimes",
            expected=f"lags >= {rows.shape[1]}",
            got=str(n_lags),
            next_step="Raise lags.",
        )
    theta = np.zeros((rows.shape[0], n_lags))
    theta[:, : rows.shape[1]] = rows
    rho = np.stack([autocorrelations(row, n_lags) for row in rows])
    offsets = np.abs(np.subtract.outer(np.arange(n_lags), np.arange(n_lags)))
    R = rho[:, offsets]
    # R_k theta_k is the vector of autocorrelations at lags 1.., by Yule-Walker.
    theta_global = np.linalg.solve(np.einsum("k,kij->ij", weights, R), weights @ rho[:, 1:])
    gap = theta - theta_global
    excess = float(np.einsum("k,ki,kij,kj->", weights, gap, R, gap))
    noise = float(weights @ (1.0 - np.einsum("ki,ki->k", theta, rho[:, 1:])))
    return max(excess, 0.0) / (noise + max(excess, 0.0))


def _distribution(shares: ArrayLike, n_regimes: int) -> FloatArray:
    weights = np.asarray(shares, dtype=float)
    if weights.shape != (n_regimes,) or not (weights >= 0).all() or abs(weights.sum() - 1.0) > 1e-9:
        raise InputError(
            "shares must be a distribution over the regimes",
            expected=f"{n_regimes} non-negative numbers that sum to 1",
            got=str(weights.tolist()),
            next_step="Pass the share of the series in each regime.",
        )
    return weights
