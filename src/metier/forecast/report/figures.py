"""Figures and tables of a fitted forecaster, from plain values: for the study and for a file of your own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.records import (
    Column,
    Figure,
    IntervalRow,
    Intervals,
    Lines,
    Measured,
    Panel,
    Panels,
    Reference,
    Series,
    Table,
)

Floats = NDArray[np.float64]

WORDS = {
    "global": "one global model",
    "local": "one model per series",
    "clustered": "clusters by validation loss",
    "feature": "clusters by k-means of coefficients",
    "random": "random balanced clusters",
    "in use": "in use",
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def letter(cluster: int) -> str:
    """The name of a cluster in figures: A, B, ...

    Example:
        >>> letter(0), letter(27)
        ('A', 'B2')
    """
    turn, place = divmod(cluster, len(LETTERS))
    return LETTERS[place] + (str(turn + 1) if turn else "")


def _which(cluster: int, names: Mapping[int, str]) -> str:
    return letter(cluster) if cluster in names else "other"


def gain_figure(gains: Mapping[str, Measured], *, where: str, in_use: str) -> Figure:
    """Each candidate's relative gain over the global model with its interval; the one in use stands out."""
    rows = tuple(
        IntervalRow(
            label=WORDS.get(name, name),
            value=100 * gain.value,
            low=100 * (gain.value if gain.low is None else gain.low),
            high=100 * (gain.value if gain.high is None else gain.high),
            emphasis=name == in_use,
        )
        for name, gain in gains.items()
    )
    said = "; ".join(f"{row.label} {row.value:.1f} % ({row.low:.1f} to {row.high:.1f})" for row in rows)
    return Figure(
        id="gain-by-candidate",
        title="Gain over one global model",
        caption=f"Share of the global model's loss that each way of dividing saves {where}, with 95 % "
        f"intervals "
        "that allow for dependence in time and across series. Right of zero is better.",
        alt=f"Dots with intervals: {said}.",
        data=Intervals(x_label="gain over the global model (%)", rows=rows),
    )


def trace_figure(trace: Mapping[str, Any]) -> Figure | None:
    """The objective of the chosen clustering run; None where there is no step to show."""
    raw, best = list(trace["raw"]), list(trace["best"])
    if len(raw) < 2:
        return None
    steps = list(range(1, len(raw) + 1))
    runs = f"Of {trace['runs']} runs, {trace['rises']} rose at some step and {trace['converged']} settled"
    return Figure(
        id="objective",
        title="How the chosen clustering was found",
        caption="Mean validation loss of the series in their clusters, relative to the global model. "
        "Refitting "
        "lowers the training loss and reassigning the validation loss, so the raw curve may rise; the best "
        f"iterate is kept. {runs}.",
        alt=f"Two curves over {len(raw)} iterations: the raw objective goes from {raw[0]:.4f} to "
        f"{raw[-1]:.4f}, "
        f"the best so far falls to {best[-1]:.4f}.",
        data=Lines(
            x_label="iteration",
            y_label="validation loss / global",
            series=(
                Series(name="raw", x=steps, y=raw, style="line+points"),
                Series(name="best so far", x=steps, y=best, style="steps"),
            ),
        ),
    )


def examples_figure(
    examples: Sequence[Mapping[str, Any]], names: Mapping[int, str], *, unit: str, caption: str
) -> Figure | None:
    """One series per cluster: what came, what was forecast, and the 80 % interval."""
    if not examples:
        return None
    panels = tuple(
        Panel(
            title=f"{_which(e['cluster'], names)}: {e['series']}",
            note=names.get(e["cluster"], "served by the global model"),
            series=tuple(s for s in (_actual(e), _forecast(e)) if s is not None),
        )
        for e in examples
    )
    which = ", ".join(f"{_which(e['cluster'], names)} {e['series']}" for e in examples)
    numbered = np.issubdtype(np.asarray(examples[0]["stamps"]).dtype, np.number)
    return Figure(
        id="examples",
        title="An example from each cluster",
        caption=caption,
        alt=f"Small plots of actual values and forecasts with 80 % bands for {which}.",
        data=Panels(
            x_label="time",
            y_label=unit,
            panels=panels,
            columns=2,
            x_scale="linear" if numbered else "time",
        ),
    )


def _actual(example: Mapping[str, Any]) -> Series | None:
    known = [(x, y) for x, y in zip(example["stamps"], example["actual"], strict=True) if y is not None]
    if not known:
        return None
    return Series(name="actual", x=[x for x, _ in known], y=[y for _, y in known], style="muted")


def _forecast(example: Mapping[str, Any]) -> Series:
    keep = [i for i, value in enumerate(example["forecast"]) if value is not None]
    columns = {key: [example[key][i] for i in keep] for key in ("stamps", "forecast", "low", "high")}
    banded = all(value is not None for value in columns["low"])
    return Series(
        name="forecast",
        x=columns["stamps"],
        y=columns["forecast"],
        low=columns["low"] if banded else None,
        high=columns["high"] if banded else None,
    )


