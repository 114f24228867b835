"""Tables of the study `partners`: populations with intervals, the paper's beside ours, partner by partner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metier.runs import Column, Measured, Table

from .intervals import (
    FEWEST_COVERED,
    MEASURES,
    SHARE_CAPABLE,
    Facts,
    counts_as_population,
    mean_over_seeds,
)
from .published import PUBLISHED
from .settings import PartnersConfig

Cells = Mapping[str, Sequence[Facts]]


def populations(config: PartnersConfig, cells: Cells, floor: float) -> Table:
    """Return D, S, I, O, R of every population with their intervals."""
    rows = tuple(
        (
            arm,
            float(np.mean([sum(f["capable"]) for f in facts])),
            float(np.mean([f["covered"] for f in facts])),
            *(mean_over_seeds(facts, letter) for letter in MEASURES),
            all(counts_as_population(config, f) for f in facts),
        )
        for arm, facts in cells.items()
    )
    return Table(
        id="populations",
        title=f"Populations: means over {config.n_seeds} seed{'' if config.n_seeds == 1 else 's'}",
        columns=(
            Column(name="population"),
            Column(name="capable", kind="number", digits=1),
            Column(name="behaviours", kind="number", digits=1),
            *(
                Column(name=letter, unit="nats" if letter in "DSI" else "", kind="estimate", digits=2)
                for letter in MEASURES
            ),
            Column(name="counts"),
        ),
        rows=rows,
        caption=f"{config.n_members} partners each. "
        + (
            "All exact within a seed. "
            if config.game == "lever"
            else f"{config.episodes} episodes per partner. "
        )
        + f"The floor of O, with the scripted specialists, is {floor:.2f}. Intervals of 95 % hold seeds and "
        f"the episodes within them. A population counts if {100 * SHARE_CAPABLE:.0f} % of its partners are "
        f"capable and {FEWEST_COVERED} behaviours are covered in every seed.",
    )


def published(config: PartnersConfig, cells: Cells) -> tuple[Table, ...]:
    """Return the paper's table beside ours, for its game."""
    if config.game != "cooking" or config.layout != "full_divider":
        return ()
    rows: list[tuple[Any, ...]] = []
    for arm, facts in cells.items():
        paper = PUBLISHED.get(arm)
        row: list[Any] = [arm]
        for letter in "DSOR":
            row += [getattr(paper, letter, None), mean_over_seeds(facts, letter).value]
        share = None if paper is None or paper.capable is None else paper.capable / 8.0
        capable = float(np.mean([sum(f["capable"]) for f in facts])) / config.n_members
        rows.append((*row, share, capable))
    return (
        Table(
            id="published",
            title="The paper's Tables 3 and 4 beside ours",
            columns=(
                Column(name="population"),
                *(
                    Column(name=f"{letter}, {whose}", kind="number", digits=2)
                    for letter in "DSOR"
                    for whose in ("paper", "ours")
                ),
                Column(name="capable, paper", kind="percent", digits=0),
                Column(name="capable, ours", kind="percent", digits=0),
            ),
            rows=tuple(rows),
            caption="The paper has 8 partners, 1.28 billion steps per population, trained instead of "
            "scripted specialists, and two layers of 256 units in its generalist; ours are smaller.",
        ),
    )


def with_specialists(config: PartnersConfig, cells: Cells, names: Sequence[str]) -> Table:
    """Return every generalist's success with every held-out specialist."""
    rows = []
    for arm, facts in cells.items():
        shares = np.mean([f["with_strangers"]["success"] for f in facts], axis=0)
        rows.append((arm, *shares.tolist(), mean_over_seeds(facts, "R").value))
    return Table(
        id="specialists",
        title="Success of the generalists with each held-out specialist",
        columns=(
            Column(name="trained with"),
            *(Column(name=name, kind="percent", digits=0) for name in names),
            Column(name="R", kind="number", digits=2),
        ),
        rows=tuple(rows),
        caption="Means over seeds; R is the mean over seeds of the harmonic mean.",
    )


def partner_rows(config: PartnersConfig, cells: Cells) -> tuple[Table, ...]:
    """Return why the oracle fails with partners: handshake or competence; and who punishes strangers."""
    rows = []
    for arm, facts in cells.items():
        for seed, f in enumerate(facts):
            for k, gap in enumerate(f.get("sabotage", ())):
                split = f["split"][k] or {}
                shown, total = sum(f["counts"][k]), sum(f["counts"][k]) + f["failures"][k]
                rows.append(
                    (
                        arm,
                        seed,
                        k,
                        shown / total,
                        f["with_oracle"]["success"][k],
                        split.get("index"),
                        split.get("mismatch"),
                        Measured(value=gap["value"], low=gap["low"], high=gap["high"], level=0.95),
                    )
                )
    if not rows:
        return ()
    return (
        Table(
            id="partners",
            title="Partner by partner, with the oracle",
            columns=(
                Column(name="population"),
                Column(name="seed", kind="integer"),
                Column(name="partner", kind="integer"),
                Column(name="success with itself", kind="percent", digits=0),
                Column(name="success with the oracle", kind="percent", digits=0),
                Column(name="handshake index", kind="number", digits=2),
                Column(name="state mismatch", kind="number", digits=2),
                Column(name="sabotage gap", unit="return", kind="estimate", digits=1),
            ),
            rows=tuple(rows),
            caption=f"Handshake index: what the first {config.prefix_steps} steps, played by the partner's "
            "own mate, are worth; state mismatch: what fails even then. Sabotage gap: return with the oracle "
            "minus that with the better of an idle and a random mate; below 0 the partner punishes.",
        ),
    )


def exact_beside_counts(cells: Cells) -> tuple[Table, ...]:
    """Return exact values beside those estimated from episodes, where there are exact ones."""
    rows = []
    for arm, facts in cells.items():
        for seed, f in enumerate(facts):
            exact = f.get("exact")
            if exact and "information" in exact and "told" in f:
                pairs = np.array(exact["cross_play"])
                off = pairs[~np.eye(len(pairs), dtype=bool)].mean()
                value, error = f["told"]["information"], f["told"]["stderr"]["information"]
                rows.append(
                    (
                        arm,
                        seed,
                        float(np.diag(pairs).mean()),
                        float(off),
                        exact["diversity"],
                        exact["specialization"],
                        exact["information"],
                        Measured(value=value, low=value - 1.96 * error, high=value + 1.96 * error, level=0.95)
                        if error
                        else value,
                    )
                )
    if not rows:
        return ()
    numbers = ("return with itself", "with others", "D", "S", "I")
    return (
        Table(
            id="populations-exact",
            title="By dynamic programming, beside counted episodes",
            columns=(
                Column(name="population"),
                Column(name="seed", kind="integer"),
                *(Column(name=name, kind="number", digits=3) for name in numbers),
                Column(name="I from counts", kind="estimate", digits=3),
            ),
            rows=tuple(rows),
            caption="Exact values of the trained partners; the last column estimates I from episodes.",
        ),
    )
