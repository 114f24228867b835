"""All fixed points of state evolution: the curve alpha(q) = q/((1 - q) F(q)), its turns, its free entropy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metier.core import InputError

from .kernels import SMALLEST_RATE, cross_monotone, series_many
from .overlap import OverlapFunction
from .posterior import Array

_SAMPLES = 16
_ZOOM = np.linspace(0.0, 1.0, 33)
_SMALLEST_PROMINENCE = 1e-9
_NEVER = float(np.finfo(float).max)
"""Level of ln alpha above every finite sample ratio; finite, so that differences of levels exist."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FixedPointCurve:
    """The overlaps q at which state evolution stands still, as sample ratios alpha(q).

    The curve is cut at its turns into monotone branches, rising and falling in turn. Rising branches are
    stable: an overlap that starts near one moves to it.

    Attributes:
        function: The overlap function F.
        stops: Ends of the branches in x = -ln(1 - q), from 0 to the end of the table.
        levels: ln alpha at the stops.
    """

    function: OverlapFunction
    stops: Array
    levels: Array

    @property
    def erased(self) -> bool:
        """Whether nothing is observed: alpha is infinite at every q."""
        return bool(np.isinf(self.levels[0]) and self.levels[-1] == _NEVER)

    def log_sample_ratio(self, x: Array) -> Array:
        """Ln alpha at x = -ln(1 - q), one-dimensional."""
        return log_sample_ratio(self.function, x)

    def free_entropy(self, x: Array, sample_ratio: Array | float) -> Array:
        """phi = (q + ln(1 - q))/2 + alpha I(q)/2 at x = -ln(1 - q)."""
        return np.asarray(
            0.5 * (np.asarray(sample_ratio) * self.function.accumulated(x) - entropy_cost(np.asarray(x)))
        )

    def crossings(self, sample_ratios: Array) -> Array:
        """Return x of the fixed points, (n_ratios, n_branches), nan on branches without one."""
        out = np.empty((sample_ratios.size, self.stops.size - 1))
        f = self.function
        cross_monotone(f.edges, f.rate, f.power, self.stops, self.levels, np.log(sample_ratios), out)
        beyond = np.log(sample_ratios) > self.levels[-1]
        # Past the table q is within 1e-5 of 1 and F constant there: alpha = q / ((1 - q) F(1)).
        out[beyond, -1] = self.stops[-1] + np.log(sample_ratios[beyond]) - self.levels[-1]
        return out

    @property
    def rising(self) -> Array:
        """Which branches are stable."""
        return np.asarray(np.diff(self.levels) > 0)


def fixed_points(function: OverlapFunction, *, tolerance: float) -> FixedPointCurve:
    """Find the branches; turns that stand out by less than `tolerance` in ln alpha are taken for noise."""
    x = _samples(function.edges)
    y = log_sample_ratio(function, x)
    x, y = _resolved(x, y)
    turns = _turns(y, max(tolerance, _SMALLEST_PROMINENCE))
    stops, levels = [0.0], [_log_start(function)]
    for k, peak in turns:
        sign = -1.0 if peak else 1.0

        def objective(at: Array, sign: float = sign) -> Array:
            return sign * log_sample_ratio(function, at)

        at, value = zoom(objective, x[max(k - 1, 0)], x[min(k + 1, x.size - 1)])
        stops.append(at)
        levels.append(sign * value)
    stops.append(float(x[-1]))
    levels.append(float(y[-1]))
    return FixedPointCurve(function=function, stops=np.array(stops), levels=np.array(levels))


def no_information() -> FixedPointCurve:
    """The curve of a channel whose label does not depend on z: F = 0, overlap 0 at every sample ratio."""
    edges, nothing = np.array([0.0, 1.0]), np.zeros((1, 2))
    function = OverlapFunction(
        edges=edges, rate=nothing, integral=nothing.copy(), power=1, rate_at_zero=0.0, error=0.0
    )
    return FixedPointCurve(function=function, stops=edges.copy(), levels=np.array([math.inf, _NEVER]))


def log_sample_ratio(function: OverlapFunction, x: Array) -> Array:
    """Ln alpha = x + (1 - power) ln q - ln rate at x = -ln(1 - q)."""
    x = np.asarray(x, dtype=float)
    rate = series_many(function.edges, function.rate, x)
    with np.errstate(divide="ignore", invalid="ignore"):
        y = x - np.where(rate > SMALLEST_RATE, np.log(np.maximum(rate, SMALLEST_RATE)), -np.inf)
        return np.asarray(y if function.power else y + np.log(-np.expm1(-x)))


def entropy_cost(x: Array) -> Array:
    """-(q + ln(1 - q)) at x = -ln(1 - q), without cancellation near 0.

    Example:
        >>> float(entropy_cost(np.array([1e-6]))[0])
        4.99999833333375e-13
    """
    x = np.asarray(x, dtype=float)
    short = x * x * (0.5 - x * (1 / 6 - x * (1 / 24 - x * (1 / 120 - x * (1 / 720 - x / 5040)))))
    return np.asarray(np.where(x < 0.02, short, x + np.expm1(-x)))


def zoom(
    objective: Callable[[Array], Array], low: float, high: float, rounds: int = 7
) -> tuple[float, float]:
    """Return the minimum of a unimodal function on [low, high] by nested grids of 33 points."""
    for _ in range(rounds):
        x = low + (high - low) * _ZOOM
        y = objective(x)
        k = int(np.argmin(y))
        low, high = x[max(k - 1, 0)], x[min(k + 1, x.size - 1)]
    return float(x[k]), float(y[k])


def _samples(edges: Array) -> Array:
    inside = np.arange(_SAMPLES) / _SAMPLES
    return np.concatenate([(edges[:-1, None] + np.diff(edges)[:, None] * inside).ravel(), edges[-1:]])


def _log_start(function: OverlapFunction) -> float:
    if function.power == 0:
        return -math.inf
    return -math.log(function.rate_at_zero) if function.rate_at_zero > 0 else math.inf


def _resolved(x: Array, y: Array) -> tuple[Array, Array]:
    # Ln alpha starts at -inf (F(0) > 0) or, where F vanishes faster than q, at +inf: both end at x > 0.
    bad = np.flatnonzero(~np.isfinite(y))
    first = int(bad[-1]) + 1 if bad.size else 0
    if first > y.size // 2:
        raise InputError(
            "the overlap function is resolved in float64",
            expected="F(q) above rounding",
            got=f"F below rounding at overlap {-math.expm1(-x[bad[-1]]):.4g}",
            next_step="Pass a less extreme snr, or an activation that varies.",
        )
    return x[first:], y[first:]


def _turns(y: Array, tolerance: float) -> list[tuple[int, bool]]:
    """Return (index, whether a peak) of the turns of y, without those shallower than tolerance."""
    steps = _fill(np.sign(np.diff(y)))
    turns = [k for k in range(1, y.size - 1) if steps[k - 1] != steps[k]]
    marks = [0, *turns, y.size - 1]
    while len(marks) > 2:
        depths = [abs(y[b] - y[a]) for a, b in itertools.pairwise(marks)]
        k = int(np.argmin(depths))
        if depths[k] > tolerance:
            break
        ends = (0, y.size - 1)
        marks = [m for j, m in enumerate(marks) if j not in (k, k + 1) or m in ends]
    return [(m, bool(y[m] > y[a])) for a, m in itertools.pairwise(marks[:-1])]


def _fill(steps: Array) -> Array:
    filled = steps.copy()
    for k in range(1, filled.size):
        if filled[k] == 0:
            filled[k] = filled[k - 1]
    return filled
