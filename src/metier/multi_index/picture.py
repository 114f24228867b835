"""Phase diagrams as figures; matplotlib loads only when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

LABELS = {
    "weak_recovery": ("weak recovery (AMP)", "#d62728", "-"),
    "strong_recovery": ("strong recovery (AMP)", "#7f0000", "--"),
    "it_detection": ("detection (any method)", "#1f77b4", "-"),
    "it_strong": ("strong recovery (any method)", "#08306b", "--"),
    "spinodal": ("spinodal (informed start)", "#555555", ":"),
}
"""Label, color and style of each line."""


def phase_figure(
    snrs: Array, sample_ratios: Array, overlaps: Array, lines: Mapping[str, Array], *, start: str, title: str
) -> Figure:
    """Overlap q of one start as shades over snr and n/d, with every line that exists, labelled.

    Args:
        snrs, sample_ratios: (n_snrs,) and (n_ratios,), increasing.
        overlaps: q, (n_snrs, n_ratios).
        lines: sample ratio of each transition by name of `LABELS`, (n_snrs,).
        start: named beside the shades.
        title: of the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    shades = axes.pcolormesh(
        snrs, sample_ratios, overlaps.T, cmap="Greys", vmin=0, vmax=1, shading="nearest", rasterized=True
    )
    figure.colorbar(shades, ax=axes, label=f"overlap q, {start}")
    for name, (label, color, style) in LABELS.items():
        y = np.where(np.isfinite(lines[name]) & (lines[name] > 0), lines[name], np.nan)
        if not np.isnan(y).all():
            axes.plot(snrs, y, style, color=color, label=label, linewidth=1.6)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="signal-to-noise ratio",
        ylabel="samples per dimension n/d",
        title=title,
        xlim=(snrs[0], snrs[-1]),
        ylim=(sample_ratios[0], sample_ratios[-1]),
    )
    if axes.lines:
        axes.legend(loc="upper right", fontsize="small", framealpha=0.9)
    return figure
