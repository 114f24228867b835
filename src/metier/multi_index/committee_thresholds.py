"""All fixed points of a committee of one or two units whose estimates are matched to the planted ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from metier.core.checks import ensure

from .activations import Activation, as_activation
from .channels import Array, posterior, prior, run_in_spans
from .fixed_points import no_information
from .kernels import additive_sums
from .overlap import assemble, node_overlaps, panel_edges, relative_change
from .thresholds import Thresholds, curve_of, from_curve, positive, thresholds
from .widths import units_up_to

MOST_UNITS = 2
_RARE, _RARE_NODE = 1e-7, 1e-9
"""Pairs of fields, and of nodes, whose weight is below this share of the largest are left out."""

_SAME = 1e-11
_Law = tuple[Array, Array, Array]

_STEP = 0.5
"""Of the observation, in noise standard deviations."""

_CHECKS = (0.1, 0.5, 0.9)
"""Overlaps at which F is computed again with the nodes of the fields doubled, and with those of z."""


def committee_thresholds(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    n_units: int = 2,
    noise: float,
    normalize: bool = False,
) -> Thresholds:
    """Find the sample ratios of y = p^(-1/2) sum_k sigma(<w_k, x>) + sqrt(noise) N(0, 1) at overlap q I_p.

    Every unit of the student has overlap q with its own unit of the teacher and none with the others, so that
    alpha(q) = q/((1 - q) F(q)) with F(q) = E[g_1^2], g_1 = (E[z_1 | y] - omega_1)/(1 - q), as for one
    direction. `weak_recovery` is the exact subspace recovery of `committee`; `strong_recovery` is where the
    lower branch of matched overlaps ends and AMP must jump to units that are told apart.

    Args:
        activation: Even: name, expression, callable, or an `Activation`.
        n_units: p, 1 or 2: the fields of all units are integrated on a product grid.
        noise: Variance of the additive noise, positive.
        normalize: Divide sigma by its standard deviation first.

    Returns:
        The thresholds, with status `"heuristic"` for two units: overlaps that are not a multiple of the
        identity are not searched.

    Raises:
        InputError: more than two units, an activation that is not even, or a noise that is not positive.

    Example:
        >>> t = committee_thresholds("cos(2*x) - 4*exp(-3/2)*cos(x)", noise=1.0, normalize=True)
        >>> round(t.weak_recovery, 2), round(t.strong_recovery / t.weak_recovery, 1)
        (8.22, 1.4)

    Source: ours; state evolution of matrix AMP (Aubin et al. 2018) at matched overlaps.
    """
    sigma = as_activation(activation, normalize=normalize)
    width = units_up_to(
        MOST_UNITS,
        n_units,
        rule="fixed points of a committee are found on the product grid of its units' fields",
        next_step="Use committee for the exact first instability of wider ones.",
    )
    variance = positive("noise", noise)
    if width == 1:
        return thresholds(sigma, snr=1.0 / variance)
    ensure(
        sigma.parity == "even",
        "overlap 0 is a fixed point of a committee of even units",
        expected="an even activation",
        got=f"{sigma.name}, which is not even",
        next_step="Use committee, or declare parity='even' of a callable that is.",
    )
    if sigma.constant:
        return from_curve(no_information(), sigma.name, 1.0 / variance, "committee of 2", status="derived")
    channel = _Pair(sigma, variance)
    edges = panel_edges(1)
    q = node_overlaps(edges)
    fine = np.r_[channel.onset(), channel.overlap(q[1:]) / q[1:]]
    checked = np.searchsorted(q, _CHECKS)
    finer = (channel.overlap(q[checked], level, inner) / q[checked] for level, inner in ((1, 0), (0, 1)))
    moved = float(np.sum([relative_change(fine[checked], values) for values in finer], axis=0).max())
    function = assemble(edges, fine, fine, 1, error=moved)
    return from_curve(
        curve_of(function),
        sigma.name,
        1.0 / variance,
        "committee of 2",
        status="heuristic",
        least_error=moved,
    )


class _Pair:
    """y = (sigma(z_1) + sigma(z_2))/sqrt(2 noise) + N(0, 1): F of the first unit."""

    def __init__(self, link: Activation, noise: float) -> None:
        self.link, self.scales = link, np.array([1.0 / math.sqrt(2.0 * noise)])

    def overlap(self, overlaps: Array, level: int = 0, inner: int = 0) -> Array:
        """F(q), (n_overlaps,)."""
        out = np.empty(overlaps.size)

        def part(span: tuple[int, int]) -> None:
            for k in range(*span):
                out[k] = self._one(overlaps[k], level, inner)

        run_in_spans(part, overlaps.size, work=overlaps.size * 10**6)
        return out

    def onset(self) -> float:
        """F'(0) = E_y[(E[z_1^2 - 1 | y])^2]: E[z_1 z_2 | y] is 0 for even sigma."""
        values, mass, curvature = prior(self.link, 1)
        own = _merged(values, mass, curvature)
        return self._sum(own, _merged(values, mass, mass))

    def _one(self, q: float, level: int, inner: int) -> float:
        law = posterior(self.link, np.array([q]), level, inner)
        outer = law.outer[0]
        laws = [_merged(*parts) for parts in zip(law.values[0], law.mass[0], law.slope[0], strict=True)]
        weights = np.outer(outer, outer)
        pairs = np.argwhere(weights > _RARE * weights.max())
        total = sum(weights[i, k] * self._sum(laws[i], laws[k]) for i, k in pairs)
        return float(total) / float(weights[pairs[:, 0], pairs[:, 1]].sum())

    def _sum(self, own: _Law, other: _Law) -> float:
        """Return int N^2/Z dy with N weighted by the slopes (or curvatures) of the first unit."""
        mass = np.outer(own[1], other[1])
        kept = mass > _RARE_NODE * mass.max()
        values, slope = (own[0][:, None] + other[0])[kept], np.outer(own[2], other[1])[kept]
        out, one = np.empty((1, 1)), np.ones((1, 1))
        additive_sums(
            values[None, None], mass[kept][None, None], slope[None, None], one, self.scales, _STEP, 0, 1, out
        )
        return float(out[0, 0])


def _merged(values: Array, mass: Array, slope: Array) -> _Law:
    """Nodes of equal signal as one: z and -z of an even link."""
    seen = mass > _RARE_NODE * mass.max()
    order = np.flatnonzero(seen)[np.argsort(values[seen])]
    v = values[order]
    starts = np.flatnonzero(np.r_[True, np.diff(v) > _SAME * (1.0 + np.abs(v[1:]))])
    return v[starts], np.add.reduceat(mass[order], starts), np.add.reduceat(slope[order], starts)
