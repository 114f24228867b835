"""Output channels: F(q) and F'(0) of each, by quadrature over z | V and V, split at kinks and steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from scipy.special import ndtr

from metier.core import InputError, available_cpus
from metier.core.checks import ensure

from .kernels import WINDOW, additive_sums

Array = NDArray[np.float64]

REACH = 9.0
"""Standard deviations that every normal integral covers: 1e-18 of the mass lies beyond."""

NARROW = 0.5
"""Overlap above which fields are laid twice as densely: a narrow posterior shows them the link itself."""

_INNER_EDGES = (-5.0, -2.4, 0.0, 2.4, 5.0)
_OUTER_EDGES = (-4.0, -1.5, 1.5, 4.0)
_KINK_EDGES = (-6.0, -2.0, 0.0, 2.0, 6.0)
_NONE = np.empty(0)
_PROBES = np.r_[1e-3, (np.arange(1, 1000) * 0.6180339887498949) % 1.0, 1 - 1e-3]
"""Where a callable is probed for being constant, in shares of a cell; an expression is asked exactly."""

_INNER_POINTS = 8
_OUTER_POINTS = 7


class Link(Protocol):
    """What the theory needs of an activation: values, where it is not smooth, and its symmetry."""

    @property
    def kinks(self) -> Sequence[float]:
        """Points where the function or its derivative jumps, increasing."""

    @property
    def parity(self) -> str | None:
        """`"even"`, `"odd"` or None."""

    def __call__(self, z: Array, /) -> Array:
        """Values at z."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Posterior:
    """Signals and weights of z | V for every (overlap, field): sums over the last axis are expectations.

    Attributes:
        values: sigma(z), (n_overlaps, n_fields, n_nodes).
        mass: Weights of E[.]; same shape.
        slope: Weights of E[(z - omega)/(1 - q) .]; same shape.
        outer: Weights of E_V, (n_overlaps, n_fields).
    """

    values: Array
    mass: Array
    slope: Array
    outer: Array


def posterior(link: Link, overlaps: Array, level: int, inner: int | None = None) -> Posterior:
    """Lay nodes for overlaps q in [0, 1): `level` doubles those of the field, `inner` those of z."""
    spread = np.sqrt(1.0 - overlaps)[:, None]
    kinks = np.asarray(link.kinks, dtype=float)
    symmetric = link.parity in ("even", "odd")
    narrow = features(link)
    fields, outer = field_rule(overlaps, kinks, level, symmetric=symmetric, narrow=narrow)
    centers = np.sqrt(overlaps)[:, None] * fields
    levels = step_levels(link)
    if levels is not None:
        values, mass, slope = cells_rule(kinks, levels, centers, spread)
    else:
        cuts = np.sort(np.r_[kinks, narrow])
        nodes, mass = normal_rule(centers, spread, cuts, level if inner is None else inner)
        values = evaluate(link, centers[..., None] + spread[..., None] * nodes)
        slope = mass * nodes / spread[..., None]
    return Posterior(values=values, mass=mass, slope=slope, outer=outer)


def values_per_overlap(link: Link, level: int, inner: int) -> int:
    """How many values of sigma `posterior` lays out for one overlap (an upper bound)."""
    kinks, finer, finest = len(link.kinks) + len(features(link)), 1 << level, 1 << inner
    if kinks == 0:
        return (72 * finer + 1) * (72 * finest + 1)
    if step_levels(link) is not None:
        return (kinks * len(_KINK_EDGES) + len(_OUTER_EDGES) + 1) * _OUTER_POINTS * finer * (kinks + 1)
    fields = (kinks * len(_KINK_EDGES) + len(_OUTER_EDGES) + 1) * _OUTER_POINTS * finer
    return fields * (kinks + len(_INNER_EDGES) + 1) * _INNER_POINTS * finest


def prior(link: Link, level: int) -> tuple[Array, Array, Array]:
    """Return sigma(z), the weights of E[.] and of E[(z^2 - 1) .] for z ~ N(0, 1), one-dimensional."""
    zero, one = np.zeros((1, 1)), np.ones((1, 1))
    kinks, levels = np.asarray(link.kinks, dtype=float), step_levels(link)
    if levels is None:
        cuts = np.sort(np.r_[kinks, features(link)])
        nodes, mass = (part[0, 0] for part in normal_rule(zero, one, cuts, level))
        return evaluate(link, nodes), mass, mass * (nodes - 1.0) * (nodes + 1.0)
    values, mass, _ = (part[0, 0] for part in cells_rule(kinks, levels, zero, one))
    moment = np.r_[0.0, kinks * density(kinks), 0.0]  # int (z^2 - 1) phi = -z phi
    return values, mass, moment[:-1] - moment[1:]


