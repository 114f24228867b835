"""The picture of an audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .report import Audit


def draw(audit: Audit) -> Figure:
    """Draw loads by router and expert, relative to an even share; with labels, their experts too."""
    from matplotlib.figure import Figure

    wide = bool(audit.labels)
    height = max(2.4, 0.35 * len(audit.layers) + 1.6)
    figure = Figure(figsize=(11.0 if wide else 6.5, height), layout="constrained")
    axes = figure.subplots(1, 2 if wide else 1, squeeze=False)[0]
    _loads(figure, axes[0], audit)
    if wide:
        _labels(figure, axes[1], audit)
    return figure


def _loads(figure: Figure, axes: Axes, audit: Audit) -> None:
    width = max(layer.load.size for layer in audit.layers)
    table = np.full((len(audit.layers), width), np.nan)
    for row, layer in enumerate(audit.layers):
        table[row, : layer.load.size] = np.sort(layer.load)[::-1] * layer.load.size
    image = axes.imshow(table, aspect="auto", cmap="RdBu_r", vmin=0.0, vmax=2.0, interpolation="nearest")
    axes.set_yticks(range(len(audit.layers)), [layer.name for layer in audit.layers], fontsize=8)
    axes.set_xlabel("expert, busiest first")
    axes.set_title("Load relative to an even share", fontsize=10, loc="left")
    figure.colorbar(image, ax=axes, extend="max", label="1 = even")


def _labels(figure: Figure, axes: Axes, audit: Audit) -> None:
    labeled = [layer for layer in audit.layers if layer.composition is not None]
    most = max(labeled, key=lambda layer: 0.0 if layer.information is None else layer.information.excess)
    table = np.asarray(most.composition) * most.load.size
    image = axes.imshow(table, aspect="auto", cmap="RdBu_r", vmin=0.0, vmax=2.0, interpolation="nearest")
    axes.set_yticks(range(len(audit.labels)), [str(label) for label in audit.labels], fontsize=8)
    axes.set_xlabel("expert")
    axes.set_title(f"What each label uses at {most.name}", fontsize=10, loc="left")
    figure.colorbar(image, ax=axes, extend="max", label="1 = even")
