"""F(q) as a piecewise Chebyshev series in x = -ln(1 - q), refined until two resolutions agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from metier.core.checks import ensure

from .channels import NARROW, AdditiveChannel, Array, Channel, Link
from .kernels import SMALLEST_RATE, series_many

Levels = tuple[int, int, int]
"""Doublings of the nodes of z, of the nodes of the field, of the points of the observation."""

START = 1
MOST = (5, 5, 2)
MOST_TOGETHER = 8
"""Doublings over all axes: what one value may cost."""

SETTLED = 1.0 / 30.0
"""An axis that moves F by less than this share of rtol is laid half as densely."""


ENOUGH = 1.5e9
"""Terms of quadrature, about three seconds of one core, after which nothing more is refined."""


class Layered(Protocol):
    """A channel whose F can be computed with different doublings along each axis."""

    @property
    def spent(self) -> float:
        """Terms of quadrature so far."""

    def at(self, overlaps: Array, levels: Levels) -> Array:
        """F(q) at those doublings, (n_strengths, n_overlaps)."""


def refine_axes(
    channel: Layered, overlaps: Array, values: Array, scale: Array, *, rtol: float
) -> tuple[Array, Array]:
    """Double the axis that still moves F/scale the most until all move it by at most rtol or ENOUGH is spent.

    The errors of the three axes add up, and mostly one of them is to blame: at small overlaps the nodes of
    z, near q = 1 those of the field. Doubling all at once costs 8 times as much for each doubling.

    Args:
        channel: with `at`.
        overlaps: increasing.
        values: F/scale at one doubling of every axis.
        scale: q or 1 at each overlap.
        rtol: relative change to reach.

    Returns:
        F/scale less and with the last doubling of every axis.
    """

    def compute(which: NDArray[np.intp], levels: NDArray[np.intp]) -> Array:
        out = np.empty(which.size)
        for row in np.unique(levels, axis=0):
            here = np.flatnonzero((levels == row).all(axis=1))
            doublings = (int(row[0]), int(row[1]), int(row[2]))
            wide = overlaps[which[here]] <= NARROW  # their fields are laid differently
            for at in filter(np.size, (here[wide], here[~wide])):
                out[at] = channel.at(overlaps[which[at]], doublings)[0] / scale[which[at]]
        return out

    every = np.arange(overlaps.size)
    levels = np.full((overlaps.size, 3), START)
    fine = values.copy()
    axes = np.eye(3, dtype=levels.dtype)
    changes = np.stack([fine - compute(every, levels - axis) for axis in axes], axis=1)
    size = np.maximum(np.abs(fine), SMALLEST_RATE)[:, None]
    idle = np.abs(changes) <= SETTLED * rtol * size
    levels -= idle
    lowered = np.flatnonzero(idle.any(axis=1))
    fine[lowered] = compute(lowered, levels[lowered])
    while True:
        size = np.maximum(np.abs(fine), SMALLEST_RATE)
        free = (levels < np.array(MOST)) & (levels.sum(axis=1) < MOST_TOGETHER)[:, None]
        which = np.flatnonzero((np.abs(changes).sum(axis=1) > rtol * size) & free.any(axis=1))
        if which.size == 0 or channel.spent > ENOUGH:
            break
        axis = np.argmax(np.where(free[which], np.abs(changes[which]), -1.0), axis=1)
        levels[which, axis] += 1
        finer = compute(which, levels[which])
        changes[which, axis] = finer - fine[which]
        fine[which] = finer
    moved = np.abs(changes).sum(axis=1)
    return fine - np.copysign(moved, changes.sum(axis=1)), fine


DEGREE = 8
"""Degree of the series on each panel."""

LEVELS = 3
ONSET_LEVELS = 8
SPLITS = 4
UNRESOLVED = 0.05
"""Relative change of F under refinement beyond which no threshold is said."""

_REGULAR = (0.0, 0.01, 0.05, 0.2, 0.45, 0.8, 1.3, 2.0, 2.8, 3.6, 4.5, 5.5, 7.0, 9.0, 11.5)
_SMALL = tuple(10.0**power for power in range(-9, -2))
_ROUNDING = 1e-11
_ZERO_FIELD = 1e-26
"""F(0) below this share of the largest F is rounding: its root is an expectation that vanishes."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OverlapFunction:
    """F(q) = q^power rate(q), power 1 where F(0) = 0, with the same from half the resolution.

    Attributes:
        edges: Panel edges in x = -ln(1 - q).
        rate: Chebyshev coefficients of rate per panel, (n_panels, degree + 1).
        integral: Chebyshev coefficients of I(q) = int_0^q F per panel.
        power: 0 or 1.
        rate_at_zero: F(0) or F'(0); exactly 0 where it is rounding.
        error: Largest relative change of F under refinement, over the nodes.
        coarse: The function at the lower resolution, None in the coarse one itself.
    """

    edges: Array
    rate: Array
    integral: Array
    power: int
    rate_at_zero: float
    error: float
    coarse: OverlapFunction | None = None

    def __call__(self, overlaps: Array) -> Array:
        """F at overlaps in [0, 1), one-dimensional."""
        q = np.asarray(overlaps, dtype=float)
        rate = series_many(self.edges, self.rate, -np.log1p(-q))
        return np.asarray(rate * q if self.power else rate)

    @property
    def instability(self) -> float:
        """alpha at which overlap 0 stops being stable: 1/F'(0), inf where that is 0; 0 where F(0) > 0."""
        if not self.power:
            return 0.0
        return 1.0 / self.rate_at_zero if self.rate_at_zero > 0 else math.inf

    @property
    def bound(self) -> float:
        """Relative error that F does not exceed on the whole registry (tested there, not proved).

        Twice the change of the nodes under refinement and the last two coefficients of the series, and 1e-11
        of rounding; inf where F vanishes faster than q^power, since no relative error holds there.
        """
        level = np.maximum(np.abs(self.rate[:, 0]) - np.abs(self.rate[:, 1:]).sum(axis=1), SMALLEST_RATE)
        if (level <= SMALLEST_RATE).any():
            return float("inf")
        tail = (np.abs(self.rate[:, -2:]).sum(axis=1) / level).max()
        return float(2.0 * (self.error + tail) + _ROUNDING)

    def accumulated(self, x: Array) -> Array:
        """I(q) = int_0^q F at x = -ln(1 - q)."""
        return np.asarray(series_many(self.edges, self.integral, np.asarray(x, dtype=float)))


