"""Pictures of populations; matplotlib is loaded only when something is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metier.core import InputError

if TYPE_CHECKING:
    from .measures.logs import BehaviourCounts
    from .pairing import CrossPlay
    from .training.progress import Progress


def draw_cross_play(pairs: CrossPlay, ax: Any = None) -> Any:
    """Draw the mean return of every pair, numbers in the cells; returns the matplotlib axes."""
    ax = ax or _axes(len(pairs.names), len(pairs.names))
    values = pairs.returns
    image = ax.imshow(values, cmap="viridis")
    ax.set_xticks(range(len(pairs.names)), pairs.names, rotation=45, ha="right")
    ax.set_yticks(range(len(pairs.names)), pairs.names)
    middle = (values.min() + values.max()) / 2.0
    for i, j in np.ndindex(values.shape):
        color = "black" if values[i, j] > middle else "white"
        ax.text(j, i, f"{values[i, j]:.3g}", ha="center", va="center", color=color, fontsize="small")
    ax.set_title("Cross-play: mean return over both seatings")
    ax.figure.colorbar(image, ax=ax, label="return")
    return ax


def draw_behaviours(counts: BehaviourCounts, ax: Any = None) -> Any:
    """Draw each partner's behaviours as one bar of shares, failures last; returns the matplotlib axes."""
    from matplotlib import colormaps

    ax = ax or _axes(8, len(counts.partners) / 2 + 1)
    total = (counts.counts.sum(axis=1) + counts.failures)[:, None]
    shares = np.column_stack([counts.counts, counts.failures]) / total
    names = [*map(str, counts.behaviours), "none"]
    colors = [*colormaps["viridis"](np.linspace(0.05, 0.95, len(names) - 1)), "lightgray"]
    rows, left = np.arange(len(counts.partners)), np.zeros(len(counts.partners))
    for share, name, color in zip(shares.T, names, colors, strict=True):
        ax.barh(rows, share, left=left, color=color, label=name, edgecolor="white")
        left += share
    ax.set_yticks(rows, [str(name) for name in counts.partners])
    ax.invert_yaxis()
    ax.set_xlabel("share of episodes")
    ax.set_title("What each partner does")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return ax


def draw_learning_curves(progress: Progress, ax: Any = None) -> Any:
    """Draw each member's return with itself, and the mean with others, over steps; returns the axes."""
    if not progress.rows:
        raise InputError(
            "learning curves are drawn of reports",
            expected="at least one report",
            got="none",
            next_step="Draw the progress of a population that was trained.",
        )
    ax = ax or _axes(8, 5)
    steps = np.array([row["steps"] for row in progress.rows]) / 1e6
    own = np.array([row["returns"] for row in progress.rows])
    pairs = np.array([row["cross_play"] for row in progress.rows])
    for member, returns in enumerate(own.T):
        ax.plot(steps, returns, marker=".", label=f"member {member} with itself")
    n = own.shape[1]
    if n > 1:
        others = pairs[:, ~np.eye(n, dtype=bool)].mean(axis=1)
        ax.plot(steps, others, color="black", linestyle="--", label="with others, mean")
    ax.set_xlabel("environment steps, millions")
    ax.set_ylabel("mean return")
    ax.set_title("Learning curves")
    ax.legend(frameon=False)
    return ax


def _axes(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(max(4.0, 0.9 * width), max(3.0, 0.8 * height)), layout="constrained").subplots()
