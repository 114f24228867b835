"""Where an activation takes one value: flat cells, monotone branches, preimages and slopes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

from .posterior import REACH, Array, Link, evaluate

_PANEL = 0.25
_DEGREE = 12
_BISECTIONS = 60


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Branches:
    """The line [-9, 9] cut into flat cells and into intervals on which sigma is strictly monotone.

    Attributes:
        low, high: Ends of the monotone intervals.
        flat_low, flat_high, flat_level: Ends and values of the flat cells, the outer ones infinite.
        slopes: Chebyshev coefficients of sigma' on short panels, with their edges.
    """

    low: Array
    high: Array
    flat_low: Array
    flat_high: Array
    flat_level: Array
    edges: Array
    slopes: Array

    def slope(self, z: Array) -> Array:
        """sigma'(z), from the panel that holds z."""
        panel = np.clip(np.searchsorted(self.edges, z, side="right") - 1, 0, self.edges.size - 2)
        left, right = self.edges[panel], self.edges[panel + 1]
        x = (2 * z - left - right) / (right - left)
        return np.asarray(chebyshev.chebval(x, self.slopes[panel].T, tensor=False))


def branches_of(link: Link) -> Branches:
    """Cut the line at kinks and critical points."""
    kinks = np.asarray(link.kinks, dtype=float)
    kinks = kinks[np.abs(kinks) < REACH]
    cells = np.r_[-REACH, kinks, REACH]
    edges = np.unique(
        np.concatenate([np.linspace(a, b, _pieces(a, b) + 1) for a, b in itertools.pairwise(cells)])
    )
    points = chebyshev.chebpts1(_DEGREE + 1)
    half, middle = 0.5 * np.diff(edges)[:, None], 0.5 * (edges[1:] + edges[:-1])[:, None]
    values = evaluate(link, middle + half * points)
    slopes = (chebyshev.chebder(chebyshev.chebfit(points, values.T, _DEGREE), axis=0) / half.T).T
    flat_panel = values.max(axis=1) == values.min(axis=1)
    low, high, flats = [], [], []
    for a, b in itertools.pairwise(cells):
        inside = (edges[:-1] >= a) & (edges[1:] <= b)
        if flat_panel[inside].all():
            outer = (-np.inf if a == -REACH else a, np.inf if b == REACH else b)
            flats.append((*outer, float(values[inside][0, 0])))
            continue
        ends = [a, *_critical(edges[:-1][inside], edges[1:][inside], slopes[inside]), b]
        low += ends[:-1]
        high += ends[1:]
    flat = np.array(flats).reshape(-1, 3)
    return Branches(
        low=np.array(low),
        high=np.array(high),
        flat_low=flat[:, 0],
        flat_high=flat[:, 1],
        flat_level=flat[:, 2],
        edges=edges,
        slopes=slopes,
    )


def preimages(link: Link, branches: Branches, z: Array) -> tuple[Array, Array]:
    """Return every point x with sigma(x) = sigma(z), (n, n_branches), and 1/|sigma'(x)|, 0 where none is."""
    y = evaluate(link, z)[:, None]
    inside = 1e-13 * (branches.high - branches.low)
    low = np.broadcast_to(branches.low + inside, (z.size, branches.low.size)).copy()
    high = np.broadcast_to(branches.high - inside, low.shape).copy()
    at_low, at_high = evaluate(link, low), evaluate(link, high)
    rising = at_high > at_low
    exists = (np.minimum(at_low, at_high) <= y) & (y <= np.maximum(at_low, at_high))
    own = (branches.low < z[:, None]) & (z[:, None] < branches.high)
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        above = (evaluate(link, middle) >= y) == rising
        high = np.where(above, middle, high)
        low = np.where(above, low, middle)
    x = np.where(own, z[:, None], 0.5 * (low + high))
    steepness = np.abs(branches.slope(x.ravel()).reshape(x.shape))
    weight = np.where(exists | own, 1.0 / np.maximum(steepness, 1e-300), 0.0)
    return x, weight


def graded_rule(breaks: Array, points: int, *, low: float) -> tuple[Array, Array]:
    """Gauss-Legendre on [low, 9] with panels that shrink toward every break: nodes and length weights."""
    inner = np.unique(np.clip(np.r_[low, breaks, REACH], low, REACH))
    inner = inner[np.r_[True, np.diff(inner) > 1e-9]]
    shrink = 0.5 * 0.15 ** np.arange(1, 8)
    share = np.r_[0.0, shrink[::-1], 0.5, 1.0 - shrink, 1.0]
    edges = [inner[0] + 0 * share[:1]]
    for a, b in itertools.pairwise(inner):
        cuts = a + (b - a) * share
        wide = int(np.ceil((b - a) / 4.0))
        cuts = np.unique(np.r_[cuts, np.linspace(a, b, 4 * wide + 1)])
        edges.append(cuts[1:])
    ends = np.concatenate(edges)
    nodes, weights = np.polynomial.legendre.leggauss(points)
    half, middle = 0.5 * np.diff(ends)[:, None], 0.5 * (ends[1:] + ends[:-1])[:, None]
    return (middle + half * nodes).ravel(), (half * weights).ravel()


def sign_changes(link: Link) -> tuple[Array, Array]:
    """Return where sigma > 0 begins or ends on [-9, 9], and for each cell between whether it is positive."""
    kinks = np.asarray(link.kinks, dtype=float)
    grid = np.unique(np.r_[np.linspace(-REACH, REACH, 3601) + 1e-7, kinks - 1e-9, kinks + 1e-9])
    positive = evaluate(link, grid) > 0
    turns = np.flatnonzero(positive[1:] != positive[:-1])
    low, high, left = grid[turns], grid[turns + 1], positive[turns]
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        same = (evaluate(link, middle) > 0) == left
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    changes = 0.5 * (low + high)
    nearest = (
        kinks[np.abs(changes[:, None] - kinks).argmin(axis=1)] if kinks.size and changes.size else changes
    )
    changes = np.where(np.abs(nearest - changes) < 1e-8, nearest, changes)
    return changes, np.r_[positive[0], positive[turns + 1]]


def _pieces(a: float, b: float) -> int:
    return max(2, int(np.ceil((b - a) / _PANEL)))


def _critical(low: Array, high: Array, slopes: Array) -> list[float]:
    """Zeros of sigma' with a change of sign inside one smooth cell."""
    grid = np.linspace(-1.0, 1.0, 33)
    found: list[float] = []
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    z = (middle[:, None] + half[:, None] * grid).ravel()
    values = np.concatenate([chebyshev.chebval(grid, c) for c in slopes])
    panel = np.repeat(np.arange(low.size), grid.size)
    scale = np.abs(values).max()
    keep = np.abs(values) > 1e-11 * scale
    z, values, panel = z[keep], values[keep], panel[keep]
    for k in np.flatnonzero(np.sign(values[1:]) != np.sign(values[:-1])):
        a, b, sign = z[k], z[k + 1], np.sign(values[k])
        for _ in range(_BISECTIONS):
            c = 0.5 * (a + b)
            j = int(np.clip(np.searchsorted(low, c, side="right") - 1, 0, low.size - 1))
            if np.sign(chebyshev.chebval((c - middle[j]) / half[j], slopes[j])) == sign:
                a = c
            else:
                b = c
        found.append(float(0.5 * (a + b)))
    return found