def panel_edges(power: int) -> Array:
    """Panels in x; where F(0) > 0 may be tiny, decades down to 1e-9 resolve where F leaves F(0)."""
    return np.array(_REGULAR if power else (0.0, *_SMALL, *_REGULAR[1:]))


def node_overlaps(edges: Array) -> Array:
    """All nodes as overlaps, panels sharing their ends; strictly increasing, the first is 0."""
    return np.asarray(-np.expm1(-_nodes(edges)))


def field_power(channel: Channel) -> int:
    """Return 1 where F(0) = 0, that is where no observation tells the sign of its field; else 0."""
    if channel.link.parity == "even":
        return 1
    probe = tabulate(channel, np.array([0.0, 0.5]), 1)
    return int(bool((probe[:, 0] <= _ZERO_FIELD * probe[:, 1]).all()))


def tabulate(channel: Channel, overlaps: Array, level: int) -> Array:
    """F at increasing overlaps, (n_strengths, n_overlaps)."""
    narrow = int(np.searchsorted(overlaps, NARROW, side="right"))
    parts = [part for part in (overlaps[:narrow], overlaps[narrow:]) if part.size]
    return np.concatenate([channel.overlap(part, level) for part in parts], axis=1)


def rates(channel: Channel, overlaps: Array, power: int, level: int, *, onset: Array | None = None) -> Array:
    """F / q^power at increasing overlaps that start at 0."""
    if power == 0:
        return tabulate(channel, overlaps, level)
    first = channel.onset(level) if onset is None else onset
    rest = tabulate(channel, overlaps[1:], level) / overlaps[1:]
    return np.concatenate([first[:, None], rest], axis=1)


