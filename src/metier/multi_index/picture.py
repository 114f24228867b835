"""Phase diagrams as figures; matplotlib loads only when one is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .phase_diagram import PhaseDiagram

LABELS = {
    "weak_recovery": ("weak recovery (AMP)", "#d62728", "-"),
    "strong_recovery": ("strong recovery (AMP)", "#7f0000", "--"),
    "it_detection": ("detection (any method)", "#1f77b4", "-"),
    "it_strong": ("strong recovery (any method)", "#08306b", "--"),
    "spinodal": ("spinodal (informed start)", "#555555", ":"),
}
"""Label, color and style of each line."""


def phase_figure(diagram: PhaseDiagram, *, start: str) -> Figure:
    """Overlap q of one start as shades over snr and n/d, with every line that exists, labelled."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    shades = axes.pcolormesh(
        diagram.snrs,
        diagram.sample_ratios,
        diagram.overlaps[start].T,
        cmap="Greys",
        vmin=0,
        vmax=1,
        shading="nearest",
        rasterized=True,
    )
    figure.colorbar(shades, ax=axes, label=f"overlap q, {start}")
    handles = [handle for name in LABELS if (handle := _line(axes, diagram, name))]
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="signal-to-noise ratio",
        ylabel="samples per dimension n/d",
        title=f"{diagram.activation}, {diagram.channel} channel",
        xlim=(diagram.snrs[0], diagram.snrs[-1]),
        ylim=(diagram.sample_ratios[0], diagram.sample_ratios[-1]),
    )
    if handles:
        axes.legend(loc="upper right", fontsize="small", framealpha=0.9)
    return figure


def _line(axes: Axes, diagram: PhaseDiagram, name: str) -> bool:
    label, color, style = LABELS[name]
    y = np.where(diagram.lines[name] > 0, diagram.lines[name], np.nan)
    shown = np.isfinite(y)
    if not shown.any():
        return False
    axes.plot(diagram.snrs, y, style, color=color, label=label, linewidth=1.6)
    return True
