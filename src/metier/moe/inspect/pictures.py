"""Pictures of experts: sheets of top inputs, loads, and maps of classes by experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from metier.core.checks import ensure

from .usage import Usage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _figure(width: float, height: float) -> Figure:
    # Without pyplot: no global state, no window.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def expert_sheet(
    usage: Usage,
    items: Sequence[Any] | NDArray[Any] | Tensor,
    *,
    experts: Sequence[int] | None = None,
    columns: int = 9,
) -> Figure:
    """Draw the top inputs of experts, one expert a row, with their coefficients; the layer is in the title.

    Args:
        usage: From `watch`.
        items: What the rows are: images (n, H, W) or (n, H, W, 3), or one text per row (token, sentence).
        experts: Which experts; the eight with the largest load if left out.
        columns: Inputs per expert, at most those that `watch` kept.

    Returns:
        A matplotlib figure; `figure.savefig("sheet.svg")` writes it.

    Raises:
        InputError: There are fewer items than rows seen.

    Example:
        >>> from metier.moe import MultilinearMoE
        >>> from .usage import watch
        >>> layer = MultilinearMoE(4, 2, n_experts=3, rank=2, rng=0)
        >>> with watch(layer, k=2) as seen:
        ...     _ = layer(Tensor(np.eye(4)))
        >>> sheet = expert_sheet(seen.usage()["layer"], ["a", "b", "c", "d"], columns=2)
        >>> len(sheet.axes)
        6

    Source: the galleries of arXiv 2402.12550.
    """
    last = int(usage.top_rows.max()) if usage.top_rows.numel() else -1
    ensure(
        len(items) > last,
        "a sheet shows the inputs that were watched",
        expected=f"at least {last + 1} items, in the order in which they went through the layer",
        got=len(items),
        next_step="Pass the same rows, or one text per token.",
    )
    chosen = _heaviest(usage) if experts is None else list(experts)
    columns = min(columns, usage.top_rows.shape[1])
    texts = isinstance(items[0], str)
    figure = _figure(1.1 * columns + 1, (0.5 if texts else 1.15) * len(chosen) + 0.5)
    axes = figure.subplots(len(chosen), columns, squeeze=False)
    for line, n in zip(axes, chosen, strict=True):
        for j, axis in enumerate(line):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
            row = int(usage.top_rows[n, j])
            if row >= 0:
                _draw(axis, items[row], float(usage.top_values[n, j]), text=texts)
        line[0].set_ylabel(
            f"expert {n}\nload {float(usage.load[n]):.3f}", rotation=0, ha="right", va="center", size=7
        )
    figure.suptitle(f"{usage.layer}: inputs with the largest coefficients", size=9)
    return figure


def _heaviest(usage: Usage) -> list[int]:
    return [int(n) for n in usage.load.argsort(descending=True)[:8]]


def _draw(axis: Any, item: Any, value: float, *, text: bool) -> None:
    if text:
        axis.text(0.5, 0.5, str(item)[:24], ha="center", va="center", size=7, parse_math=False)
        axis.set_title(f"{value:.2f}", size=6, pad=1)
        return
    image = item.detach().cpu().numpy() if isinstance(item, Tensor) else np.asarray(item)
    axis.imshow(image, cmap="gray" if image.ndim == 2 else None)
    axis.set_title(f"{value:.2f}", size=6, pad=1)


def load_histogram(usage: Usage) -> Figure:
    """Draw the sorted loads of experts beside the equal share 1/N.

    Example:
        >>> import torch
        >>> load, top = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.full((4, 1), -1)
        >>> usage = Usage("head", 10, load, 2.0, torch.ones(4), top.float(), top)
        >>> load_histogram(usage).axes[0].get_title()
        'head: load of 4 experts, 0 dead'

    Source: ours.
    """
    figure = _figure(6, 2.5)
    axis = figure.subplots()
    load = usage.load.sort(descending=True).values.numpy()
    axis.bar(np.arange(len(load)), load, width=1.0)
    axis.axhline(1 / len(load), linewidth=1, linestyle="--", color="black", label="equal share")
    axis.set_title(f"{usage.layer}: load of {len(load)} experts, {len(usage.dead())} dead", size=9)
    axis.set_xlabel("expert, by load")
    axis.set_ylabel("mean coefficient")
    axis.legend(frameon=False, fontsize=8)
    return figure


def class_map(
    coefficients: Tensor | ArrayLike,
    classes: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    most: int = 64,
) -> Figure:
    """Draw mean coefficients by class and expert; experts are ordered by the class they serve most.

    Args:
        coefficients: Gate values (n, N).
        classes: Class of each row, (n,).
        names: Names of the classes in sorted order.
        most: Draw at most this many experts, those with the largest load.

    Example:
        >>> class_map(np.eye(3)[[0, 1, 2, 0]], ["a", "b", "c", "a"]).axes[0].get_ylabel()
        'class'

    Source: ours.
    """
    values: Any = (
        coefficients.detach().cpu().double().numpy() if isinstance(coefficients, Tensor) else coefficients
    )
    a, labels = np.asarray(values), np.asarray(classes)
    known = np.unique(labels)
    table = np.stack([a[labels == c].mean(0) for c in known])
    heavy = np.sort(np.argsort(-a.mean(0), kind="stable")[:most])
    order = heavy[np.lexsort((-table[:, heavy].max(0), table[:, heavy].argmax(0)))]
    figure = _figure(min(12, 2 + 0.14 * len(order)), 1 + 0.22 * len(known))
    axis = figure.subplots()
    image = axis.imshow(table[:, order], aspect="auto", cmap="viridis", vmin=0)
    axis.set_yticks(range(len(known)), [str(c) for c in known] if names is None else list(names), size=7)
    axis.set_xlabel(f"expert ({len(order)} of {a.shape[1]}), by the class it serves most")
    axis.set_ylabel("class")
    figure.colorbar(image, label="mean coefficient")
    return figure
