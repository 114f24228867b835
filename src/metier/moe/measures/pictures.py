"""A log of routing figures, one JSON object a line, and its pictures: loads over time, labels by expert."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import ensure, finite_array, positive_int
from metier.core.errors import InputError

if TYPE_CHECKING:
    from metier.moe.balancing.balancer import Balancer


class MetricsLog:
    """Append the figures of a balancer's last step to a JSON Lines file.

    A line holds the step, the figures of `Balancer.metrics` (means and worst layers: as many keys for
    any model), and the loads of every layer for `moe.plot_loads`.

    Args:
        path: The file; it is appended to, so that a resumed run goes on in it.
        loads: Whether to write every layer's loads too.

    Example:
        >>> import tempfile, torch
        >>> from metier import moe
        >>> b = moe.balancer("phi")
        >>> gate = b.add_layer(n_experts=4, top_k=1)
        >>> _ = b.observe(gate, torch.zeros(8, 4), indices=torch.arange(8).reshape(8, 1) % 4)
        >>> b.step()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = MetricsLog(f"{folder}/routing.jsonl")
        ...     log.write(b)
        ...     records = read_metrics_log(log.path)
        >>> records[0]["step"], records[0]["metrics"]["max_vio/mean"], records[0]["loads"]
        (1, 0.0, {'layer_0': [0.25, 0.25, 0.25, 0.25]})
    """

    def __init__(self, path: str | Path, *, loads: bool = True) -> None:
        self.path = Path(path)
        self.loads = loads

    def write(self, balancer: Balancer, *, more: Mapping[str, float] | None = None) -> None:
        """Append one line for the balancer's last step; in data parallelism on one rank only.

        Args:
            balancer: A balancer that finished a step.
            more: Further figures of the loop, such as the task loss.
        """
        if balancer.last is None:
            raise InputError(
                "a log follows finished steps",
                expected="balancer.step() before write",
                got="no finished step",
                next_step="Call write after step.",
            )
        record: dict[str, Any] = {
            "step": balancer.steps,
            "metrics": {**balancer.metrics(), **dict(more or {})},
        }
        if self.loads:
            shares = {name: row / row.sum() for name, row in balancer.last.counts().items()}
            record["loads"] = {name: [round(x, 6) for x in row.tolist()] for name, row in shares.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(record)) + "\n")


def read_metrics_log(path: str | Path) -> list[dict[str, Any]]:
    """Return the lines of a log; a last line that was cut off is left out.

    Args:
        path: The file that `MetricsLog` wrote.

    Returns:
        One record a step: "step", "metrics", and "loads" by layer.

    Raises:
        InputError: A line that is not the last is no JSON object.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(f"{folder}/a.jsonl").write_text('{"step": 1}\\n{"st')
        ...     read_metrics_log(f"{folder}/a.jsonl")
        [{'step': 1}]
    """
    records, lines = [], Path(path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise InputError(
                "a log holds one JSON object a line",
                expected="a line that MetricsLog wrote",
                got=f"line {number} of {path}: {error}",
                next_step="Repair or delete that line.",
            ) from error
    return records


def _plain(value: Any) -> Any:
    # JSON has no NaN; null says that a figure has no value.
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plot_loads(log: str | Path | Sequence[dict[str, Any]], *, max_layers: int = 12) -> Any:
    """Draw the load of every expert over time, one panel per layer, relative to balance.

    White is the mean load 1/E, red above, blue below; the color's scale ends at an empty expert and at twice
    the mean. Of more layers than `max_layers` those with the worst mean MaxVio are drawn.

    Args:
        log: A file that `MetricsLog` wrote, or its records.
        max_layers: Most panels.

    Returns:
        A matplotlib figure: `figure.savefig("loads.svg")`.

    Raises:
        InputError: The log holds no loads.

    Example:
        >>> records = [{"step": t, "loads": {"gate": [0.5, 0.5]}} for t in range(3)]
        >>> len(plot_loads(records).axes)
        2
    """
    records = read_metrics_log(log) if isinstance(log, str | Path) else list(log)
    series = _series(records)
    worst = sorted(series, key=lambda name: -float((series[name][1].max(1)).mean()))
    worst_few = set(worst[: positive_int("max_layers", max_layers)])
    drawn = [name for name in series if name in worst_few]
    columns = min(3, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * columns + 0.8, 2.1 * rows + 0.6), layout="constrained")
    image = None
    panels = []
    for i, name in enumerate(drawn):
        steps, relative = series[name]
        axes = figure.add_subplot(rows, columns, i + 1)
        image = axes.pcolormesh(
            steps,
            np.arange(relative.shape[1]),
            relative.T,
            cmap="RdBu_r",
            vmin=0.0,
            vmax=2.0,
            shading="nearest",
        )
        axes.set_title(f"{name}\nMaxVio of the last step {relative[-1].max() - 1:.2f}", fontsize=8)
        axes.set_ylabel("expert" if i % columns == 0 else "", fontsize=8)
        axes.set_xlabel("step" if i // columns == rows - 1 else "", fontsize=8)
        axes.tick_params(labelsize=7)
        panels.append(axes)
    bar = figure.colorbar(image, ax=panels, shrink=0.8)  # type: ignore[arg-type]
    bar.set_label("load relative to the mean", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def plot_composition(table: Any, *, labels: Sequence[Any], title: str = "") -> Any:
    """Draw how much more often than on average each label's tokens chose each expert.

    A cell is log2 of P(expert | label) / P(expert): 0 where the label does not matter. Cells that were never
    counted are gray. Experts are ordered by the label they favor, unused ones last.

    Args:
        table: Counts, (labels, E), as `moe.composition` returns.
        labels: Names of the rows.
        title: Title of the picture, for example the layer's name.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: The table does not fit the labels, or is empty.

    Example:
        >>> figure = plot_composition([[8, 2], [1, 9]], labels=["code", "law"])
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['code', 'law']
    """
    counts = finite_array("table", table, ndim=2)
    ensure(
        counts.shape[0] == len(labels) and counts.size > 0 and counts.min() >= 0 and counts.sum() > 0,
        "a composition is a table of counts, labels x experts",
        expected=f"{len(labels)} rows of at least 0, not all 0",
        got=f"shape {counts.shape}, sum {counts.sum():g}",
        next_step="Pass what moe.composition returned.",
    )
    lift = _lift(counts)
    favored = np.argmax(np.nan_to_num(lift, nan=-np.inf), axis=0)
    favored[counts.sum(0) == 0] = len(labels)
    order = np.lexsort((-np.nan_to_num(lift.max(0)), favored))
    from matplotlib.figure import Figure

    figure = Figure(
        figsize=(1.8 + 0.32 * counts.shape[1], 1.2 + 0.32 * counts.shape[0]), layout="constrained"
    )
    axes = figure.add_subplot()
    axes.set_facecolor("0.8")
    image = axes.imshow(lift[:, order], cmap="RdBu_r", vmin=-3, vmax=3, aspect="auto")
    axes.set_yticks(range(len(labels)), [str(label) for label in labels], fontsize=8)
    axes.set_xticks(range(counts.shape[1]), [str(e) for e in order], fontsize=7)
    axes.set_xlabel("expert", fontsize=8)
    axes.set_title(title, fontsize=9)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("log2 P(expert | label) / P(expert)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def _series(records: Sequence[dict[str, Any]]) -> dict[str, tuple[NDArray[Any], NDArray[np.float64]]]:
    """Return by layer the steps and the relative loads (steps, E)."""
    series: dict[str, tuple[list[int], list[NDArray[np.float64]]]] = {}
    for record in records:
        for name, row in (record.get("loads") or {}).items():
            steps, loads = series.setdefault(name, ([], []))
            steps.append(record["step"])
            loads.append(np.asarray(row, dtype=np.float64) * len(row))
    ensure(
        bool(series),
        "a picture of loads needs a log of loads",
        expected='records with "loads"',
        got=f"{len(records)} records without",
        next_step="Write the log with moe.MetricsLog(path, loads=True).",
    )
    return {name: (np.asarray(steps), np.stack(loads)) for name, (steps, loads) in series.items()}


def _lift(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    rows, columns = counts.sum(1, keepdims=True), counts.sum(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        lift: NDArray[np.float64] = np.log2(counts / rows * counts.sum() / columns)
    return np.clip(lift, -6.0, 6.0)
