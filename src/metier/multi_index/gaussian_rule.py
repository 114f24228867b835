"""Gaussian expectations in floats: Gauss-Legendre panels, refined until they hold, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from metier.core.errors import InputError

Floats = NDArray[np.float64]
Vectorized = Callable[[Floats], Floats]

REACH = 26.0
"""Panels cover [-REACH, REACH]; the density is 1e-147 of its peak there."""

POINTS = 20
TOLERANCE = 1e-12

SEEN = 13.0
"""No rule of the theory looks farther out."""

NARROWEST = 6e-4
"""A panel of a callable that is still rough at this width holds a kink or a jump."""

NARROW_PANEL = 0.3
"""Panels start 1 wide; borders of those that end below this mark what the activation does suddenly."""

SINGULAR = 1e-8
"""The same for an expression, whose kinks are known: what is left there is a pole."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """Nodes and weights with sum_i w_i g(z_i) = E g(z), and the activation's values at the nodes.

    Attributes:
        narrow: Borders of the panels that had to be made narrower than NARROW_PANEL, increasing.
    """

    nodes: Floats
    weights: Floats
    values: Floats
    narrow: Floats


@lru_cache(maxsize=1)
def _legendre() -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    return nodes, weights


def gaussian_rule(function: Vectorized, kinks: tuple[float, ...], *, known: bool, name: str) -> Rule:
    """Return a rule for E under N(0, 1), refined until sigma and sigma^2 no longer change.

    Args:
        function: the activation, vectorized.
        kinks: panel borders that must be there.
        known: the kinks are proved complete, so a panel that stays rough is steep and not broken.
        name: for messages.

    Raises:
        InputError: values that are not finite, an infinite variance, or a kink that was not declared.
    """
    inside = [k for k in kinks if abs(k) < REACH]
    borders = np.unique(np.concatenate([np.linspace(-REACH, REACH, 53), inside]))
    low, high = borders[:-1], borders[1:]
    kept: list[tuple[Floats, Floats]] = []
    scale = max(float(np.abs(_totals(function, low, high, name)).sum()), 1e-300)
    while low.size:
        middle = 0.5 * (low + high)
        whole = _totals(function, low, high, name)
        halves = _totals(function, low, middle, name) + _totals(function, middle, high, name)
        # The first panels may step over a narrow feature, and then hold next to nothing.
        scale = max(scale, float(np.abs(halves).sum()))
        rough = np.abs(whole - halves) > TOLERANCE * scale
        kept.append((low[~rough], high[~rough]))
        narrow = rough & (high - low < (SINGULAR if known else NARROWEST))
        if narrow.any():
            at = float(middle[narrow][0])
            raise _singular(at, name) if known else _undeclared(at, name)
        low, high = np.concatenate([low[rough], middle[rough]]), np.concatenate([middle[rough], high[rough]])
    rule = _assembled(function, kept)
    _check_variance(rule, name)
    return rule


def _points(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    nodes, weights = _legendre()
    half = 0.5 * (high - low)[:, None]
    z = 0.5 * (low + high)[:, None] + half * nodes
    return z, half * weights * np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)


def _totals(function: Vectorized, low: Floats, high: Floats, name: str) -> Floats:
    """E of sigma + sigma^2 with a tilt, per panel; the tilt keeps odd errors from cancelling."""
    z, w = _points(low, high)
    values = _values(function, z, w, name)
    out: Floats = (w * (1.0 + 0.1 * z) * (values + values * values)).sum(axis=1)
    return out


def _values(function: Vectorized, z: Floats, w: Floats, name: str) -> Floats:
    with np.errstate(all="ignore"):
        values = np.asarray(function(z), dtype=np.float64)
        squares = values * values * w
    bad = ~np.isfinite(squares)
    if bad.any():
        first = int(np.argmin(np.where(bad, np.abs(z), np.inf)))
        at, value = float(z.flat[first]), float(values.flat[first])
        if abs(at) > 5.0 and not np.isnan(value):
            raise _not_integrable(name)
        raise InputError(
            "an activation is finite",
            expected="finite real values",
            got=f"{value} at z = {at:.6g} from {name}",
            next_step="Restrict or repair the function there.",
        )
    return values


def _assembled(function: Vectorized, kept: list[tuple[Floats, Floats]]) -> Rule:
    low = np.concatenate([a for a, _ in kept])
    order = np.argsort(low)
    low, high = low[order], np.concatenate([b for _, b in kept])[order]
    z, w = _points(low, high)
    small = (high - low < NARROW_PANEL) & (np.maximum(np.abs(low), np.abs(high)) < SEEN)
    nodes, weights = z.ravel(), w.ravel()
    with np.errstate(all="ignore"):
        values = np.asarray(function(nodes), dtype=np.float64)
    return Rule(nodes, weights, values, np.unique(np.r_[low[small], high[small]]))


def _check_variance(rule: Rule, name: str) -> None:
    mass = rule.weights * rule.values**2
    outer = float(mass[np.abs(rule.nodes) > 0.8 * REACH].sum())
    if outer > 1e-10 * max(float(mass.sum()), 1e-300):
        raise _not_integrable(name)


def _not_integrable(name: str) -> InputError:
    return InputError(
        "an activation has a finite variance under the Gaussian",
        expected="growth below exp(z^2/4)",
        got=f"{name}, whose E[sigma(z)^2] is infinite or beyond floats",
        next_step="Scale its argument down, or clip it.",
    )


def _singular(at: float, name: str) -> InputError:
    return InputError(
        "an activation has a finite variance under the Gaussian",
        expected="no pole, and no slope that floats cannot resolve",
        got=f"{name}, which is singular near z = {round(at, 6) + 0.0:g}",
        next_step="Smooth or clip it there.",
    )


def _undeclared(at: float, name: str) -> InputError:
    shown = round(at, 3) + 0.0
    return InputError(
        "a callable declares every kink",
        expected="a smooth function between the declared kinks",
        got=f"{name}, which has a kink or a jump near z = {shown:g}",
        next_step=f"Pass kinks=({shown:g},) with all its kinks, or write it as an expression.",
    )
