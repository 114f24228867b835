"""Tables of the study `moe-balancing`: every balancer beside phi, and the strengths that were tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metier.runs import Column, Section, Table
from metier_studies.lib.paired_seeds import Rows, decide, detectable, holm, mean_of, of, paired, two_sided
from metier_studies.moe_balancing.arms import ARMS
from metier_studies.moe_balancing.claims import excess

SIDES = {
    "pays": "worse than phi",
    "hurts": "better than phi",
    "equivalent": "equivalent",
    "undecided": "open",
}
"""Verdicts on phi beside a balancer, from the balancer's side."""


def arms_table(
    table_id: str,
    title: str,
    found: Mapping[str, Rows],
    tuned: Mapping[str, Any],
    ngram: float,
    *,
    margin: float,
) -> Table:
    """One row per balancer."""
    phi = of(found["phi"], "loss")
    others = [arm for arm in found if arm != "phi"]
    adjusted = dict(
        zip(others, holm([two_sided(phi, of(found[arm], "loss")) for arm in others]), strict=True)
    )
    rows = []
    for arm, seeds in found.items():
        ours, theirs = paired(phi, of(seeds, "loss"))
        rows.append(
            (
                ARMS[arm].words,
                tuned[arm]["strength"],
                len(seeds),
                mean_of(of(seeds, "loss")),
                float(ngram - of(seeds, "loss").mean()),
                None if arm == "phi" else mean_of(theirs - ours),
                None if arm == "phi" else SIDES[decide(ours, theirs, margin=margin).verdict],
                None if arm == "phi" else adjusted[arm],
                None if arm == "phi" else detectable(ours, theirs),
                float(of(seeds, "max_vio").mean()),
                float(of(seeds, "batch_max_vio").mean()),
                float(of(seeds, "dead").mean()),
                float(excess(seeds).mean()),
                float(of(seeds, "null_p").max()),
            )
        )
    return Table(
        id=table_id,
        title=title,
        columns=(
            Column(name="balancer"),
            Column(name="strength", kind="number", digits=4),
            Column(name="seeds", kind="integer"),
            Column(name="validation loss", unit="nats per byte", kind="estimate"),
            Column(name="below the n-gram", unit="nats", kind="number", digits=3),
            Column(name="above phi, paired", unit="nats per byte", kind="estimate"),
            Column(name="verdict"),
            Column(name="p, Holm", kind="p_value"),
            Column(name="least detectable difference to phi", unit="nats", kind="number", digits=4),
            Column(name="MaxVio, all text", kind="number", digits=2),
            Column(name="MaxVio, batch", kind="number", digits=2),
            Column(name="dead experts", kind="number", digits=1),
            Column(
                name="domain information beyond the byte", unit="nats above null", kind="number", digits=4
            ),
            Column(name="largest p of a seed", kind="p_value"),
        ),
        rows=tuple(rows),
        caption="Above phi: mean over the seeds that both have, with its 95 % t interval; arms with fewer "
        f"seeds have means over fewer. Verdict at two-sided 5 %, equivalent within {margin:g}; p of the "
        "paired t test, adjusted over the rows. Dead: experts with under min(1 %, 10 % / E) of the "
        "choices, all layers together. The least detectable difference has 80 % power at two-sided 5 %.",
    )


def tuning_section(tuned: Mapping[str, Any]) -> tuple[Section, ...]:
    """All strengths that were tried; nothing where none were."""
    rows = [
        (
            ARMS[arm].words,
            strength,
            loss,
            max_vio,
            "chosen, at the edge"
            if strength == found["strength"] and at_edge(found)
            else "chosen"
            if strength == found["strength"]
            else "",
        )
        for arm, found in tuned.items()
        for strength, loss, max_vio in found["trials"]
    ]
    if not rows:
        return ()
    table = Table(
        id="tuning",
        title="Strengths that were tried",
        columns=(
            Column(name="balancer"),
            Column(name="strength", kind="number", digits=5),
            Column(name="tuning loss", unit="nats per byte", kind="number", digits=4),
            Column(name="MaxVio", kind="number", digits=2),
            Column(name=""),
        ),
        rows=tuple(rows),
    )
    text = (
        "Among the strengths whose loss on the tuning documents is within the slack of the best, the most "
        "even is chosen."
    )
    return (Section(title="Equal tuning", text=text, tables=(table,)),)


def at_edge(found: Mapping[str, Any]) -> bool:
    """Whether the chosen strength is the first or last that was tried."""
    strengths = [trial[0] for trial in found["trials"]]
    return bool(strengths) and found["strength"] in (min(strengths), max(strengths))
