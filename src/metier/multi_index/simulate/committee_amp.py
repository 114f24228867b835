"""Bayes-optimal matrix AMP for small committees: subspace recovery and specialization of an ideal student."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import ensure, one_of, positive_int
from metier.core.rng import derive
from metier.multi_index.activations import Activation, as_activation
from metier.multi_index.channels import slope_scale
from metier.multi_index.thresholds import positive

from .gamp import STEP, STILL, damped, relative_change, share_of_the_way
from .matching import (
    Baseline,
    Specialization,
    SpecializedRun,
    random_baseline,
    random_rotation,
    specialization,
    spread,
)
from .spectral import SMALL_START, linear_amp
from .teachers import Teacher, plant

if TYPE_CHECKING:
    from metier.multi_index.committee import Committee

Floats = NDArray[np.float64]

MOST_UNITS = 3
FEWEST = {1: 121, 2: 27, 3: 15}
MOST = {1: 4001, 2: 121, 3: 31}
"""Nodes per unit."""

REACH = 4.5
APART = 1.6
"""Largest step of the output between neighboring nodes, in noise standard deviations, at the rms slope."""

CHUNK = 256
FRESH = 4000
RISK_ROTATIONS = 16


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CommitteeRun(SpecializedRun):
    """What matrix AMP found per seed on a committee.

    Args:
        sample_ratio: n/d.
        start: "random" or "spectral".
        specializations: per seed: overlaps, matching, index and its null, subspace error, assignment.
        baseline: the index of estimates that know nothing.
        excess_risk: error of predicting the noiseless output of fresh inputs by a + b sum_k sigma(<u_k, x>),
            u_k the estimate's directions and a, b fitted on the training data, per seed.
        rotated_risk: the same with the directions rotated within their span (mean over rotations): what a
            student that knows the subspace only would pay.
        settled: whether the estimate stopped moving before the last iteration, shape (n_seeds,).
        threshold: the sample ratio at which subspace recovery must start (`committee`'s exact value).
        status: of that threshold, as `committee` says it.
    """

    activation: str
    sample_ratio: float
    dimension: int
    noise: float
    start: str
    specializations: tuple[Specialization, ...]
    baseline: Baseline
    excess_risk: Floats
    rotated_risk: Floats
    settled: NDArray[np.bool_]
    threshold: float
    status: str

    def summary(self) -> str:
        """Return the main numbers in one line, and how many seeds still moved."""
        moving = int(np.sum(~self.settled))
        return (
            f"{self.activation}, n/d {self.sample_ratio:g} (threshold {self.threshold:.3g}), "
            f"d {self.dimension}: specialization {self.spread}, "
            f"above rotations {spread(self.excess).mean:.3f}, subspace {spread(self.recovered)}"
        ) + (f"; {moving} of {self.settled.size} seeds still moved" if moving else "")

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return {
            "activation": self.activation,
            "sample_ratio": self.sample_ratio,
            "dimension": self.dimension,
            "noise": self.noise,
            "start": self.start,
            "index": self.index.tolist(),
            "excess": self.excess.tolist(),
            "recovered": self.recovered.tolist(),
            "excess_risk": self.excess_risk.tolist(),
            "rotated_risk": self.rotated_risk.tolist(),
            "settled": self.settled.tolist(),
            "baseline": {"mean": self.baseline.mean, "sd": self.baseline.sd},
            "threshold": self.threshold,
            "status": self.status,
        }


def committee_amp(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    n_units: int = 2,
    noise: float,
    sample_ratio: float,
    dimension: int = 500,
    n_seeds: int = 4,
    max_iterations: int = 200,
    step: float = STEP,
    start: str = "spectral",
    normalize: bool = False,
    rng: int = 0,
) -> CommitteeRun:
    """Run Bayes-optimal AMP on y = n_units^-1/2 sum_k sigma(<w_k, x>) + N(0, noise), from a blind start.

    With B (d, p) the estimate, C its covariance, omega = X B - g C: g = (E[z|y] - omega) C^-1,
    Lambda = (n/d) mean(C^-1 - C^-1 Cov[z|y] C^-1), B <- (B Lambda + X^T g)(1 + Lambda)^-1 and
    C <- (1 + Lambda)^-1; each of g, Lambda, B and C moves a share `step` of the way.
    For even sigma E[z z^T - 1 | y] is a multiple m(y) of the identity; the spectral start iterates
    the linear part of AMP, g = m omega, to the span of its n_units leading directions, in a random rotation.

    Args:
        activation: even, so that overlap 0 is a fixed point.
        n_units: 1 to 3; the posterior of the fields is integrated on a grid.
        noise: variance, positive.
        sample_ratio: n/d.
        dimension: d.
        n_seeds: data sets.
        max_iterations: iterations; fewer if the estimate settles.
        step: share of the way, at most 1 (no damping).
        start: "spectral", or "random": a small random estimate, which at finite d may wait far above the
            threshold.
        normalize: divide sigma by its standard deviation.
        rng: seed.

    Returns:
        Specialization and subspace recovery per seed, with the predicted threshold.

    Raises:
        InputError: more than 3 units, settings that are not positive, or a noise that is too small for the
            grid of the fields.

    Example:
        >>> run = committee_amp("abs", noise=0.1, sample_ratio=1, dimension=60, n_seeds=1, max_iterations=3)
        >>> run.index.shape
        (1,)

    Source: the algorithm of Aubin et al. (2018), in our notation; the spectral start is ours.
    """
    sigma = as_activation(activation, normalize=normalize)
    units = positive_int("n_units", n_units)
    ensure(
        units <= MOST_UNITS,
        "matrix AMP integrates over all units' fields",
        expected=f"at most {MOST_UNITS} units",
        got=f"n_units={units}",
        next_step="Use committee for the threshold of wide committees, or train_student.",
    )
    variance, ratio = positive("noise", noise), positive("sample_ratio", sample_ratio)
    size = positive_int("dimension", dimension, minimum=8)
    kind, rounds = one_of("start", start, STARTS), positive_int("max_iterations", max_iterations)
    share = share_of_the_way(step)
    nodes = _nodes(sigma, units, variance)
    found: list[Specialization] = []
    risks, settled = [], []
    for seed in range(positive_int("n_seeds", n_seeds)):
        generator = derive(rng, "committee_amp", seed)
        teacher = plant(sigma, generator, dimension=size, n_units=units, noise=variance)
        X, y = teacher.sample(max(2, round(ratio * size)), generator)
        law = _Law(sigma, y, variance, nodes)
        scaled = X / np.sqrt(size)
        first = _START[kind](law, scaled, units, generator)
        B, still = _iterate(law, scaled, first, rounds, share)
        settled.append(still)
        found.append(specialization(B.T, teacher.directions))
        basis = np.linalg.qr(B)[0]
        choices = [basis @ rows.T for rows in found[-1].rotations(RISK_ROTATIONS)]
        risk = _risks(teacher, X, y, [B / np.linalg.norm(B, axis=0), *choices], generator)
        risks.append((risk[0], float(np.mean(risk[1:]))))
    predicted = _predicted(sigma, units, variance)
    return CommitteeRun(
        activation=sigma.name,
        sample_ratio=ratio,
        dimension=size,
        noise=variance,
        start=kind,
        specializations=tuple(found),
        baseline=random_baseline(units, units, dimension=size, rng=derive(rng, "committee_amp", "baseline")),
        excess_risk=np.array([risk[0] for risk in risks]),
        rotated_risk=np.array([risk[1] for risk in risks]),
        settled=np.array(settled),
        threshold=float(predicted.subspace_recovery),
        status=predicted.status,
    )


@lru_cache(maxsize=8)
def _predicted(sigma: Activation, units: int, noise: float) -> Committee:
    """The thresholds; a study asks for the same ones at every ratio and seed, and they take longest."""
    from metier.multi_index.committee import committee

    return committee(sigma, n_units=units, noise=noise)


def _risks(
    teacher: Teacher, X: Floats, y: Floats, choices: list[Floats], rng: np.random.Generator
) -> list[float]:
    """Excess risk on fresh inputs for each choice of directions (d, p)."""
    fresh = rng.standard_normal((FRESH, teacher.dimension))
    target, risks = teacher.signal(fresh), []
    for units in choices:
        x = teacher.activation(X @ units).sum(axis=1)
        centered = x - x.mean()
        size = float(centered @ centered)
        # The slope of the least squares line; 0 where x does not vary.
        slope = float(centered @ y) / size if size > 1e-20 * float(x @ x) else 0.0
        predicted = y.mean() + slope * (teacher.activation(fresh @ units).sum(axis=1) - x.mean())
        risks.append(float(np.mean((predicted - target) ** 2)))
    return risks


@dataclass(frozen=True, slots=True, eq=False)
class _Law:
    """P(y | z) of the data at hand, on a grid of standardized fields."""

    sigma: Activation
    y: Floats
    noise: float
    nodes: Floats

    def posterior(self, omega: Floats, C: Floats) -> tuple[Floats, Floats]:
        return posterior(self.sigma, self.y, omega, C, self.noise, nodes=self.nodes)


def _iterate(
    law: _Law, X: Floats, start: tuple[Floats, Floats], rounds: int, step: float
) -> tuple[Floats, bool]:
    """Return the estimate and whether it stopped moving."""
    (n, d), (B, g) = X.shape, start
    p = B.shape[1]
    C, Lambda, moved = np.eye(p), np.zeros((p, p)), math.inf
    for _ in range(rounds):
        omega = X @ B - g @ C
        mean, covariance = law.posterior(omega, C)
        inverse = np.linalg.inv(C)
        g = damped((mean - omega) @ inverse, g, step)
        slope = inverse @ covariance.mean(axis=0) @ inverse - inverse
        Lambda = damped(-0.5 * (n / d) * (slope + slope.T), Lambda, step)
        resolvent: Floats = np.linalg.inv(np.eye(p) + Lambda).astype(np.float64, copy=False)
        updated = damped((B @ Lambda + X.T @ g) @ resolvent, B, step)
        moved = relative_change(updated, B) * STEP / step
        B, C = updated, _floor(damped(resolvent, C, step))
        if moved < STILL:
            break
    return B, moved < STILL


def _random_start(law: _Law, X: Floats, p: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    return SMALL_START * rng.standard_normal((X.shape[1], p)), np.zeros((len(X), p))


def _spectral_start(law: _Law, X: Floats, p: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    _, covariance = law.posterior(np.zeros((len(X), p)), np.eye(p))
    m = np.trace(covariance, axis1=1, axis2=2) / p - 1.0
    B, g = linear_amp(m, X, p, rng)
    # The span is all that this tells: a random rotation says so.
    mixing = SMALL_START * np.sqrt(X.shape[1]) * random_rotation(p, rng)
    return B @ mixing, g @ mixing


_START = {"random": _random_start, "spectral": _spectral_start}
STARTS = tuple(_START)


def _floor(C: Floats, smallest: float = 1e-6) -> Floats:
    values, vectors = np.linalg.eigh(0.5 * (C + C.T))
    return np.asarray((vectors * np.maximum(values, smallest)) @ vectors.T)


def _nodes(sigma: Activation, p: int, noise: float) -> Floats:
    """Standardized nodes of one unit's field; the output moves by little more than the noise between them."""
    apart = slope_scale(sigma) / np.sqrt(p * noise)
    count = max(FEWEST[p], 2 * int(np.ceil(REACH * apart / APART)) + 1)
    ensure(
        count <= MOST[p],
        f"matrix AMP resolves the noise by at most {MOST[p]} nodes per unit",
        expected=f"noise of at least {noise * (count / MOST[p]) ** 2:.2g} for {sigma.name}",
        got=f"noise={noise:g}",
        next_step="Raise noise, or use fewer units.",
    )
    return np.linspace(-REACH, REACH, count)


def posterior(
    sigma: Activation, y: Floats, omega: Floats, C: Floats, noise: float, *, nodes: Floats | None = None
) -> tuple[Floats, Floats]:
    """Return E[z|y] (n, p) and Cov[z|y] (n, p, p), z ~ N(omega, C), y ~ N(p^-1/2 sum sigma(z_k), noise)."""
    p = omega.shape[1]
    u = _nodes(sigma, p, noise) if nodes is None else nodes
    # A product grid in z itself needs sigma at each unit's nodes only, not at all their combinations.
    sides = np.sqrt(np.diag(C))[:, None] * u
    shift = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, p)
    log_prior = -0.5 * np.einsum("mi,ij,mj->m", shift, np.linalg.inv(C), shift)
    products = (shift[:, :, None] * shift[:, None, :]).reshape(-1, p * p)
    moments = np.concatenate([np.ones((len(shift), 1)), shift, products], axis=1)
    sums = np.empty((len(y), moments.shape[1]))
    for begin in range(0, len(y), CHUNK):
        rows = slice(begin, begin + CHUNK)
        left = -y[rows, None]
        for k in range(p):
            values = sigma(omega[rows, k, None] + sides[k]) / np.sqrt(p)
            left = (left[:, :, None] + values[:, None, :]).reshape(len(values), -1)
        log_weight = log_prior - left * left * (0.5 / noise)
        log_weight -= log_weight.max(axis=1, keepdims=True)
        sums[rows] = np.exp(log_weight) @ moments
    first = sums[:, 1 : p + 1] / sums[:, :1]
    second = (sums[:, p + 1 :] / sums[:, :1]).reshape(-1, p, p)
    return omega + first, second - first[:, :, None] * first[:, None, :]
