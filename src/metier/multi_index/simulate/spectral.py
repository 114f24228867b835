"""The optimal spectral start for even activations, beside its exact asymptotic overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from metier.core.checks import ensure, positive_int
from metier.core.rng import derive
from metier.multi_index.activations import Activation, as_activation
from metier.multi_index.results import Plain
from metier.multi_index.thresholds import positive, positive_array

from .matching import Spread, spread

Floats = NDArray[np.float64]

CLIP = 0.98
"""T = m/(1+m) is clipped from below where 1 + m -> 0: at -CLIP/(1 - CLIP)."""

STEPS = 3001
WIDEST = 0.25
"""Steps of y are at most this many noise standard deviations, and there are at least STEPS of them."""

MOST_STEPS = 100_001
BLOCK = 1024
LINEAR_ROUNDS = 200
SMALL_START = 0.03
"""Root mean square entry of an estimate at which AMP is still linear."""


@dataclass(frozen=True, slots=True, eq=False)
class OutputLaw:
    """The law of y and m(y) = E[z^2 - 1 | y] on a grid: `weights` sum to 1."""

    y: Floats
    weights: Floats
    m: Floats

    def preprocessing(self, y: Floats) -> Floats:
        """Return T(y) = m/(1+m), clipped from below."""
        return clipped(np.interp(y, self.y, self.m))


def clipped(m: Floats) -> Floats:
    """Return m/(1+m), bounded from below where 1 + m is small."""
    inside = np.maximum(m, -CLIP)
    return np.asarray(inside / (1.0 + inside))


def output_law(sigma: Activation, snr: float) -> OutputLaw:
    """Tabulate P(y) and E[z^2 - 1 | y] for y = sqrt(snr) sigma(z) + N(0, 1)."""
    rule = sigma.rule
    used = np.abs(rule.nodes) < 8.5
    z, w, signal = rule.nodes[used], rule.weights[used], np.sqrt(snr) * rule.values[used]
    # Signals of mass below 1e-12 would stretch the grid of y for nothing.
    order = np.argsort(signal)
    mass = np.cumsum(w[order])
    low, high = signal[order][np.searchsorted(mass, [1e-12, 1.0 - 1e-12]).clip(0, order.size - 1)]
    count = max(STEPS, int(np.ceil((high - low + 16.0) / WIDEST)))
    ensure(
        count <= MOST_STEPS,
        f"the law of y is resolved by at most {MOST_STEPS} points",
        expected=f"signals within {WIDEST * MOST_STEPS:g} noise standard deviations",
        got=f"{high - low:.3g} for {sigma.name} at snr {snr:g}",
        next_step="Lower snr, or pass a bounded activation.",
    )
    y = np.linspace(low - 8.0, high + 8.0, count)
    moments = np.stack([w, w * (z * z - 1.0)], axis=1)
    sums = np.concatenate(
        [np.exp(-0.5 * (y[k : k + BLOCK, None] - signal) ** 2) @ moments for k in range(0, count, BLOCK)]
    )
    density = sums[:, 0]
    m = sums[:, 1] / np.maximum(density, 1e-300)
    return OutputLaw(y=y, weights=density / density.sum(), m=m)


def optimal_matrix_vector(
    sigma: Activation, snr: float, inputs: Floats, y: Floats, rng: np.random.Generator
) -> tuple[Floats, float]:
    """Return the top eigenvector (unit norm) of (1/n) sum_i T(y_i) x_i x_i^T and its eigenvalue."""
    from scipy.linalg import eigh

    T, top = output_law(sigma, snr).preprocessing(y), inputs.shape[1] - 1
    values, vectors = eigh((inputs * T[:, None]).T @ inputs / len(y), subset_by_index=[top, top])
    # The sign of an eigenvector is the library's; a seeded one keeps runs equal across libraries.
    sign = 1.0 if rng.random() < 0.5 else -1.0
    vector = vectors[:, 0]
    return np.asarray(sign * vector * np.sign(vector[np.argmax(np.abs(vector))])), float(values[0])


def linear_amp(
    m: Floats, X: Floats, n_units: int, rng: np.random.Generator, *, rounds: int = LINEAR_ROUNDS
) -> tuple[Floats, Floats]:
    """Iterate AMP where it is linear: an orthonormal estimate (d, n_units) and its outputs (n, n_units).

    omega = X B - g, g = m omega, B <- X^T g - (n/d) mean(m) B: the power iteration whose fixed point is the
    span of the optimal matrix's top eigenvectors, with the outputs g that AMP must subtract next. To
    eigenvectors alone AMP's memory does not fit, and its first steps lose them.

    Args:
        m: E[z_k^2 - 1 | y] per sample, (n,).
        X: inputs with variance 1/d, (n, d).
        n_units: columns.
        rng: of the start.
        rounds: iterations.
    """
    n, d = X.shape
    B, g = np.linalg.qr(rng.standard_normal((d, n_units)))[0], np.zeros((n, n_units))
    memory = -(n / d) * float(m.mean())
    for _ in range(rounds):
        g = m[:, None] * (X @ B - g)
        B, triangle = np.linalg.qr(X.T @ g + memory * B)
        g = g @ np.linalg.inv(triangle)
    return B, g


def spectral_overlap(sigma: Activation, snr: float, sample_ratio: float) -> float:
    """Return the overlap of the optimal spectral estimator as d -> infinity.

    With E over y of T, m: phi(l) = l E[T (1+m)/(l-T)], psi(l) = l (1/alpha + E[T/(l-T)]), l_bar = argmin psi;
    where phi crosses psi at l* > l_bar, q = (1/alpha - E[T^2/(l*-T)^2]) / (1/alpha + E[T^2 m/(l*-T)^2]);
    otherwise 0.

    Source: Lu and Li (2020), Theorem 1; with this T the transition is at weak recovery.
    """
    law = output_law(sigma, snr)
    T, p, m = clipped(law.m), law.weights, law.m
    top = float(T[p > 1e-14].max())
    T = np.minimum(T, top)

    def psi_slope(at: float) -> float:
        return 1.0 / sample_ratio - float(p @ (T / (at - T)) ** 2)

    floor = top * (1 + 1e-6) + 1e-9
    far = 4.0 * (1.0 + sample_ratio) * (1.0 + float(np.sqrt(p @ T**2)))
    bar = brentq(psi_slope, floor, far) if psi_slope(floor) < 0 < psi_slope(far) else floor

    def crossing(at: float) -> float:
        return float(p @ (T * (1.0 + m) / (at - T))) - 1.0 / sample_ratio - float(p @ (T / (at - T)))

    if crossing(bar) <= 0:
        return 0.0
    while crossing(far) >= 0:
        far *= 2.0
    star = brentq(crossing, bar, far)
    above = 1.0 / sample_ratio - float(p @ (T / (star - T)) ** 2)
    below = 1.0 / sample_ratio + float(p @ (m * (T / (star - T)) ** 2))
    return float(np.clip(above / below, 0.0, 1.0))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SpectralRun(Plain):
    """Overlaps of the optimal spectral estimator over sample ratios, beside their limit.

    Args:
        overlaps: (n_ratios, n_seeds) squared cosines.
        theory: (n_ratios,) limits as d -> infinity.
        status: of the theory: "derived" (Lu and Li's limit, by our quadrature).
    """

    activation: str
    snr: float
    dimension: int
    sample_ratios: Floats
    overlaps: Floats
    theory: Floats
    status: str = "derived"

    @property
    def spreads(self) -> tuple[Spread, ...]:
        """Mean and spread over seeds at each ratio."""
        return tuple(spread(row) for row in self.overlaps)


def spectral(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    snr: float,
    sample_ratios: Any,
    dimension: int = 1000,
    n_seeds: int = 4,
    normalize: bool = False,
    rng: int = 0,
) -> SpectralRun:
    """Run the optimal spectral estimator at several sample ratios and compare it with its exact limit.

    The matrix is (1/n) sum_i T(y_i) x_i x_i^T with T = m/(1+m), m(y) = E[z^2 - 1 | y].

    Args:
        activation: with E[sigma(z) z] = 0, as even ones have; others start by the mean of y x.
        snr: power signal-to-noise ratio.
        sample_ratios: n/d, one-dimensional.
        dimension: d.
        n_seeds: data sets; each ratio uses the first n rows of the same data.
        normalize: divide sigma by its standard deviation.
        rng: seed.

    Returns:
        Overlaps per ratio and seed, and theory.

    Raises:
        InputError: an activation whose first coefficient is not 0, or settings that are not positive.

    Example:
        >>> run = spectral("abs", snr=2.0, sample_ratios=[0.6, 4.0], dimension=200, n_seeds=2)
        >>> run.theory.round(3)
        array([0.   , 0.596])

    Source: Lu and Li (2020); Mondelli and Montanari (2019) for the optimal T.
    """
    sigma = as_activation(activation, normalize=normalize)
    ensure(
        abs(sigma.moment(1, 1)) <= 1e-9 * np.sqrt(sigma.second_moment),
        "the spectral start is for activations without a linear part",
        expected="E[sigma(z) z] = 0",
        got=f"{sigma.moment(1, 1):.4g} for {sigma.name}",
        next_step="Average y*x instead, or use gamp with start='random'.",
    )
    strength = positive("snr", snr)
    ratios = positive_array("sample_ratios", sample_ratios).ravel()
    size, seeds = positive_int("dimension", dimension, minimum=8), positive_int("n_seeds", n_seeds)
    overlaps = np.empty((ratios.size, seeds))
    for seed in range(seeds):
        generator = derive(rng, "spectral", seed)
        truth = generator.standard_normal(size)
        truth /= np.linalg.norm(truth)
        n = max(1, round(float(ratios.max()) * size))
        X = generator.standard_normal((n, size))
        y = np.sqrt(strength) * sigma(X @ truth) + generator.standard_normal(n)
        for i, ratio in enumerate(ratios):
            used = max(1, round(float(ratio) * size))
            vector, _ = optimal_matrix_vector(sigma, strength, X[:used], y[:used], generator)
            overlaps[i, seed] = float(vector @ truth) ** 2
    theory = np.array([spectral_overlap(sigma, strength, float(ratio)) for ratio in ratios])
    return SpectralRun(
        activation=sigma.name,
        snr=strength,
        dimension=size,
        sample_ratios=ratios,
        overlaps=overlaps,
        theory=theory,
    )
