"""Generalized approximate message passing for one direction, beside its state evolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import ensure, one_of, positive_int
from metier.core.rng import derive
from metier.multi_index.activations import Activation, as_activation
from metier.multi_index.channels import slope_scale
from metier.multi_index.results import Plain
from metier.multi_index.thresholds import positive, thresholds

from .matching import Spread, spread
from .spectral import SMALL_START, linear_amp, output_law

Floats = NDArray[np.float64]

FEWEST, MOST = 121, 20_001
REACH = 7.0
APART = 1.0
"""Largest step of the signal between neighboring nodes, in noise standard deviations, at the rms slope."""

STEP = 0.4
"""Share of each new value: undamped iterations leave the fixed point of polynomials at any d we ran."""

SMALLEST_STEP = 1e-3

STILL = 1e-4
"""Relative change of the estimate at which the iterations stop."""

BLOCK = 4_000_000
STARTS = ("random", "spectral", "informed")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class GampRun(Plain):
    """What GAMP found from several seeds, and what state evolution says it finds at infinite dimension.

    Args:
        activation, snr, sample_ratio, dimension, start: the setting.
        overlaps: squared cosine of estimate and truth per seed, shape (n_seeds,).
        theory: the overlap of state evolution from the same kind of start.
        excess_risk: mean of (sigma(<w, x>) - E[sigma | data])^2 on fresh inputs per seed, in sigma's units.
        excess_risk_theory: v - G(q) at the overlap that each seed realized.
        trajectory: overlap per iteration and seed, shape (n_iterations + 1, n_seeds).
        settled: whether the estimate stopped moving before the last iteration, shape (n_seeds,). Below weak
            recovery it need not; above it, one that did not has not reached its fixed point.
        status: of the theory beside it: "derived" (state evolution and our formulas).
    """

    activation: str
    snr: float
    sample_ratio: float
    dimension: int
    start: str
    overlaps: Floats
    theory: float
    excess_risk: Floats
    excess_risk_theory: Floats
    trajectory: Floats
    settled: NDArray[np.bool_]
    status: str = "derived"

    _hidden: ClassVar = ("trajectory",)

    @property
    def spread(self) -> Spread:
        """Mean, standard deviation and standard error over seeds."""
        return spread(self.overlaps)

    def summary(self) -> str:
        """Return measured and predicted overlap in one line, and how many seeds still moved."""
        moving = int(np.sum(~self.settled))
        return (
            f"{self.activation} at snr {self.snr:g}, n/d {self.sample_ratio:g}, d {self.dimension}: "
            f"overlap {self.spread}, state evolution {self.theory:.3f}"
        ) + (f"; {moving} of {self.settled.size} seeds still moved" if moving else "")


def gamp(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    snr: float,
    sample_ratio: float,
    dimension: int = 1000,
    n_seeds: int = 8,
    start: str = "random",
    max_iterations: int = 200,
    step: float = STEP,
    normalize: bool = False,
    rng: int = 0,
) -> GampRun:
    """Run Bayes-optimal GAMP on y = sqrt(snr) sigma(<w, x>) + N(0, 1) and compare it with state evolution.

    Outputs, curvature, estimate and variance move a share `step` of the way in each iteration: the fixed
    points are those of plain GAMP, which at finite d leaves them where E[z | y] is steep (He3, He4). Where
    seeds have not `settled`, or a random and an informed start disagree above threshold, a smaller step with
    more iterations is needed.

    Args:
        activation: name, expression, callable or `Activation`.
        snr: power signal-to-noise ratio.
        sample_ratio: n/d.
        dimension: d.
        n_seeds: independent data sets.
        start: "random" (a small random estimate), "spectral" (the fixed point of its linear part, which
            is that of the optimal spectral matrix), or
            "informed" (near the truth).
        max_iterations: iterations; fewer if the estimate settles.
        step: share of the way, at most 1 (no damping).
        normalize: divide sigma by its standard deviation.
        rng: seed; seed r uses `derive(rng, "gamp", r)`, so that settings share their data.

    Returns:
        Overlaps per seed beside the theory.

    Raises:
        InputError: a setting that is not positive, a step that is not a share, an unknown start, or an snr
            beyond the finest grid.

    Example:
        >>> run = gamp("abs", snr=2.0, sample_ratio=4.0, dimension=200, n_seeds=2)
        >>> run.overlaps.shape, round(run.theory, 3)
        ((2,), 0.762)

    Source: Rangan (2011) for the algorithm; every formula as in docs/multi_index.md.
    """
    sigma = as_activation(activation, normalize=normalize)
    strength, ratio = positive("snr", snr), positive("sample_ratio", sample_ratio)
    size, seeds = positive_int("dimension", dimension, minimum=8), positive_int("n_seeds", n_seeds)
    rounds = positive_int("max_iterations", max_iterations)
    kind, share = one_of("start", start, STARTS), share_of_the_way(step)
    _n_nodes(sigma, strength)  # refuses what the data could not be run at, before the theory is worked out
    theory = float(
        thresholds(sigma, snr=strength).overlap(
            ratio, start="informed" if kind == "informed" else "uninformed"
        )
    )
    runs = [
        _one(sigma, strength, ratio, size, kind, rounds, share, derive(rng, "gamp", seed))
        for seed in range(seeds)
    ]
    length = max(len(run[0]) for run in runs)
    trajectory = np.array([run[0] + run[0][-1:] * (length - len(run[0])) for run in runs]).T
    return GampRun(
        activation=sigma.name,
        snr=strength,
        sample_ratio=ratio,
        dimension=size,
        start=kind,
        overlaps=trajectory[-1],
        theory=theory,
        excess_risk=np.array([run[1] for run in runs]),
        excess_risk_theory=np.array([unexplained(sigma, float(q)) for q in trajectory[-1]]),
        trajectory=trajectory,
        settled=np.array([run[2] for run in runs]),
    )


def share_of_the_way(step: float) -> float:
    """Return `step` as a share.

    Raises:
        InputError: it is not one.
    """
    value = positive("step", step)
    ensure(
        SMALLEST_STEP <= value <= 1.0,
        "step is the share of the way that each iteration moves",
        expected=f"a number from {SMALLEST_STEP:g} to 1",
        got=f"step={value:g}",
        next_step=f"Pass step={STEP:g}, or less where the iterations do not settle.",
    )
    return value


def _one(
    sigma: Activation,
    snr: float,
    ratio: float,
    dimension: int,
    start: str,
    max_iterations: int,
    step: float,
    rng: np.random.Generator,
) -> tuple[list[float], float, bool]:
    n = max(1, round(ratio * dimension))
    truth = rng.standard_normal(dimension)
    X = rng.standard_normal((n, dimension)) / np.sqrt(dimension)
    y = np.sqrt(snr) * sigma(X @ truth) + rng.standard_normal(n)
    estimate, field = _start(start, truth, X, y, sigma, snr, rng)
    variance, curvature = (0.5, 1.0) if start == "informed" else (1.0, 0.0)
    overlaps, moved = [overlap(estimate, truth)], math.inf
    for _ in range(max_iterations):
        omega = X @ estimate - variance * field
        mean, spread_ = posterior_moments(sigma, snr, y, omega, variance)
        field = damped((mean - omega) / variance, field, step)
        slope = float(np.mean((spread_ / variance - 1.0) / variance))
        curvature = max(damped(-(n / dimension) * slope, curvature, step), 1e-12)
        updated = damped((curvature * estimate + X.T @ field) / (1.0 + curvature), estimate, step)
        moved = relative_change(updated, estimate) * STEP / step  # so that small steps are no early end
        estimate, variance = updated, damped(1.0 / (1.0 + curvature), variance, step)
        overlaps.append(overlap(estimate, truth))
        if moved < STILL:
            break
    return overlaps, _fresh_risk(sigma, truth, estimate, variance, rng), moved < STILL


def _start(
    kind: str, truth: Floats, X: Floats, y: Floats, sigma: Activation, snr: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    noise = rng.standard_normal(truth.size)
    if kind == "informed":
        return 0.5 * truth + 0.5 * noise, np.zeros(y.size)
    if kind == "spectral":
        law = output_law(sigma, snr)
        vector, field = linear_amp(np.interp(y, law.y, law.m), X, 1, rng)
        scale = SMALL_START * np.sqrt(truth.size)
        return scale * vector[:, 0], scale * field[:, 0]
    return SMALL_START * noise, np.zeros(y.size)


def damped(new: Any, old: Any, step: float = STEP) -> Any:
    """Return the share `step` of the way from old to new."""
    return step * new + (1.0 - step) * old


def relative_change(new: Floats, old: Floats) -> float:
    """Return |new - old| / |new|."""
    return float(np.linalg.norm(new - old)) / max(float(np.linalg.norm(new)), 1e-12)


def overlap(estimate: Floats, truth: Floats) -> float:
    """Return the squared cosine of two vectors."""
    size = float(estimate @ estimate) * float(truth @ truth)
    return float(estimate @ truth) ** 2 / size if size > 0 else 0.0


def posterior_moments(
    sigma: Activation, snr: float, y: Floats, omega: Floats, variance: float
) -> tuple[Floats, Floats]:
    """Return E[z|y] and Var[z|y] for z ~ N(omega, variance), y ~ N(sqrt(snr) sigma(z), 1)."""
    count = _n_nodes(sigma, snr * variance)
    rows = max(1, BLOCK // count)
    parts = [
        _moments(sigma, snr, y[k : k + rows], omega[k : k + rows], variance, count)
        for k in range(0, len(y), rows)
    ]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _n_nodes(sigma: Activation, power: float) -> int:
    count = 2 * int(np.ceil(REACH * slope_scale(sigma) * np.sqrt(power) / APART)) + 1
    ensure(
        count <= MOST,
        f"GAMP resolves the noise by at most {MOST} nodes",
        expected=f"snr below {power * (MOST / count) ** 2:.2g} for {sigma.name}",
        got=f"snr * variance = {power:.3g}",
        next_step="Lower snr.",
    )
    return max(count, FEWEST)


def _moments(
    sigma: Activation, snr: float, y: Floats, omega: Floats, variance: float, count: int
) -> tuple[Floats, Floats]:
    u = np.linspace(-REACH, REACH, count)
    z = omega[:, None] + np.sqrt(variance) * u
    log_weight = -0.5 * u * u - 0.5 * (y[:, None] - np.sqrt(snr) * sigma(z)) ** 2
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)
    mean, second = weight @ u, weight @ (u * u)
    return omega + np.sqrt(variance) * mean, variance * (second - mean * mean)


def unexplained(sigma: Activation, overlap_: float) -> float:
    """Return v - G(q) = E[Var(sigma(z) | field)] at overlap q: the prediction risk beyond noise.

    Example:
        >>> from metier.multi_index import as_activation
        >>> round(unexplained(as_activation("square"), 0.5), 6)  # v (1 - q^2)
        1.5
    """
    rule = sigma.rule
    q = min(max(overlap_, 0.0), 1.0)
    used = np.abs(rule.nodes) < 9.0
    z, w, values = rule.nodes[used], rule.weights[used], rule.values[used]
    # b_k = (E[sigma h_k])^2 with orthonormal h_k by their recursion, until G(1) is v.
    before, current, explained, total = np.zeros_like(z), np.ones_like(z), 0.0, 0.0
    for k in range(1, 400):
        before, current = current, (z * current - np.sqrt(k - 1) * before) / np.sqrt(k)
        b = float(w @ (values * current)) ** 2
        explained, total = explained + b * q**k, total + b
        if q**k < 1e-13 or total > sigma.variance * (1 - 1e-12):
            break
    return float(sigma.variance - explained)


def _fresh_risk(
    sigma: Activation,
    truth: Floats,
    estimate: Floats,
    variance: float,
    rng: np.random.Generator,
    n: int = 16_000,
) -> float:
    """Mean squared error of E[sigma(z) | field] on fresh inputs; z ~ N(field, variance)."""
    X = rng.standard_normal((n, truth.size)) / np.sqrt(truth.size)
    u, weights = np.polynomial.hermite_e.hermegauss(61)
    predicted = sigma((X @ estimate)[:, None] + np.sqrt(variance) * u) @ (weights / weights.sum())
    return float(np.mean((sigma(X @ truth) - predicted) ** 2))
