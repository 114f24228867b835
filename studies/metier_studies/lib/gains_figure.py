"""A figure that many studies share: the gain of every arm over one of them, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from metier.runs import Figure, IntervalRow, Intervals
from metier_studies.lib.paired_seeds import mean_of


def gains_figure(
    gains: Mapping[str, np.ndarray],
    *,
    title: str,
    caption: str,
    alt: str,
    x_label: str,
    emphasis: Collection[str] = (),
    name: str = "gains",
) -> Figure:
    """Draw the mean of each arm's paired gains, a row per arm.

    Args:
        gains: by the arm's label, one gain per seed; right of zero is better.
        title, caption, alt, x_label, name: of the figure; the name is its id.
        emphasis: labels of the rows that the text speaks of.
    """
    rows = []
    for label, values in gains.items():
        mean = mean_of(values)
        # A single seed has no interval.
        low, high = (mean.value if end is None else end for end in (mean.low, mean.high))
        rows.append(
            IntervalRow(label=label, value=mean.value, low=low, high=high, emphasis=label in emphasis)
        )
    data = Intervals(x_label=x_label, rows=tuple(rows))
    return Figure(id=name, title=title, caption=caption, alt=alt, data=data)
