"""F over a whole range of snr at once: few strengths computed, the rest interpolated in ln snr."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.polynomial import chebyshev

from .channels import Channel
from .overlap import DEGREE, rates, relative_change, settled_onset, tabulate
from .posterior import Array

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
    scale = overlaps[middle] if power else 1.0
    finer = tabulate(make(snrs[checked]), overlaps[middle], 1) / scale
    missed = relative_change(table[np.ix_(checked, middle)], finer) > rtol
    for panel in np.flatnonzero(missed.any(axis=0)):
        first = int(checked[max(np.flatnonzero(missed[:, panel])[0] - 1, 0)])
        last = int(checked[min(np.flatnonzero(missed[:, panel])[-1] + 1, checked.size - 1)])
        # A panel's left end belongs to its neighbor; q = 0 is computed apart.
        columns = np.arange(panel * DEGREE + 1, (panel + 1) * DEGREE + 1)
        finest = tabulate(make(snrs[first : last + 1]), overlaps[columns], 1)
        table[first : last + 1, columns] = finest / (overlaps[columns] if power else 1.0)
    return table
