"""Online SGD on one direction, with and without using each sample twice, beside its limiting equation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import ensure, non_negative, positive_int
from metier.core.rng import derive
from metier.multi_index.activations import Activation, as_activation
from metier.multi_index.channels import normal_rule
from metier.multi_index.expression.reading import array_function, derivative
from metier.multi_index.results import Plain
from metier.multi_index.thresholds import positive

from .matching import Spread, spread

Floats = NDArray[np.float64]

LEVEL = 0
CHUNK = 512
RECORDS = 101
STABLE, STIFFEST = 0.5, 2e4
"""Largest step times slope of the Runge-Kutta integration, and over the whole of it."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SgdRun(Plain):
    """Overlap along online SGD per seed, with its limiting curve from each seed's own start.

    Args:
        sample_ratios: n/d at the recorded steps, shape (n_records,).
        overlaps: squared cosines, shape (n_records, n_seeds).
        theory: the ordinary differential equation from each seed's start, same shape.
        reuse: size of the extra step on the same sample; 0 is plain one-pass SGD.
        learning_rate: step times dimension.
        status: of the theory: "derived" (the limiting equation is ours).
    """

    activation: str
    snr: float
    dimension: int
    reuse: float
    learning_rate: float
    sample_ratios: Floats
    overlaps: Floats
    theory: Floats
    status: str = "derived"

    @property
    def spread(self) -> Spread:
        """Mean and spread of the last overlap."""
        return spread(self.overlaps[-1])

    def summary(self) -> str:
        """Return the last overlaps in one line."""
        kind = f"each sample twice (step {self.reuse:g})" if self.reuse else "one pass"
        return (
            f"{self.activation}, {kind}, n/d {self.sample_ratios[-1]:g}, d {self.dimension}: "
            f"overlap {self.spread}, limit {float(self.theory[-1].mean()):.3f}"
        )


def online_sgd(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    snr: float,
    sample_ratio: float,
    reuse: float = 0.0,
    learning_rate: float = 0.1,
    dimension: int = 500,
    n_seeds: int = 8,
    start: float | None = None,
    normalize: bool = False,
    rng: int = 0,
) -> SgdRun:
    """Run spherical online SGD on the correlation loss -y sigma(<w, x>), and its limit.

    One sample: w <- w + (eta/d) h x, then |w| = 1, with s = <w, x> and h = y sigma'(s). With `reuse` = rho
    the sample is used twice: the gradient is taken after a first step on the same sample,
    h = y sigma'(s + rho y sigma'(s)), which lets the label's square act: then the generative
    exponent counts, not the information
    exponent. As d -> infinity at n/d = tau, the cosine m obeys
    dm/dtau = eta E[h (t - m s)] - (eta^2/2) m E[h^2], (s, t) jointly Gaussian with correlation m.

    Args:
        activation: name, expression, callable (differentiated numerically) or `Activation`.
        snr: power signal-to-noise ratio.
        sample_ratio: n/d at the end.
        reuse: rho; 0 is plain one-pass SGD.
        learning_rate: eta.
        dimension: d.
        n_seeds: independent runs.
        start: cosine at the start; by default that of a random w, about d^-1/2.
        normalize: divide sigma by its standard deviation.
        rng: seed.

    Returns:
        Overlaps along the run beside the limit from the same starts.

    Raises:
        InputError: settings out of range, or an activation that is constant between its jumps.

    Example:
        >>> run = online_sgd("He2", snr=4.0, sample_ratio=10, dimension=100, n_seeds=2, start=0.5)
        >>> run.overlaps.shape == run.theory.shape == (101, 2)
        True

    Source: Ben Arous, Gheissari and Jagannath (2021) for one pass; Dandi et al. (2024) for reuse; the
    equation for this h is ours, derived in the same way.
    """
    sigma = as_activation(activation, normalize=normalize)
    strength, ratio = positive("snr", snr), positive("sample_ratio", sample_ratio)
    eta, rho = positive("learning_rate", learning_rate), non_negative("reuse", reuse)
    size, seeds = positive_int("dimension", dimension, minimum=8), positive_int("n_seeds", n_seeds)
    ensure(
        not (start is not None and not -1 < start < 1),
        "start is a cosine",
        expected="-1 < start < 1",
        got=repr(start),
        next_step="Pass start=0.1.",
    )
    gradient = _Gradient(sigma, slope_of(sigma), strength, rho)
    runs = [_one(gradient, ratio, eta, size, start, derive(rng, "sgd", seed)) for seed in range(seeds)]
    ratios, cosines = runs[0][0], np.array([run[1] for run in runs]).T
    theory = _limit(gradient, cosines[0], ratios, eta)
    return SgdRun(
        activation=sigma.name,
        snr=strength,
        dimension=size,
        reuse=rho,
        learning_rate=eta,
        sample_ratios=ratios,
        overlaps=cosines**2,
        theory=theory**2,
    )


