"""Output channels: what each observation tells of its field, as the overlap function F(q) and F'(0)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from scipy.special import ndtr

from metier.core import InputError, available_cpus

from .kernels import WINDOW, additive_sums
from .posterior import (
    Array,
    Link,
    Posterior,
    features,
    posterior,
    prior,
    slope_scale,
    values_per_overlap,
)

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
        if self.spent > MOST_TERMS:
            raise InputError(
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