def refined(channel: Channel, *, rtol: float, power: int | None = None) -> OverlapFunction:
    """F of a channel at one strength, refined in its nodes and in its panels.

    Each value is recomputed with nodes doubled until that moves it by at most rtol; each panel whose
    last coefficients still exceed rtol and the errors of its nodes is halved. What never settles keeps its
    finest value, and `error` says by how much it still moved.
    """
    power = field_power(channel) if power is None else power
    edges = panel_edges(power)
    known: dict[float, tuple[float, float]] = {}
    if power:
        onsets = settled_onset(channel, rtol=rtol)
        known[0.0] = (float(onsets[0][0]), float(onsets[1][0]))
    for left in range(SPLITS, -1, -1):
        _learn(channel, _nodes(edges), known, power, rtol)
        coarse, fine = np.array([known[x] for x in _nodes(edges).tolist()]).T
        wide = _unresolved(_coefficients(fine), rtol, _largest(np.abs(fine - coarse)))
        if not (left and wide.any()):
            break
        edges = np.sort(np.r_[edges, 0.5 * (edges[:-1] + edges[1:])[wide]])
    function = assemble(edges, fine, coarse, power)
    ensure(
        function.error <= UNRESOLVED,
        "thresholds resolve features of the activation down to the noise",
        expected=f"an overlap function that a doubling of nodes moves by at most {UNRESOLVED:.0%}",
        got=f"{function.error:.2g} for {getattr(channel.link, 'name', 'this activation')}",
        next_step="Lower snr, or widen the narrowest feature of the activation.",
    )
    return function


def _learn(
    channel: Channel, nodes: Array, known: dict[float, tuple[float, float]], power: int, rtol: float
) -> None:
    """Add F/q^power at nodes not seen yet, at the last two resolutions."""
    x = np.array([node for node in nodes.tolist() if node not in known])
    if x.size == 0:
        return
    q = -np.expm1(-x)
    scale = q if power else np.ones_like(q)
    coarse, fine = (tabulate(channel, q, level)[0] / scale for level in (0, 1))
    missed = np.flatnonzero(relative_change(coarse, fine) > rtol)
    if missed.size and isinstance(channel, AdditiveChannel):
        coarse[missed], fine[missed] = refine_axes(channel, q[missed], fine[missed], scale[missed], rtol=rtol)
        missed = missed[:0]
    for level in range(2, LEVELS + 1):
        if missed.size == 0:
            break
        coarse[missed] = fine[missed]
        fine[missed] = tabulate(channel, q[missed], level)[0] / scale[missed]
        missed = np.flatnonzero(relative_change(coarse, fine) > rtol)
    known |= dict(zip(x.tolist(), zip(coarse.tolist(), fine.tolist(), strict=True), strict=True))


def _unresolved(coefficients: Array, rtol: float, noise: Array) -> NDArray[np.bool_]:
    """Which panels have last coefficients above rtol of their mean and above the errors of their nodes."""
    tail = np.abs(coefficients[:, -2:]).sum(axis=1)
    return np.asarray(tail > np.maximum(np.maximum(rtol * np.abs(coefficients[:, 0]), SMALLEST_RATE), noise))


def _largest(values: Array) -> Array:
    """Largest of the values at each panel's nodes."""
    return np.asarray(np.maximum(values[:-1].reshape(-1, DEGREE).max(axis=1), values[DEGREE::DEGREE]))


