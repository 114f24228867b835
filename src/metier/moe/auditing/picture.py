"""The picture of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(
    loads: Mapping[str, NDArray[np.float64]], composition: tuple[str, Any] | None, labels: Sequence[Any]
) -> Figure:
    """Draw loads by router and expert, relative to an even share; with labels, their experts too.

    Args:
        loads: Share of the choices per expert, (E,), by router.
        composition: Name of a router, and the share of each label's choices per expert there, (labels, E).
        labels: The labels.
    """
    from matplotlib.figure import Figure

    height = max(2.4, 0.35 * len(loads) + 1.6)
    figure = Figure(figsize=(6.5 if composition is None else 11.0, height), layout="constrained")
    axes = figure.subplots(1, 1 if composition is None else 2, squeeze=False)[0]
    table = np.full((len(loads), max(load.size for load in loads.values())), np.nan)
    for row, load in enumerate(loads.values()):
        table[row, : load.size] = np.sort(load)[::-1] * load.size
    _panel(figure, axes[0], table, list(loads), "Load relative to an even share", "expert, busiest first")
    if composition is not None:
        name, shares = composition
        table, rows = np.asarray(shares) * loads[name].size, [str(label) for label in labels]
        _panel(figure, axes[1], table, rows, f"What each label uses at {name}", "expert")
    return figure


def _panel(
    figure: Figure, axes: Axes, table: NDArray[np.float64], rows: list[str], title: str, across: str
) -> None:
    image = axes.imshow(table, aspect="auto", cmap="RdBu_r", vmin=0.0, vmax=2.0, interpolation="nearest")
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel(across)
    axes.set_title(title, fontsize=10, loc="left")
    figure.colorbar(image, ax=axes, extend="max", label="1 = even")
