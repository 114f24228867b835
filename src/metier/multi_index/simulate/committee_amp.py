"""Bayes-optimal matrix AMP for small committees: subspace recovery and specialization of an ideal student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import positive_int
from metier.core.errors import InputError
from metier.core.rng import derive
from metier.multi_index.activations import Activation, as_activation
from metier.multi_index.thresholds import positive

from .gamp import relative_change
from .matching import Baseline, Specialization, random_baseline, specialization
from .spread import Spread, spread
from .teachers import plant

Floats = NDArray[np.float64]

MOST_UNITS = 3
NODES = {1: 121, 2: 27, 3: 13}
REACH = 4.5
CHUNK = 256


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CommitteeRun:
    """What matrix AMP found per seed on a committee.

    Args:
        sample_ratio: n/d.
        specializations: per seed: overlaps, matching, index, subspace error, assignment.
        baseline: the index of estimates that know nothing.
        recovered: per seed, the share of the teacher's energy that lies in the estimate's span: 1 minus the
            subspace error.
        threshold: the sample ratio at which subspace recovery must start (`committee`'s exact value).
    """

    activation: str
    sample_ratio: float
    dimension: int
    noise: float
    specializations: tuple[Specialization, ...]
    baseline: Baseline
    threshold: float

    @property
    def index(self) -> Floats:
        """Specialization index per seed."""
        return np.array([found.index for found in self.specializations])

    @property
    def recovered(self) -> Floats:
        """1 - subspace error per seed."""
        return np.array([1.0 - found.subspace_error for found in self.specializations])

    @property
    def spread(self) -> Spread:
        """Mean and spread of the index."""
        return spread(self.index)

    def summary(self) -> str:
        """Return the main numbers in one line."""
        return (
            f"{self.activation}, n/d {self.sample_ratio:g} (threshold {self.threshold:.3g}), "
            f"d {self.dimension}: specialization {self.spread}, subspace {spread(self.recovered)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return {
            "activation": self.activation,
            "sample_ratio": self.sample_ratio,
            "dimension": self.dimension,
            "noise": self.noise,
            "index": self.index.tolist(),
            "recovered": self.recovered.tolist(),
            "baseline": {"mean": self.baseline.mean, "sd": self.baseline.sd},
            "threshold": self.threshold,
        }


def committee_amp(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    n_units: int = 2,
    noise: float,
    sample_ratio: float,
    dimension: int = 500,
    n_seeds: int = 4,
    max_iterations: int = 120,
    normalize: bool = False,
    rng: int = 0,
) -> CommitteeRun:
    """Run Bayes-optimal AMP on y = n_units^-1/2 sum_k sigma(<w_k, x>) + N(0, noise), from a random start.

    Args:
        activation: even, so that overlap 0 is a fixed point.
        n_units: 1 to 3; the posterior of the fields is integrated on a grid.
        noise: variance, positive.
        sample_ratio: n/d.
        dimension: d.
        n_seeds: data sets.
        max_iterations: iterations.
        normalize: divide sigma by its standard deviation.
        rng: seed.

    Returns:
        Specialization and subspace recovery per seed, with the predicted threshold.

    Raises:
        InputError: more than 3 units, or settings that are not positive.

    Example:
        >>> run = committee_amp("abs", noise=0.1, sample_ratio=1, dimension=60, n_seeds=1, max_iterations=3)
        >>> run.index.shape
        (1,)

    Source: the algorithm of Aubin et al. (2018), in our notation.
    """
    from metier.multi_index.committee import committee

    sigma = as_activation(activation, normalize=normalize)
    units = positive_int("n_units", n_units)
    if units > MOST_UNITS:
        raise InputError(
            "matrix AMP integrates over all units' fields",
            expected=f"at most {MOST_UNITS} units",
            got=f"n_units={units}",
            next_step="Use committee for the threshold of wide committees, or train_student.",
        )
    variance, ratio = positive("noise", noise), positive("sample_ratio", sample_ratio)
    size = positive_int("dimension", dimension, minimum=8)
    found = []
    for seed in range(positive_int("n_seeds", n_seeds)):
        generator = derive(rng, "committee_amp", seed)
        teacher = plant(sigma, generator, dimension=size, n_units=units, noise=variance)
        X, y = teacher.sample(max(2, round(ratio * size)), generator)
        B = _iterate(sigma, X / np.sqrt(size), y, units, variance, max_iterations, generator)
        found.append(specialization(B.T, teacher.directions))
    return CommitteeRun(
        activation=sigma.name,
        sample_ratio=ratio,
        dimension=size,
        noise=variance,
        specializations=tuple(found),
        baseline=random_baseline(units, units, dimension=size, rng=derive(rng, "committee_amp", "baseline")),
        threshold=float(committee(sigma, n_units=units, noise=variance).subspace_recovery),
    )


def _iterate(
    sigma: Activation, X: Floats, y: Floats, p: int, noise: float, rounds: int, rng: np.random.Generator
) -> Floats:
    n, d = X.shape
    B = 0.03 * rng.standard_normal((d, p))
    C, g = np.eye(p), np.zeros((n, p))
    for _ in range(rounds):
        omega = X @ B - g @ C
        mean, covariance = posterior(sigma, y, omega, C, noise)
        inverse = np.linalg.inv(C)
        g = (mean - omega) @ inverse
        slope = inverse @ covariance.mean(axis=0) @ inverse - inverse
        Lambda = -(n / d) * slope
        Lambda = 0.5 * (Lambda + Lambda.T)
        resolvent = np.linalg.inv(np.eye(p) + Lambda)
        updated = (B @ Lambda + X.T @ g) @ resolvent
        moved = relative_change(updated, B)
        B, C = updated, _floor(resolvent)
        if moved < 1e-4:
            break
    return B


def _floor(C: Floats, smallest: float = 1e-6) -> Floats:
    values, vectors = np.linalg.eigh(0.5 * (C + C.T))
    return np.asarray((vectors * np.maximum(values, smallest)) @ vectors.T)


def posterior(sigma: Activation, y: Floats, omega: Floats, C: Floats, noise: float) -> tuple[Floats, Floats]:
    """Return E[z|y] (n, p) and Cov[z|y] (n, p, p), z ~ N(omega, C), y ~ N(p^-1/2 sum sigma(z_k), noise)."""
    p = omega.shape[1]
    u = np.linspace(-REACH, REACH, NODES[p])
    grid = np.stack(np.meshgrid(*[u] * p, indexing="ij"), axis=-1).reshape(-1, p)
    shift = grid @ np.linalg.cholesky(C).T
    log_prior = -0.5 * (grid * grid).sum(axis=1)
    mean, covariance = np.empty_like(omega), np.empty((*omega.shape, p))
    for begin in range(0, len(y), CHUNK):
        rows = slice(begin, begin + CHUNK)
        z = omega[rows, None, :] + shift
        signal = sigma(z).sum(axis=2) / np.sqrt(p)
        log_weight = log_prior - 0.5 * (y[rows, None] - signal) ** 2 / noise
        weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
        first = weight @ shift
        mean[rows] = omega[rows] + first
        second = np.einsum("nm,mi,mj->nij", weight, shift, shift, optimize=True)
        covariance[rows] = second - first[:, :, None] * first[:, None, :]
    return mean, covariance