def normal_rule(centers: Array, spread: Array, kinks: Array, level: int) -> tuple[Array, Array]:
    """Return standardized nodes t and weights for z = center + spread t, shapes (..., n_nodes).

    Smooth links get the trapezoid rule, which on the line converges faster than any power of its step;
    links with kinks get Gauss-Legendre panels that end at the kinks.
    """
    if kinks.size == 0:
        half = 36 * 2**level
        step = REACH / half
        # Nodes at multiples of the step about z = 0: z and -z must meet in one signal where sigma is even,
        # also where neighboring nodes are farther apart than the noise.
        shift = centers / spread / step
        t = (np.arange(-half, half + 1) - (shift - np.round(shift))[..., None]) * step
        return t, density(t) * step
    cuts = (kinks - centers[..., None]) / spread[..., None]
    inner = np.broadcast_to(np.asarray(_INNER_EDGES), (*cuts.shape[:-1], len(_INNER_EDGES)))
    t, lengths = _panels(np.concatenate([cuts, inner], axis=-1), _INNER_POINTS * 2**level, low=-REACH)
    return t, lengths * density(t)


def field_rule(
    overlaps: Array, kinks: Array, level: int, *, symmetric: bool, narrow: Array = _NONE
) -> tuple[Array, Array]:
    """Return fields V and weights of E_V, (n_overlaps, n_fields); half the line where symmetry allows."""
    if kinks.size == 0 and narrow.size == 0:
        count = (36 if overlaps.max() <= NARROW else 72) * 2**level
        V = np.linspace(-REACH, REACH, count + 1)
        weights = density(V) * (V[1] - V[0])
        if symmetric:
            V, weights = V[count // 2 :], np.r_[weights[count // 2], 2.0 * weights[count // 2 + 1 :]]
        shape = (overlaps.size, V.size)
        return np.broadcast_to(V, shape).copy(), np.broadcast_to(weights, shape).copy()
    # Around each kink the field decides which side z lies on, within the width of the posterior.
    root = np.sqrt(np.maximum(overlaps, 1e-300))[:, None, None]
    width = np.sqrt(1.0 - overlaps)[:, None, None]
    near = (kinks[None, :, None] + np.asarray(_KINK_EDGES) * width) / root
    wide = np.broadcast_to(np.asarray(_OUTER_EDGES), (overlaps.size, len(_OUTER_EDGES)))
    cuts = np.concatenate([near.reshape(overlaps.size, -1), wide], axis=1)
    if narrow.size:
        about = (narrow[None, :, None] + np.asarray(_KINK_EDGES) * width) / root
        cuts = _thinned(np.concatenate([cuts, about.reshape(overlaps.size, -1)], axis=1), width[:, 0, 0])
    V, lengths = _panels(cuts, _OUTER_POINTS * 2**level, low=0.0 if symmetric else -REACH)
    return V, lengths * density(V) * (2.0 if symmetric else 1.0)


def _thinned(cuts: Array, apart: Array) -> Array:
    """Sorted cuts of which none follows another by less than `apart`; those left out repeat the last one."""
    cuts = np.sort(cuts, axis=1)
    for last, cut in itertools.pairwise(cuts.T):
        cut[:] = np.where(cut - last < apart, last, cut)
    return cuts


def features(link: Link) -> Array:
    """Borders of the panels that an activation's own rule had to make narrow; none for most."""
    rule = getattr(link, "rule", None)
    return _NONE if rule is None else np.asarray(rule.narrow, dtype=float)


def evaluate(link: Link, z: Array) -> Array:
    """Return sigma(z) in z's shape, refusing what is not finite."""
    values = np.asarray(link(np.ascontiguousarray(z).ravel()), dtype=np.float64)
    ensure(
        values.shape == (z.size,),
        "an activation maps each entry of an array to one number",
        expected=f"an array of shape ({z.size},) for an input of that shape",
        got=f"shape {values.shape}",
        next_step="Write it with NumPy operations that act entry by entry.",
    )
    bad = ~np.isfinite(values)
    if bad.any():
        where = float(z.ravel()[np.flatnonzero(bad)[0]])
        raise InputError(
            "an activation is finite wherever its thresholds look (|z| up to 13)",
            expected="finite values",
            got=f"{values[bad][0]} at z = {where:.6g}",
            next_step="Check overflow and the domain of logarithms, roots and divisions.",
        )
    return values.reshape(z.shape)


def step_levels(link: Link) -> Array | None:
    """Return the levels of a piecewise constant link, one per cell between its kinks, or None.

    Example:
        >>> class Sign:
        ...     kinks, parity = (0.0,), "odd"
        ...     def __call__(self, z):
        ...         return np.sign(z)
        >>> step_levels(Sign())
        array([-1.,  1.])
    """
    kinks = np.asarray(link.kinks, dtype=float)
    # Without kinks nobody asks an expression for its pieces.
    if kinks.size == 0 or (stepwise := getattr(link, "stepwise", None)) is False:
        return None
    edges = np.r_[min(-2 * REACH, kinks[0] - 1.0), kinks, max(2 * REACH, kinks[-1] + 1.0)]
    inside = np.array([0.5]) if stepwise else _PROBES
    values = evaluate(link, edges[:-1, None] + np.diff(edges)[:, None] * inside)
    return values[:, 0].copy() if (values == values[:, :1]).all() else None


def slope_scale(link: Link) -> float:
    """Root mean square slope of sigma between neighboring nodes, kinks and jumps left out."""
    if step_levels(link) is not None:
        return 0.0
    coarse = _rms_slope(link, np.linspace(-REACH, REACH, 721))
    rule = getattr(link, "rule", None)
    if rule is None:
        return coarse
    # The grid steps over narrow features; the rule of an activation was refined to see them.
    fine = _rms_slope(link, np.unique(rule.nodes[np.abs(rule.nodes) <= REACH]))
    return fine if fine > 2 * coarse else coarse


def _rms_slope(link: Link, z: Array) -> float:
    middle, gaps = 0.5 * (z[1:] + z[:-1]), np.diff(z)
    slopes = np.diff(evaluate(link, z)) / gaps
    near = (np.abs(middle[:, None] - np.asarray(link.kinks, dtype=float)) <= gaps[:, None]).any(axis=1)
    weights = np.where(near, 0.0, density(middle) * gaps)
    return float(np.sqrt((weights * slopes**2).sum() / weights.sum()))


def _panels(cuts: Array, points: int, *, low: float) -> tuple[Array, Array]:
    """Gauss-Legendre nodes and length weights on the panels between sorted cuts in [low, REACH]."""
    ends = np.full((*cuts.shape[:-1], 1), REACH)
    edges = np.sort(np.concatenate([np.full_like(ends, low), np.clip(cuts, low, REACH), ends], axis=-1))
    nodes, weights = leggauss(points)
    half = 0.5 * np.diff(edges, axis=-1)[..., None]
    middle = 0.5 * (edges[..., 1:] + edges[..., :-1])[..., None]
    shape = (*cuts.shape[:-1], -1)
    return (middle + half * nodes).reshape(shape), (half * weights).reshape(shape)


def cells_rule(kinks: Array, levels: Array, centers: Array, spread: Array) -> tuple[Array, Array, Array]:
    """Levels, exact probabilities and exact slope weights of the cells between kinks, (..., n_cells)."""
    low = (np.r_[-np.inf, kinks] - centers[..., None]) / spread[..., None]
    high = (np.r_[kinks, np.inf] - centers[..., None]) / spread[..., None]
    # The complementary tail keeps small probabilities exact.
    mass = np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))
    slope = (density(low) - density(high)) / spread[..., None]
    return np.broadcast_to(levels, mass.shape).copy(), mass, slope


