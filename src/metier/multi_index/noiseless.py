"""The limit of no noise: y = sigma(z), or its sign, pins z down to finitely many points or cells."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.special import ndtr

from metier.core.checks import ensure

from .channels import REACH, Array, Link, cells_rule, density, evaluate, field_rule

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
        np.concatenate(
            [
                np.linspace(a, b, max(2, int(np.ceil((b - a) / _PANEL))) + 1)
                for a, b in itertools.pairwise(cells)
            ]
        )
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
    found = _bisected(lambda x: (evaluate(link, x) >= y) == rising, low, high)
    x = np.where(own, z[:, None], found)
    steepness = np.abs(branches.slope(x.ravel()).reshape(x.shape))
    return x, np.where(exists | own, 1.0 / np.maximum(steepness, 1e-300), 0.0)


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
    changes = _bisected(lambda x: (evaluate(link, x) > 0) != positive[turns], grid[turns], grid[turns + 1])
    if kinks.size and changes.size:
        nearest = kinks[np.abs(changes[:, None] - kinks).argmin(axis=1)]
        changes = np.where(np.abs(nearest - changes) < 1e-8, nearest, changes)
    return changes, np.r_[positive[0], positive[turns + 1]]


def _critical(low: Array, high: Array, slopes: Array) -> list[float]:
    """Zeros of sigma' with a change of sign inside one smooth cell."""
    grid = np.linspace(-1.0, 1.0, 33)
    middle, half = 0.5 * (low + high), 0.5 * (high - low)

    def slope(x: Array) -> Array:
        j = np.clip(np.searchsorted(low, x, side="right") - 1, 0, low.size - 1)
        return np.asarray(chebyshev.chebval((x - middle[j]) / half[j], slopes[j].T, tensor=False))

    z = (middle[:, None] + half[:, None] * grid).ravel()
    values = chebyshev.chebval(grid, slopes.T).ravel()
    clear = np.abs(values) > 1e-11 * np.abs(values).max()
    z, signs = z[clear], np.sign(values[clear])
    turns = np.flatnonzero(signs[1:] != signs[:-1])
    found = _bisected(lambda x: np.sign(slope(x)) != signs[turns], z[turns], z[turns + 1])
    return list(map(float, found))


def _bisected(beyond: Callable[[Array], NDArray[np.bool_]], low: Array, high: Array) -> Array:
    """Where `beyond` starts to hold between low and high, entry by entry."""
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        past = beyond(middle)
        low, high = np.where(past, low, middle), np.where(past, middle, high)
    return np.asarray(0.5 * (low + high))


_SMALLEST = 1e-280


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StepLink:
    """A piecewise constant function: levels[i] between kinks[i - 1] and kinks[i]."""

    kinks: tuple[float, ...]
    levels: tuple[float, ...]
    parity: str | None = None

    def __call__(self, z: Array) -> Array:
        """The level at z."""
        return np.asarray(self.levels)[np.searchsorted(np.asarray(self.kinks), np.asarray(z), side="right")]


