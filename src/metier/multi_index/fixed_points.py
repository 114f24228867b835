"""All fixed points of state evolution, alpha(q) = q/((1 - q) F(q)), and the thresholds read off them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import brentq

from metier.core import InputError

from .channels import Array
from .kernels import SMALLEST_RATE, cross_monotone, series_many
from .overlap import OverlapFunction

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
    edges = function.edges[:, None]
    inside = edges[:-1] + np.diff(edges, axis=0) * (np.arange(_SAMPLES) / _SAMPLES)
    x = np.r_[inside.ravel(), edges[-1]]
    x, y = _resolved(x, log_sample_ratio(function, x))
    stops, levels = [0.0], [math.log(function.instability) if function.instability else -math.inf]
    for k, peak in _turns(y, max(tolerance, _SMALLEST_PROMINENCE)):
        sign = -1.0 if peak else 1.0

        def objective(at: Array, sign: float = sign) -> Array:
            return sign * log_sample_ratio(function, at)

        at, value = zoom(objective, x[max(k - 1, 0)], x[min(k + 1, x.size - 1)])
        stops.append(at)
        levels.append(sign * value)
    return FixedPointCurve(function=function, stops=np.r_[stops, x[-1]], levels=np.r_[levels, y[-1]])


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
    steps = np.sign(np.diff(y))
    # A flat step goes on in the direction of the last one before it.
    last = np.maximum.accumulate(np.where(steps != 0, np.arange(steps.size), 0))
    marks = [0, *(np.flatnonzero(np.diff(steps[last])) + 1).tolist(), y.size - 1]
    while len(marks) > 2:
        depths = [abs(y[b] - y[a]) for a, b in itertools.pairwise(marks)]
        k = int(np.argmin(depths))
        if depths[k] > tolerance:
            break
        marks = [m for j, m in enumerate(marks) if j not in (k, k + 1) or m in (0, y.size - 1)]
    return [(m, bool(y[m] > y[a])) for a, m in itertools.pairwise(marks[:-1])]


def infimum(
    ratio: Callable[[Array], Array], grid: Array, end: float, overlap: float = 0.0
) -> tuple[float, float]:
    """Return the infimum of a ratio and the overlap there: inside the grid of x, or `end` with its own."""
    k = int(np.argmin(ratio(grid)))
    x, value = zoom(ratio, grid[max(k - 1, 0)], grid[min(k + 1, grid.size - 1)])
    return (end, overlap) if end <= value * (1 + 1e-9) else (value, -math.expm1(-x))


NAMES = ("weak_recovery", "strong_recovery", "spinodal", "it_detection", "it_strong")


ERASED = "the label does not depend on the input, so that no number of samples is enough"
OPEN_AT_ZERO = "the overlap is above 0 at every sample ratio, so there is nothing left to detect"
ONE_BRANCH = "the overlap grows continuously: there is one branch and no second one to open"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """Sample ratios n/d of the transitions, the overlaps at which they happen, and why some are missing.

    Attributes:
        ratios: Sample ratio by name of `NAMES`; nan where undefined, inf where never reached.
        overlaps: Overlap q by name: that of the branch which opens or wins there.
        reasons: Why a ratio is nan, or infinite for any method, by name.
    """

    ratios: Mapping[str, float]
    overlaps: Mapping[str, float]
    reasons: Mapping[str, str]


def find_lines(curve: FixedPointCurve, *, perfect: float = math.inf) -> Lines:
    """Read all thresholds off the curve; `perfect` is alpha at q = 1, infinite under noise."""
    if curve.erased:
        never, nowhere = dict.fromkeys(NAMES, math.inf), dict.fromkeys(NAMES, 0.0)
        return Lines(ratios=never, overlaps=nowhere, reasons=dict.fromkeys(NAMES, ERASED))
    f = curve.function
    weak = f.instability
    # Sample ratio and overlap by name.
    found = {"weak_recovery": (weak, 0.0), "it_detection": (math.nan, math.nan)}
    reasons = {} if f.power else {"it_detection": OPEN_AT_ZERO}
    if not curve.rising[-1]:
        strong = _exp(curve.levels[:-1].max())
        found |= {"strong_recovery": (strong, 1.0), "spinodal": (perfect, 1.0), "it_strong": (perfect, 1.0)}
    elif curve.stops.size == 2:
        reasons["spinodal"] = ONE_BRANCH
        found |= dict.fromkeys(("strong_recovery", "it_strong"), (weak, 0.0))
        found["spinodal"] = (math.nan, math.nan)
    else:
        strong, spinodal = float(curve.levels[:-2].max()), float(curve.levels[-2])
        it_strong = _equal_free_entropy(curve, spinodal, strong)
        found |= {
            "strong_recovery": (_exp(strong), _upper(curve, strong)),
            "spinodal": (_exp(spinodal), -math.expm1(-curve.stops[-2])),
            "it_strong": (it_strong, _upper(curve, math.log(it_strong))),
        }
    if f.power:
        found["it_detection"] = _detection(curve, weak, perfect)
    ratios, overlaps = ({name: found[name][k] for name in NAMES} for k in (0, 1))
    return Lines(ratios=ratios, overlaps=overlaps, reasons=reasons)


def _detection(curve: FixedPointCurve, weak: float, perfect: float) -> tuple[float, float]:
    """inf over q of -(q + ln(1 - q)) / I(q): where phi first exceeds phi(0) = 0."""
    f = curve.function

    def ratio(x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            information = f.accumulated(x)
            return np.asarray(np.where(information > 0, entropy_cost(x) / information, np.inf))

    grid = np.concatenate([np.geomspace(2e-3, 0.3, 40), np.linspace(0.3, curve.stops[-1], 160)[1:]])
    # The infimum may be an end: q -> 0, or q = 1 without noise.
    return infimum(ratio, grid, *min((weak, 0.0), (perfect, 1.0)))


def _equal_free_entropy(curve: FixedPointCurve, spinodal: float, strong: float) -> float:
    advantage = partial(upper_advantage, curve)
    low, high = spinodal + 1e-12, strong - 1e-12
    if not math.isfinite(high):
        high = low + 1.0
        while advantage(high) < 0:
            high += 1.0
    if advantage(low) >= 0:
        return _exp(spinodal)
    if advantage(high) <= 0:
        return _exp(strong)
    return _exp(brentq(advantage, low, high, xtol=1e-13, rtol=1e-13))


def upper_advantage(curve: FixedPointCurve, log_ratio: float) -> float:
    """Phi on the upper branch less the largest phi on the stable ones below it, at one sample ratio."""
    ratio = np.array([_exp(log_ratio)])
    x = curve.crossings(ratio)[0]
    stable = curve.rising & np.isfinite(x)
    phi = np.where(stable, curve.free_entropy(np.where(stable, x, 0.0), ratio[0]), -np.inf)
    floor = 0.0 if curve.function.power else -np.inf
    return float(phi[-1] - max(floor, phi[:-1].max(initial=-np.inf)))


def _upper(curve: FixedPointCurve, log_ratio: float) -> float:
    if not math.isfinite(log_ratio):
        return math.nan
    return float(-np.expm1(-curve.crossings(np.array([_exp(log_ratio)]))[0, -1]))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