def settled_onset(channel: Channel, *, rtol: float) -> tuple[Array, Array]:
    """F'(0) where F(0) = 0, per strength, at the last two resolutions of a doubling that has settled."""
    coarse, fine = channel.onset(1), channel.onset(2)
    for level in range(3, ONSET_LEVELS + 1):
        if not (relative_change(coarse, fine) > rtol).any():
            break
        coarse, fine = fine, channel.onset(level)
    return coarse, fine


def weak_recovery_values(link: Link, snrs: Array, *, rtol: float = 1e-9) -> tuple[Array, Array]:
    """1/E_y[(E[z^2 - 1 | y])^2] at each snr and its relative change under the last refinement."""
    coarse, fine = settled_onset(AdditiveChannel(link, snrs), rtol=rtol)
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / np.where(fine > SMALLEST_RATE, fine, 0.0)), relative_change(coarse, fine)


def assemble(
    edges: Array, fine: Array, coarse: Array, power: int, *, error: float | None = None
) -> OverlapFunction:
    """Fit the series; the coarse one also drops its highest degree, so that it shows both errors."""
    change = float(relative_change(coarse, fine).max()) if error is None else error
    lower = _fit(edges, coarse, power, error=float("nan"), keep=DEGREE - 1)
    return _fit(edges, fine, power, error=change, keep=DEGREE, coarse=lower)


def relative_change(coarse: Array, fine: Array) -> Array:
    """|fine / coarse - 1| with vanishing entries counted as settled."""
    return np.asarray(np.abs(fine - coarse) / np.maximum(np.abs(fine), SMALLEST_RATE))


def _fit(
    edges: Array, values: Array, power: int, *, error: float, keep: int, coarse: OverlapFunction | None = None
) -> OverlapFunction:
    at_zero = float(values[0])
    if power and at_zero < SMALLEST_RATE:
        values, at_zero = np.r_[0.0, values[1:]], 0.0
    rate = np.ascontiguousarray(_coefficients(values)[:, : keep + 1])
    return OverlapFunction(
        edges=edges,
        rate=rate,
        integral=_integrate(edges, rate, power),
        power=power,
        rate_at_zero=at_zero,
        error=error,
        coarse=coarse,
    )


def _coefficients(values: Array) -> Array:
    """Chebyshev coefficients per panel from values at all nodes."""
    index = np.arange(0, values.size - 1, DEGREE)[:, None] + np.arange(DEGREE + 1)
    return np.asarray(values[index] @ _TO_COEFFICIENTS.T)


def _integrate(edges: Array, rate: Array, power: int) -> Array:
    half = 0.5 * np.diff(edges)
    x = 0.5 * (edges[1:] + edges[:-1])[:, None] + half[:, None] * _POINTS
    F = rate @ _AT_POINTS[: rate.shape[1]] * (-np.expm1(-x)) ** power
    pieces = (F * np.exp(-x)) @ _TO_INTEGRAL * half[:, None]
    pieces[:, 0] += np.r_[0.0, np.cumsum(pieces.sum(axis=1))[:-1]]
    return np.ascontiguousarray(pieces)


def _nodes(edges: Array) -> Array:
    unit = 0.5 * (1.0 - np.cos(np.pi * np.arange(1, DEGREE + 1) / DEGREE))
    return np.concatenate([edges[:1], (edges[:-1, None] + np.diff(edges)[:, None] * unit).ravel()])


_TO_COEFFICIENTS = np.linalg.inv(
    chebyshev.chebvander(-np.cos(np.pi * np.arange(DEGREE + 1) / DEGREE), DEGREE)
)

# dI/dx = F(q) dq/dx with q = 1 - exp(-x): a series of twice the degree holds the product to rounding.
_POINTS = chebyshev.chebpts1(2 * DEGREE + 6)
_AT_POINTS = chebyshev.chebvander(_POINTS, DEGREE).T
_TO_INTEGRAL = (
    chebyshev.chebint(np.eye(_POINTS.size), lbnd=-1, axis=0)
    @ np.linalg.inv(chebyshev.chebvander(_POINTS, _POINTS.size - 1))
).T