def series_figure(
    level: Floats,
    base: Floats,
    own: Floats,
    labels: NDArray[np.integer],
    *,
    unit: str,
    where: str,
    most: int = 1500,
) -> Figure:
    """Where specializing helped or hurt: what each series saves beside its level, one color per cluster.

    Args:
        level: (n,) mean level in the unit of the target.
        base, own: (n,) mean loss under the global model and under the cluster's model.
        labels: (n,) clusters.
    """
    gain = 100 * (base - own) / float(base.mean())
    limit = 3.0 * float(np.quantile(np.abs(gain), 0.975))
    shown = np.flatnonzero(np.abs(gain) <= limit)
    beyond = len(gain) - len(shown)
    if len(shown) > most:
        shown = shown[np.linspace(0, len(shown) - 1, most).round().astype(np.intp)]
    floor = float(np.min(level[level > 0], initial=np.inf))
    logarithmic = bool(np.isfinite(floor) and (level >= 0).all() and level.max() > 20 * floor)
    x = np.maximum(level, floor) if logarithmic else level
    members = {int(k): shown[labels[shown] == k] for k in np.unique(labels[shown])}
    helped, median = int((gain > 0).sum()), float(np.median(gain))
    best, worst = float(gain.max()), float(gain.min())
    return Figure(
        id="gain-by-series",
        title="Where specializing helped and where it hurt",
        caption=f"Every dot is a series: what its cluster's model saves over the global one {where}, "
        f"in percent "
        "of the panel's mean loss, so that the dots average to the gain of the clusters. "
        f"{helped:,} of {len(gain):,} series gain; the median is {median:.1f} %."
        + (f" {beyond} beyond {limit:.0f} % either way are not drawn." if beyond else ""),
        alt=f"Scatter of gain by level: {helped} of {len(gain)} series lie above zero; gains run from "
        f"{worst:.0f} % to {best:.0f} %.",
        data=Lines(
            x_label=f"mean level ({unit})" if unit else "mean level",
            y_label="gain over the global model (%)",
            series=tuple(
                Series(name=letter(k), x=x[rows], y=gain[rows], style="points") for k, rows in members.items()
            ),
            references=(Reference(axis="y", value=0.0),),
            x_scale="log" if logarithmic else "linear",
        ),
    )


def descriptions_table(descriptions: Sequence[Mapping[str, Any]], gains: Mapping[int, float]) -> Table:
    """The clusters in words, with the relative gain of each."""
    rows = [
        (
            letter(d["cluster"]),
            d["name"],
            d["n_series"],
            gains.get(d["cluster"]),
            d["sentence"],
        )
        for d in descriptions
    ]
    return Table(
        id="clusters",
        title="The clusters in words",
        columns=(
            Column(name="cluster"),
            Column(name="in short"),
            Column(name="series", kind="integer"),
            Column(name="gain", kind="percent", digits=1),
            Column(name="in full"),
        ),
        rows=tuple(rows),
        caption="Numbers are medians over the series of a cluster; gain is the share of the global "
        "model's loss "
        "that it saves there.",
    )


def coverage_table(groups: Sequence[Mapping[str, Any]], names: Mapping[int, str], *, where: str) -> Table:
    """Coverage of the intervals per cluster."""
    rows = [
        (
            _which(g["cluster"], names),
            names.get(g["cluster"], "served by the global model"),
            g["values"],
            g["0.8"],
            g["0.95"],
        )
        for g in groups
    ]
    return Table(
        id="coverage",
        title="Coverage of the intervals",
        columns=(
            Column(name="cluster"),
            Column(name="in short"),
            Column(name="values", kind="integer"),
            Column(name="80 % interval", kind="percent", digits=1),
            Column(name="95 % interval", kind="percent", digits=1),
        ),
        rows=tuple(rows),
        caption=f"Share of the values inside the interval, {where}.",
    )


def candidates_table(
    losses: Mapping[str, Floats], gains: Mapping[str, Measured], *, naive: float, chosen: str
) -> Table:
    """Every candidate's loss and gain; the seasonal naive forecast beside them."""
    names = list(losses)
    rows = [(WORDS.get(name, name), float(losses[name].mean()), gains.get(name)) for name in names]
    return Table(
        id="candidates",
        title="Every candidate",
        columns=(
            Column(name="candidate"),
            Column(name="loss", kind="number", digits=4),
            Column(name="gain over global", kind="estimate"),
        ),
        rows=(*rows, ("the value one season before", naive, None)),
        caption="Mean loss on the scale of each series' past, where forecasting its mean costs about 1.",
        emphasis=(names.index(chosen),) if chosen in names else (),
    )