class NoiselessChannel:
    """y = sigma(z): an atom for every flat level, and a density over the preimages of every other value.

    On the density part F = E_z E_{omega | z}[g^2], with posterior weights phi((x_i - omega)/sd)/|sigma'(x_i)|
    on the preimages x_i of sigma(z): the preimages do not depend on the overlap and are found once.

    Attributes:
        perfect_recovery: alpha at q = 1: 1/P(sigma' != 0), since (1 - q) F(q) tends to that probability.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.branches = branches_of(link)
        b = self.branches
        flat = float((ndtr(b.flat_high) - ndtr(b.flat_low)).sum())
        self.perfect_recovery = 1.0 / (1.0 - flat) if b.low.size else np.inf
        self._grid = cache(self._lay)

    def overlap(self, overlaps: Array, level: int) -> Array:
        """F(q), (1, n_overlaps)."""
        total = np.array([self._density_part(float(q), level) for q in overlaps])
        return np.asarray((total + self._atoms(overlaps, level))[None, :])

    def onset(self, level: int) -> Array:
        """E_y[(E[z^2 - 1 | y])^2], (1,)."""
        z, lengths, x, weight = self._grid(level)
        mass = weight * density(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            T = np.where(mass.sum(axis=1) > 0, (mass * (x * x - 1)).sum(axis=1) / mass.sum(axis=1), 0.0)
        total = float((lengths * density(z)) @ T**2) if z.size else 0.0
        b = self.branches
        moment = _tail(b.flat_low) - _tail(b.flat_high)
        mass_flat = ndtr(b.flat_high) - ndtr(b.flat_low)
        for value in np.unique(b.flat_level):
            same = b.flat_level == value
            total += float(moment[same].sum() ** 2 / mass_flat[same].sum())
        return np.array([total])

    def _density_part(self, q: float, level: int) -> float:
        z, lengths, x, weight = self._grid(level)
        if z.size == 0:
            return 0.0
        half = 36 * 2**level
        t = np.linspace(-REACH, REACH, 2 * half + 1)
        outer = (lengths * density(z))[:, None] * (density(t) * (t[1] - t[0]))[None, :]
        omega = q * z[:, None] + np.sqrt(q * (1 - q)) * t
        top = np.zeros_like(omega)
        bottom = np.zeros_like(omega)
        # Relative to the branch of z itself, whose weight is never the smallest by much.
        own = (z[:, None] - omega) ** 2
        for j in np.flatnonzero((weight > 0).any(axis=0)):
            exponent = 0.5 * (own - (x[:, j : j + 1] - omega) ** 2) / (1 - q)
            w = weight[:, j : j + 1] * np.exp(np.minimum(exponent, 600.0))
            top += w * x[:, j : j + 1]
            bottom += w
        g = (top / np.maximum(bottom, _SMALLEST) - omega) / (1 - q)
        return float((outer * g * g).sum())

    def _atoms(self, overlaps: Array, level: int) -> Array:
        b = self.branches
        total = np.zeros(overlaps.size)
        if b.flat_level.size == 0:
            return total
        kinks = np.unique(np.r_[b.flat_low, b.flat_high])
        kinks = kinks[np.isfinite(kinks)]
        symmetric = self.link.parity in ("even", "odd")
        fields, outer = field_rule(overlaps, kinks, level, symmetric=symmetric)
        centers, spread = np.sqrt(overlaps)[:, None] * fields, np.sqrt(1 - overlaps)[:, None]
        _, mass, slope = cells_rule(kinks, np.zeros(kinks.size + 1), centers, spread)
        start = np.searchsorted(np.r_[-np.inf, kinks], b.flat_low)
        for value in np.unique(b.flat_level):
            cells = start[b.flat_level == value]
            Z, N = mass[..., cells].sum(axis=-1), slope[..., cells].sum(axis=-1)
            total += (outer * np.where(Z > _SMALLEST, N * N / np.maximum(Z, _SMALLEST), 0.0)).sum(axis=1)
        return total

    def _lay(self, level: int) -> tuple[Array, Array, Array, Array]:
        b = self.branches
        none = np.empty(0)
        if b.low.size == 0:
            return none, none, np.empty((0, 0)), np.empty((0, 0))
        ends = np.unique(np.r_[b.low, b.high])
        # The number of preimages changes where sigma passes the value at any end of a branch.
        shadows, weight = preimages(self.link, b, np.r_[b.low + 1e-12, b.high - 1e-12])
        breaks = np.r_[ends, shadows[weight > 0]]
        symmetric = self.link.parity in ("even", "odd")
        z, lengths = graded_rule(breaks, 6 * 2**level, low=0.0 if symmetric else -REACH)
        on_branch = ((b.low < z[:, None]) & (z[:, None] < b.high)).any(axis=1)
        z, lengths = z[on_branch], lengths[on_branch] * (2.0 if symmetric else 1.0)
        return z, lengths, *preimages(self.link, b, z)


class NoiselessSignChannel(NoiselessChannel):
    """y = +1 where sigma(z) > 0 and -1 elsewhere."""

    def __init__(self, link: Link) -> None:
        changes, positive = sign_changes(link)
        ensure(
            changes.size != 0,
            "a noiseless sign label depends on z",
            expected="an activation that takes both signs",
            got="one that never changes sign",
            next_step="Subtract a threshold from the activation, or pass a finite snr.",
        )
        levels = tuple(1.0 if up else -1.0 for up in positive)
        super().__init__(StepLink(kinks=tuple(map(float, changes)), levels=levels, parity=link.parity))


def _tail(z: Array) -> Array:
    finite = np.where(np.isfinite(z), z, 0.0)
    return np.asarray(finite * density(finite))