def density(t: Array) -> Array:
    """The standard normal density."""
    return np.asarray(np.exp(-0.5 * t * t) / np.sqrt(2 * np.pi))


_STEPS = (0.5, 0.25, 0.125)
_RARE = 0.2
_MOST_EXTRA = 6
_AT_ONCE = 8_000_000
"""Values of sigma laid out at once: five arrays of that size are held."""

MOST_TERMS = 1.5e10
"""Terms of quadrature for one channel: about half a minute of one core."""


class Channel(Protocol):
    """A law y | z for one link at several signal strengths.

    `overlap(q, level)` is F(q) = E_{V,y}[g^2], g = (E[z|y] - omega)/(1 - q), shape (n_strengths, n_overlaps);
    `onset(level)` is F'(0) at F(0) = 0, i.e. E_y[(E[z^2 - 1 | y])^2], shape (n_strengths,).
    """

    link: Link

    def overlap(self, overlaps: Array, level: int) -> Array:
        """F(q) at refinement `level`."""

    def onset(self, level: int) -> Array:
        """E_y[(E[z^2 - 1 | y])^2]."""


class AdditiveChannel:
    """y = sqrt(snr) sigma(z) + N(0, 1), for several snr at once."""

    def __init__(self, link: Link, snrs: Array) -> None:
        self.link = link
        self.scales = np.sqrt(np.asarray(snrs, dtype=float))
        self.spent = 0.0

    def overlap(self, overlaps: Array, level: int) -> Array:
        """F(q), (n_snrs, n_overlaps)."""
        return self.at(overlaps, (level, level, level))

    def at(self, overlaps: Array, levels: tuple[int, int, int]) -> Array:
        """F(q) with the nodes of z, of the field and of y doubled apart from each other."""
        inner, outer, observed = levels
        # Neighboring nodes of z must not give signals farther apart than the noise.
        apart = 0.25 * slope_scale(self.link) * self.scales.max() * np.sqrt(1.0 - overlaps)
        extra = np.clip(np.ceil(np.log2(np.maximum(apart, 1e-9))), 0, _MOST_EXTRA).astype(int)
        if features(self.link).size:
            extra[:] = 0  # panels that end at narrow features resolve them
        out = np.empty((self.scales.size, overlaps.size))
        for doublings in np.unique(extra):
            at = np.flatnonzero(extra == doublings)
            each = values_per_overlap(self.link, outer, inner + int(doublings))
            for some in np.array_split(at, max(1, -(-each * at.size // _AT_ONCE))):
                if some.size:
                    law = posterior(self.link, overlaps[some], outer, inner + int(doublings))
                    self._spend(law, observed)
                    out[:, some] = self._sums(law.values, law.mass, law.slope, law.outer, observed)
        return out

    def _spend(self, law: Posterior, level: int) -> None:
        used = (
            np.count_nonzero(law.mass, axis=-1)[law.outer != 0].sum()
            if features(self.link).size
            else law.mass.size
        )
        self.spent += float(used) * self.scales.size * 2 * WINDOW / _STEPS[min(level, len(_STEPS) - 1)]
        ensure(
            self.spent <= MOST_TERMS,
            "thresholds resolve features of the activation down to the noise",
            expected=f"at most {MOST_TERMS:.0e} terms of quadrature",
            got=f"{self.spent:.1e} for {getattr(self.link, 'name', 'this activation')} "
            f"at snr {self.scales.max() ** 2:.3g}",
            next_step="Lower snr, raise rtol, or widen the narrowest feature of the activation.",
        )

    def onset(self, level: int) -> Array:
        """E_y[(E[z^2 - 1 | y])^2], (n_snrs,)."""
        values, mass, curvature = (part[None, None, :] for part in prior(self.link, level))
        return self._sums(values, mass, curvature, np.ones((1, 1)), level)[:, 0]

    def _sums(self, values: Array, w: Array, u: Array, outer: Array, level: int) -> Array:
        out = np.empty((self.scales.size, values.shape[0]))
        # The cut tails of y must be cut alike in N and Z, so the step follows the level, not the data.
        step = _STEPS[min(level, len(_STEPS) - 1)]
        v, a, b, c = (np.ascontiguousarray(part) for part in (values, w, u, outer))

        def part(span: tuple[int, int]) -> None:
            additive_sums(v, a, b, c, self.scales, step, span[0], span[1], out)

        run_in_spans(part, values.shape[0], work=values.size * self.scales.size)
        return out


class SignChannel:
    """y = +1 or -1 with P(y = +1 | z) = Phi(sqrt(snr) sigma(z)): the sign of the additive channel."""

    def __init__(self, link: Link, snrs: Array) -> None:
        self.link = link
        self.scales = np.sqrt(np.asarray(snrs, dtype=float))

    def overlap(self, overlaps: Array, level: int) -> Array:
        """F(q), (n_snrs, n_overlaps)."""
        law = posterior(self.link, overlaps, level)
        rows = [self._row(scale, law.values, law.mass, law.slope) for scale in self.scales]
        return np.stack([(law.outer * row).sum(axis=-1) for row in rows])

    def onset(self, level: int) -> Array:
        """E_y[(E[z^2 - 1 | y])^2], (n_snrs,)."""
        values, mass, curvature = prior(self.link, level)
        return np.array([float(self._row(scale, values, mass, curvature)) for scale in self.scales])

    @staticmethod
    def _row(scale: float, values: Array, w: Array, u: Array) -> Array:
        up, down = ndtr(scale * values), ndtr(-scale * values)
        Z_up, Z_down = (w * up).sum(axis=-1), (w * down).sum(axis=-1)
        # E[u] = 0: the labels carry opposite sums. A rare label's own is exact, else half their difference.
        N = 0.5 * (u * (up - down)).sum(axis=-1)
        N = np.where(Z_up < _RARE, (u * up).sum(axis=-1), N)
        N = np.where(Z_down < _RARE, (u * down).sum(axis=-1), N)
        with np.errstate(divide="ignore", invalid="ignore"):
            row = np.where(Z_up > 1e-280, N * N / Z_up, 0.0) + np.where(Z_down > 1e-280, N * N / Z_down, 0.0)
        return np.asarray(row)


def run_in_spans(task: Callable[[tuple[int, int]], None], size: int, *, work: int) -> None:
    """Call task((first, last)) over [0, size) on all CPUs; kernels release the interpreter lock."""
    workers = available_cpus() if work > 20_000 else 1
    if workers == 1 or size < 2:
        task((0, size))
        return
    bounds = np.linspace(0, size, min(4 * workers, size) + 1).astype(int)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(task, [(int(a), int(b)) for a, b in itertools.pairwise(bounds)]))