def slope_of(sigma: Activation) -> Callable[[Floats], Floats]:
    """Return sigma', exact for an expression, by central differences for a callable."""
    if sigma.node is not None:
        exact = array_function(derivative(sigma.node))
        ensure(
            not (sigma.levels is not None or not np.any(exact(np.linspace(-4.0, 4.0, 401) + 0.0017))),
            "gradient descent needs an activation with a slope",
            expected="sigma' that is not 0 almost everywhere",
            got=f"{sigma.name}, which is constant between its jumps",
            next_step="Use gamp or spectral for step activations.",
        )
        return lambda z: np.asarray(exact(z))
    h = 1e-5
    return lambda z: (sigma(z + h) - sigma(z - h)) / (2 * h)


@dataclass(frozen=True, slots=True, eq=False)
class _Gradient:
    """h(y, s), the weight of x in one update."""

    sigma: Activation
    slope: Callable[[Floats], Floats]
    snr: float
    reuse: float

    def __call__(self, y: Floats, s: Floats) -> Floats:
        first = y * self.slope(s)
        return y * self.slope(s + self.reuse * first) if self.reuse else first


def _one(
    gradient: _Gradient, ratio: float, eta: float, d: int, start: float | None, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    truth = rng.standard_normal(d)
    truth /= np.linalg.norm(truth)
    w = rng.standard_normal(d)
    if start is not None:
        w -= (w @ truth) * truth
        w = start * truth + np.sqrt(1 - start * start) * w / np.linalg.norm(w)
    w /= np.linalg.norm(w)
    n = max(RECORDS - 1, round(ratio * d))
    steps = np.unique(np.linspace(0, n, RECORDS).round().astype(int))
    cosines, at = [float(w @ truth)], 1
    for begin in range(0, n, CHUNK):
        X = rng.standard_normal((min(CHUNK, n - begin), d))
        y = np.sqrt(gradient.snr) * gradient.sigma(X @ truth) + rng.standard_normal(len(X))
        for i in range(len(X)):
            w = w + (eta / d) * gradient(y[i], X[i] @ w) * X[i]
            w /= np.sqrt(w @ w)
            if begin + i + 1 == steps[at]:
                cosines.append(float(w @ truth))
                at = min(at + 1, len(steps) - 1)
    return steps / d, np.array(cosines)


def _limit(gradient: _Gradient, starts: Floats, ratios: Floats, eta: float) -> Floats:
    """Integrate the equation from each start by Runge-Kutta steps between records."""
    field, steepness = _drift_table(gradient, eta)
    ensure(
        float(ratios[-1]) * steepness <= STIFFEST,
        "online SGD has a limit for a step that is small enough",
        expected=f"learning_rate and reuse whose drift has a slope below {STIFFEST / ratios[-1]:.3g}",
        got=f"a slope of {steepness:.3g}",
        next_step="Lower learning_rate or reuse, or take an activation that grows less.",
    )
    m = starts.copy()
    out = [m]
    for step in np.diff(ratios):
        parts = max(1, int(np.ceil(step * steepness / STABLE)))
        h = step / parts
        for _ in range(parts):
            a = field(m)
            b = field(m + 0.5 * h * a)
            c = field(m + 0.5 * h * b)
            m = np.clip(m + h / 6 * (a + 2 * b + 2 * c + field(m + h * c)), -1.0, 1.0)
        out.append(m)
    return np.array(out)


def _drift_table(gradient: _Gradient, eta: float) -> tuple[Callable[[Floats], Floats], float]:
    """Tabulate dm/dtau on Chebyshev points of m in [-1, 1]; return it with its largest slope."""
    from scipy.interpolate import CubicSpline

    grid = np.r_[-1.0, np.cos(np.pi * (np.arange(65) + 0.5) / 65)[::-1], 1.0]
    table = CubicSpline(grid, [_drift(gradient, float(m), eta) for m in grid])
    return table, float(np.abs(table(np.linspace(-1.0, 1.0, 801), 1)).max())


def _drift(gradient: _Gradient, m: float, eta: float) -> float:
    kinks = np.asarray(gradient.sigma.kinks, dtype=float)
    v, r = np.polynomial.hermite_e.hermegauss(17)
    s, p = (part[0, 0] for part in normal_rule(np.zeros((1, 1)), np.ones((1, 1)), kinks, LEVEL))
    # The teacher's field given the student's; panels end where sigma or its slope jumps.
    spread = np.full((1, s.size), max(np.sqrt(max(0.0, 1 - m * m)), 1e-6))
    u, mass = (part[0] for part in normal_rule(m * s[None, :], spread, kinks, LEVEL))
    t = (m * s + spread[0] * u.T).T[:, :, None]
    weight = p[:, None, None] * mass[:, :, None] * (r / r.sum())
    y = np.sqrt(gradient.snr) * gradient.sigma(t) + v
    student = s[:, None, None]
    h = gradient(y, np.broadcast_to(student, y.shape))
    return float(eta * (weight * h * (t - m * student)).sum() - 0.5 * eta**2 * m * (weight * h * h).sum())
