"""Refinement of F one axis at a time: nodes of z, nodes of the field, steps of the observation."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .kernels import SMALLEST_RATE
from .posterior import NARROW, Array

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
            for some in _sides(overlaps[which[here]]):
                at = here[some]
                doublings = (int(row[0]), int(row[1]), int(row[2]))
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
        open_ = (np.abs(changes).sum(axis=1) > rtol * size) & free.any(axis=1)
        which = np.flatnonzero(open_)
        if which.size == 0 or channel.spent > ENOUGH:
            break
        axis = np.argmax(np.where(free[which], np.abs(changes[which]), -1.0), axis=1)
        levels[which, axis] += 1
        finer = compute(which, levels[which])
        changes[which, axis] = finer - fine[which]
        fine[which] = finer
    moved = np.abs(changes).sum(axis=1)
    return fine - np.copysign(moved, changes.sum(axis=1)), fine


def _sides(overlaps: Array) -> list[NDArray[np.intp]]:
    """Wide and narrow posteriors apart: their fields are laid differently."""
    wide = overlaps <= NARROW
    return [some for some in (np.flatnonzero(wide), np.flatnonzero(~wide)) if some.size]
