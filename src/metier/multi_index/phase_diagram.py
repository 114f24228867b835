"""Overlaps and transition lines over sample ratio and signal strength."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

from metier.core import one_of

from .activations import Activation, as_activation
from .channels import AdditiveChannel, Array, Channel, SignChannel
from .fixed_points import NAMES, FixedPointCurve, find_lines, fixed_points, no_information
from .overlap import (
    DEGREE,
    assemble,
    field_power,
    node_overlaps,
    rates,
    relative_change,
    settled_onset,
    tabulate,
)
from .results import Plain
from .thresholds import READINGS, positive, positive_array

TABLE_EDGES = (0.0, 0.01, 0.05, 0.12, 0.25, 0.45, 0.8, 1.3, 2.0, 2.8, 3.6, 4.5, 6.0, 8.5, 11.5)
_SMALL = tuple(10.0**power for power in range(-9, -2))
_STRENGTH_DEGREE = 10
_STRENGTH_WIDTH = np.log(10.0)
_CHECK_EVERY = 4
_FLOOR = 1e-300


def table_edges(power: int) -> Array:
    """Panels in x = -ln(1 - q) that serve every snr of a table."""
    return np.array(TABLE_EDGES if power else (0.0, *_SMALL, *TABLE_EDGES[1:]))


def rate_table(
    make: Callable[[Array], Channel], snrs: Array, overlaps: Array, power: int, *, rtol: float
) -> Array:
    """F(q)/q^power for increasing snrs and panel nodes q, (n_snrs, n_overlaps).

    Panels of q that a doubling of all nodes moves by more than rtol are computed with doubled nodes.
    """
    strengths = _strengths(snrs)
    if strengths is None:
        values = _computed(make, snrs, overlaps, power, rtol)
    else:
        edges, nodes = strengths
        logs = np.log(np.maximum(_computed(make, np.exp(nodes), overlaps, power, rtol), _FLOOR))
        values = np.exp(_interpolated(edges, logs, np.log(snrs)))
    if power:
        values[:, 0] = settled_onset(make(snrs), rtol=0.1 * rtol)[1]
    return values


def _strengths(snrs: Array) -> tuple[Array, Array] | None:
    """Panels of at most a decade in ln snr and their nodes, or None where that would save nothing."""
    low, high = float(np.log(snrs[0])), float(np.log(snrs[-1]))
    panels = max(1, int(np.ceil((high - low) / _STRENGTH_WIDTH - 1e-9)))
    if snrs.size <= panels * _STRENGTH_DEGREE + 1:
        return None
    edges = np.linspace(low, high, panels + 1)
    unit = 0.5 * (1 - np.cos(np.pi * np.arange(1, _STRENGTH_DEGREE + 1) / _STRENGTH_DEGREE))
    return edges, np.concatenate([edges[:1], (edges[:-1, None] + np.diff(edges)[:, None] * unit).ravel()])


def _interpolated(edges: Array, values: Array, at: Array) -> Array:
    n = _STRENGTH_DEGREE
    points = -np.cos(np.pi * np.arange(n + 1) / n)
    panel = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, edges.size - 2)
    out = np.empty((at.size, values.shape[1]))
    for k in np.unique(panel):
        here = panel == k
        coefficients = chebyshev.chebfit(points, values[k * n : k * n + n + 1], n)
        unit = (2 * at[here] - edges[k] - edges[k + 1]) / (edges[k + 1] - edges[k])
        out[here] = chebyshev.chebval(unit, coefficients).T
    return out


def _computed(
    make: Callable[[Array], Channel], snrs: Array, overlaps: Array, power: int, rtol: float
) -> Array:
    table = rates(make(snrs), overlaps, power, 0)
    middle = np.arange(DEGREE // 2, overlaps.size, DEGREE)
    checked = np.unique(np.r_[np.arange(0, snrs.size, _CHECK_EVERY), snrs.size - 1])
    finer = tabulate(make(snrs[checked]), overlaps[middle], 1) / overlaps[middle] ** power
    missed = relative_change(table[np.ix_(checked, middle)], finer) > rtol
    for panel in np.flatnonzero(missed.any(axis=0)):
        rows = np.flatnonzero(missed[:, panel])
        span = slice(checked[max(rows[0] - 1, 0)], checked[min(rows[-1] + 1, checked.size - 1)] + 1)
        # A panel's left end belongs to its neighbor; q = 0 is computed apart.
        columns = np.arange(panel * DEGREE + 1, (panel + 1) * DEGREE + 1)
        finest = tabulate(make(snrs[span]), overlaps[columns], 1)
        table[span, columns] = finest / overlaps[columns] ** power
    return table


if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISY: Mapping[str, Callable[[Activation, Array], Channel]] = {
    "additive": AdditiveChannel,
    "sign": SignChannel,
}
PHASES = ("impossible", "hard", "partly hard", "easy")
"""impossible: the Bayes overlap is 0; hard: only AMP's is 0; partly hard: AMP's is smaller; easy: equal."""

TOLERANCE = 1e-7
"""Turns of alpha(q) and differences of overlaps below this count as none."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PhaseDiagram(Plain):
    """Overlaps and lines of one activation.

    Attributes:
        activation: Name of sigma.
        channel: `"additive"` or `"sign"`.
        sample_ratios: n/d, increasing, (n_ratios,).
        snrs: Increasing, (n_snrs,).
        lines: Sample ratio of each transition by name, (n_snrs,); as in `thresholds`.
        overlaps: `"uninformed"`, `"bayes"` and `"informed"` overlap q, (n_snrs, n_ratios).
        errors: Largest relative error of each line on the checked snrs: its change from twice the nodes.
        reasons: Why entries of a line are nan, by name.
        status: `"derived"`.

    Example:
        >>> d = phase_diagram("abs", sample_ratios=[0.5, 2.0, 8.0], snrs=[0.5, 1.0, 2.0])
        >>> d.lines["weak_recovery"].round(3)
        array([3.23 , 1.762, 1.083])
        >>> d.phases.tolist()
        [[0, 0, 3], [0, 3, 3], [0, 3, 3]]
    """

    activation: str
    channel: str
    sample_ratios: Array
    snrs: Array
    lines: Mapping[str, Array]
    overlaps: Mapping[str, Array]
    errors: Mapping[str, float]
    reasons: Mapping[str, str]
    status: str = "derived"

    _more: ClassVar = ("phases",)

    @property
    def phases(self) -> NDArray[np.int64]:
        """Index into `PHASES` of every cell, (n_snrs, n_ratios)."""
        amp, bayes = self.overlaps["uninformed"], self.overlaps["bayes"]
        partly = np.where(amp < bayes - TOLERANCE, 2, 3)
        return np.asarray(np.where(bayes <= 0, 0, np.where(amp <= 0, 1, partly)), dtype=np.int64)

    @property
    def gap(self) -> Array:
        """weak_recovery / it_detection over snr; nan where both are 0, or both infinite."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.lines["weak_recovery"] / self.lines["it_detection"])

    def summary(self) -> str:
        """Size, share of each phase, and the ends of each line."""
        shares = np.bincount(self.phases.ravel(), minlength=len(PHASES)) / self.phases.size
        rows = [
            f"{self.activation}, {self.channel} channel: "
            f"{self.snrs.size} snr x {self.sample_ratios.size} ratios",
            ", ".join(f"{name} {share:.0%}" for name, share in zip(PHASES, shares, strict=True)),
        ]
        for name in NAMES:
            line = self.lines[name]
            kept = np.isfinite(line)
            if not kept.any():
                rows.append(f"{name:<16} none: {self.reasons.get(name, 'infinite')}")
                continue
            low, high = self.snrs[kept][0], self.snrs[kept][-1]
            ends = f"{line[kept][0]:.4g} at snr {low:.3g} to {line[kept][-1]:.4g} at snr {high:.3g}"
            rows.append(f"{name:<16} {ends}, error {self.errors[name]:.0e}")
        return "\n".join(rows)

    def figure(self, *, start: str = "uninformed") -> Figure:
        """Draw the overlap of one start with all lines labelled; needs matplotlib, which loads only here."""
        from .picture import phase_figure

        kind, title = one_of("start", start, READINGS), f"{self.activation}, {self.channel} channel"
        shades = self.overlaps[kind]
        return phase_figure(self.snrs, self.sample_ratios, shades, self.lines, start=kind, title=title)


def phase_diagram(
    activation: str | Callable[[Any], Any] | Activation,
    *,
    sample_ratios: ArrayLike,
    snrs: ArrayLike,
    normalize: bool = False,
    channel: str = "additive",
    rtol: float = 1e-6,
) -> PhaseDiagram:
    """Compute the overlaps and all transition lines over sample ratio n/d and snr.

    One table of F over (snr, q) gives every fixed point, alpha(q) = q/((1 - q) F(q)), so that no state
    evolution is iterated; the table is interpolated in ln snr where many snrs are asked for.

    Args:
        activation: Name, expression, callable, or an `Activation`.
        sample_ratios: n/d, positive.
        snrs: Power signal-to-noise ratios, positive and finite.
        normalize: Divide sigma by its standard deviation first.
        channel: `"additive"` or `"sign"`.
        rtol: F is refined where a doubling of all nodes moves it by more than this.

    Returns:
        The diagram on the sorted grids.

    Raises:
        InputError: A ratio or snr is not positive and finite, or the activation is refused.

    Example:
        >>> d = phase_diagram("He4", sample_ratios=[1e3, 4e3, 2e4], snrs=[1e-3], normalize=True)
        >>> [PHASES[k] for k in d.phases[0]]
        ['impossible', 'hard', 'easy']

    Source:
        State evolution and the replica free entropy; the method is ours.
    """
    sigma = as_activation(activation, normalize=normalize)
    ratios = np.unique(positive_array("sample_ratios", sample_ratios))
    strengths = np.unique(positive_array("snrs", snrs))
    tolerance = positive("rtol", rtol)
    make = partial(NOISY[one_of("channel", channel, NOISY)], sigma)
    checked = [] if sigma.constant else sorted({strengths.size // 5, (4 * strengths.size) // 5})
    finer: list[Mapping[str, float]] = []
    curves = [no_information()] * strengths.size
    if not sigma.constant:
        power = field_power(make(strengths[-1:]))
        edges = table_edges(power)
        q = node_overlaps(edges)
        table = rate_table(make, strengths, q, power, rtol=tolerance)
        curves = [_curve(edges, row, power) for row in table]
        finer = [_finer(make(strengths[k : k + 1]), edges, q, power) for k in checked]
    found = [find_lines(curve) for curve in curves]
    lines = {name: np.array([one.ratios[name] for one in found]) for name in NAMES}
    overlaps = {name: np.stack([read(curve, ratios) for curve in curves]) for name, read in READINGS.items()}
    return PhaseDiagram(
        activation=sigma.name,
        channel=channel,
        sample_ratios=ratios,
        snrs=strengths,
        lines=lines,
        overlaps=overlaps,
        errors=_errors(lines, checked, finer),
        reasons={name: text for one in found for name, text in one.reasons.items()},
    )


def _curve(edges: Array, row: Array, power: int) -> FixedPointCurve:
    return fixed_points(assemble(edges, row, row, power), tolerance=TOLERANCE)


def _finer(channel: Channel, edges: Array, q: Array, power: int) -> Mapping[str, float]:
    onset = settled_onset(channel, rtol=1e-9)[1] if power else None
    return find_lines(_curve(edges, rates(channel, q, power, 1, onset=onset)[0], power)).ratios


def _errors(
    lines: Mapping[str, Array], checked: list[int], finer: list[Mapping[str, float]]
) -> dict[str, float]:
    errors = dict.fromkeys(NAMES, 0.0)
    for (k, fine), name in itertools.product(zip(checked, finer, strict=True), NAMES):
        a, b = float(lines[name][k]), fine[name]
        if math.isfinite(a) and 0 < b < math.inf:
            errors[name] = max(errors[name], abs(a / b - 1))
    return errors
