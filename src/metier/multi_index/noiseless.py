"""The limit of no noise: y = sigma(z) itself, or its sign, pins z down to finitely many points or cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from metier.core import InputError

from .posterior import REACH, Array, Link, cells_rule, density, field_rule
from .preimages import branches_of, graded_rule, preimages, sign_changes

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
        self._grids: dict[int, tuple[Array, Array, Array, Array]] = {}

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
        for j in range(x.shape[1]):
            if not (weight[:, j] > 0).any():
                continue
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

    def _grid(self, level: int) -> tuple[Array, Array, Array, Array]:
        if level not in self._grids:
            self._grids[level] = self._lay(level)
        return self._grids[level]

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
        if changes.size == 0:
            raise InputError(
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
