"""The thresholds that one curve of fixed points carries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from .fixed_points import FixedPointCurve, entropy_cost, zoom
from .posterior import Array

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
    weak = (1.0 / f.rate_at_zero if f.rate_at_zero > 0 else math.inf) if f.power else 0.0
    ratios = {"weak_recovery": weak}
    overlaps = {"weak_recovery": 0.0}
    reasons: dict[str, str] = {}
    ends_perfect = not bool(curve.rising[-1])
    if ends_perfect:
        ratios |= {
            "strong_recovery": _exp(curve.levels[:-1].max()),
            "spinodal": perfect,
            "it_strong": perfect,
        }
        overlaps |= {"strong_recovery": 1.0, "spinodal": 1.0, "it_strong": 1.0}
    elif curve.stops.size == 2:
        ratios |= {"strong_recovery": weak, "spinodal": math.nan, "it_strong": weak}
        overlaps |= {"strong_recovery": 0.0, "spinodal": math.nan, "it_strong": 0.0}
        reasons["spinodal"] = ONE_BRANCH
    else:
        strong, spinodal = float(curve.levels[:-2].max()), float(curve.levels[-2])
        it_strong = _equal_free_entropy(curve, spinodal, strong)
        ratios |= {"strong_recovery": _exp(strong), "spinodal": _exp(spinodal), "it_strong": it_strong}
        overlaps |= {
            "strong_recovery": _upper(curve, strong),
            "spinodal": -math.expm1(-curve.stops[-2]),
            "it_strong": _upper(curve, math.log(it_strong)),
        }
    if f.power:
        ratios["it_detection"], overlaps["it_detection"] = _detection(curve, weak, perfect)
    else:
        ratios["it_detection"], overlaps["it_detection"] = math.nan, math.nan
        reasons["it_detection"] = OPEN_AT_ZERO
    return Lines(ratios=ratios, overlaps=overlaps, reasons=reasons)


def _detection(curve: FixedPointCurve, weak: float, perfect: float) -> tuple[float, float]:
    """inf over q of -(q + ln(1 - q)) / I(q): where phi first exceeds phi(0) = 0."""
    f = curve.function

    def ratio(x: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            information = f.accumulated(x)
            return np.asarray(np.where(information > 0, entropy_cost(x) / information, np.inf))

    grid = np.concatenate([np.geomspace(2e-3, 0.3, 40), np.linspace(0.3, curve.stops[-1], 160)[1:]])
    k = int(np.argmin(ratio(grid)))
    x, value = zoom(ratio, grid[max(k - 1, 0)], grid[min(k + 1, grid.size - 1)])
    if min(weak, perfect) <= value * (1 + 1e-9):  # the infimum is an end: q -> 0, or q = 1 without noise
        return (weak, 0.0) if weak <= perfect else (perfect, 1.0)
    return value, -math.expm1(-x)


def _equal_free_entropy(curve: FixedPointCurve, spinodal: float, strong: float) -> float:
    def advantage(log_ratio: float) -> float:
        return upper_advantage(curve, log_ratio)

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
