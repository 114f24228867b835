"""Figures of the study `partners`: who gets on with whom, who does what, how they learnt, an episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metier.runs import BarGroup, Bars, Figure, Heatmap, IntervalRow, Intervals, Panel, Panels, Series

from .intervals import MEASURES, Facts, mean_over_seeds
from .settings import PartnersConfig

Cells = Mapping[str, Sequence[Facts]]


def cross_play(cells: Cells) -> tuple[Figure, ...]:
    """Return the cross-play matrix of every population of the first seed."""
    figures = []
    for arm, facts in cells.items():
        pairs = np.array(facts[0]["cross_play"])
        names = [f"partner {k}" for k in range(len(pairs))]
        own = float(np.diag(pairs).mean())
        off = float(pairs[~np.eye(len(pairs), dtype=bool)].mean())
        figures.append(
            Figure(
                id=f"cross-play-{_slug(arm)}",
                title=f"Cross-play of {arm} partners, first seed",
                caption="Mean return over both seatings; on the diagonal partners meet themselves.",
                alt=f"{arm}: mean return {own:.2f} with themselves, {off:.2f} with each other",
                data=Heatmap(
                    row_labels=names,
                    column_labels=names,
                    values=tuple(map(tuple, pairs.round(2))),
                    value_label="return",
                ),
            )
        )
    return tuple(figures)


def behaviours(cells: Cells, names: Sequence[str]) -> Figure:
    """Return what every partner of the first seed does with itself."""
    rows, labels = [], []
    for arm, facts in cells.items():
        counts = np.array(facts[0]["counts"], float)
        failed = np.array(facts[0]["failures"], float)[:, None]
        shares = np.hstack([counts, failed]) / (counts.sum(axis=1, keepdims=True) + failed)
        rows += [tuple(row) for row in shares.round(3)]
        labels += [f"{arm} {k}" for k in range(len(shares))]
    shown = {
        arm: sorted({names[int(k)] for k in np.array(f[0]["counts"]).argmax(axis=1)})
        for arm, f in cells.items()
    }
    return Figure(
        id="behaviours",
        title="What each partner does with itself, first seed",
        caption="Share of episodes that ended with each behaviour; the last column are failures.",
        alt="Most frequent: " + "; ".join(f"{arm} {', '.join(found)}" for arm, found in shown.items()),
        data=Heatmap(
            row_labels=labels,
            column_labels=[*names, "failed"],
            values=tuple(rows),
            value_label="share of episodes",
        ),
    )


def measures(cells: Cells) -> Figure:
    """Return D, S, I, O of every population with intervals."""
    rows = []
    for letter in [name for name in MEASURES if name != "R"]:
        for arm, facts in cells.items():
            found = mean_over_seeds(facts, letter)
            low, high = (found.value if end is None else end for end in (found.low, found.high))
            rows.append(IntervalRow(label=f"{letter}  {arm}", value=found.value, low=low, high=high))
    return Figure(
        id="measures",
        title="Diversity, specialization, information and overfitness",
        caption="D, S, I in nats, O a share; 95 % intervals over seeds and episodes.",
        alt="; ".join(f"{row.label}: {row.value:.2f}" for row in rows),
        data=Intervals(x_label="nats (D, S, I) or share (O)", rows=tuple(rows)),
    )


def with_specialists(cells: Cells, names: Sequence[str]) -> Figure:
    """Return the success of every generalist with each held-out specialist."""
    rates = {
        arm: np.mean([f["with_strangers"]["success"] for f in facts], axis=0) for arm, facts in cells.items()
    }
    return Figure(
        id="success-with-strangers",
        title="Success of the generalists with each held-out specialist",
        caption="Share of episodes, mean over seeds; one bar per population a generalist trained with.",
        alt="Success by specialist: "
        + "; ".join(f"{arm} {values.min():.2f} to {values.max():.2f}" for arm, values in rates.items()),
        data=Bars(
            categories=tuple(names),
            groups=tuple(BarGroup(name=arm, values=values) for arm, values in rates.items()),
            value_label="success",
        ),
    )


def learning_curves(config: PartnersConfig, curves: Mapping[str, Any]) -> Figure:
    """Return the learning curves of the first seed, one panel per training."""
    panels = []
    for name, rows in curves.items():
        steps = [row["steps"] / 1e6 for row in rows]
        if name.startswith("generalist-"):
            series = [_curve("with its partners", steps, [row["partner_return"] for row in rows])]
        else:
            returns = np.array([row["returns"] for row in rows])
            series = [_curve(f"partner {k}", steps, column) for k, column in enumerate(returns.T)]
            others = np.array([row["cross_play"] for row in rows])
            off = others[:, ~np.eye(others.shape[1], dtype=bool)].mean(axis=1)
            series.append(Series(name="with others", x=steps, y=off, style="dashed"))
        panels.append(Panel(title=name, series=tuple(series)))
    ends = "; ".join(f"{panel.title} ends at {panel.series[0].y[-1]:.2f}" for panel in panels)
    return Figure(
        id="learning-curves",
        title="Learning curves, first seed",
        caption="Mean return by millions of environment steps of the whole population: each partner with "
        "itself, and the mean with others (dashed); generalists with their partners.",
        alt=f"Returns of the first partner or generalist: {ends}",
        data=Panels(x_label="steps, millions", y_label="mean return", panels=tuple(panels)),
    )


def episode(film: Mapping[str, Any], arm: str) -> Figure:
    """Return the animated episode."""
    import base64
    import struct

    from metier.runs import Picture

    # A GIF's sixth to ninth bytes are its width and height.
    width, height = struct.unpack("<HH", base64.b64decode(film["gif"])[6:10])
    ended = f"delivers {film['delivered']}" if film["delivered"] else "delivers nothing"
    return Figure(
        id="episode",
        title="An episode",
        caption=f"The generalist that trained with {arm} partners (blue, left) and the scripted cook of "
        f"{film['cook']} (yellow, right), with whom it does best; the pair {ended} after {film['steps']} "
        "steps.",
        alt=f"Two cooks in two rooms; the pair {ended} after {film['steps']} steps",
        data=Picture(media_type="image/gif", base64=film["gif"], width=width, height=height),
    )


def _curve(name: str, steps: Sequence[float], values: Any) -> Series:
    return Series(name=name, x=steps, y=values, style="line")


def _slug(arm: str) -> str:
    return arm.replace("+", "-")
