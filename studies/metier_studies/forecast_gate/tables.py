"""Tables of the study `forecast-gate`."""

from __future__ import annotations

from collections.abc import Mapping

from metier.runs import Column, Table
from metier_studies.forecast_gate.measures import (
    GATE_NAMES,
    SHOWN,
    SIZES,
    Trials,
    adoption,
    candidate_gains,
    gains,
    harmed,
    known_gain,
    power_cases,
)
from metier_studies.lib.shares import mean, ratio

CASES = {
    "strong": "four strong regimes",
    "medium": "two nearer regimes",
    "medium-anomalies": "the same, 1 % gross errors",
    "noise-pinball": "two noise shapes, pinball",
    "noise-huber": "two noise shapes, Huber",
    "noise-control": "one noise shape, pinball",
}


def size_table(trials: Mapping[str, Trials]) -> Table:
    """Adoption and TEST gain of every gate on panels without regimes."""
    rows = tuple(
        (
            size,
            name,
            adoption(trials[key], gate),
            mean(gains(trials[key], gate), percent=True, unit="panels"),
        )
        for key, size in SIZES.items()
        for gate, name in GATE_NAMES.items()
    )
    return Table(
        id="size-by-gate",
        title="Panels without regimes",
        columns=(
            Column(name="panel"),
            Column(name="gate"),
            Column(name="adopted", kind="estimate"),
            Column(name="TEST gain of what is used", kind="estimate"),
        ),
        rows=rows,
        emphasis=tuple(i for i, row in enumerate(rows) if row[1] == GATE_NAMES["crossfit"]),
        caption="Adoption with exact 95 % intervals; gains over the global model with Student intervals. The "
        "tests promise a rate of at most 5 %, the mean and the fall-back promise nothing.",
    )


def power_table(trials: Mapping[str, Trials]) -> Table:
    """Adoption, harm and TEST gain of every gate by known gain."""
    rows = tuple(
        (
            known_gain(trials[key]),
            GATE_NAMES[gate],
            adoption(trials[key], gate),
            harmed(trials[key], gate),
            mean(gains(trials[key], gate), percent=True, unit="panels"),
        )
        for key in power_cases(trials)
        for gate in SHOWN
    )
    return Table(
        id="power-by-gate",
        title="Panels with three regimes",
        columns=(
            Column(name="known gain", kind="percent", digits=1),
            Column(name="gate"),
            Column(name="adopted", kind="estimate"),
            Column(name="TEST made worse", kind="estimate"),
            Column(name="TEST gain of what is used", kind="estimate"),
        ),
        rows=rows,
        emphasis=tuple(i for i, row in enumerate(rows) if row[1] == GATE_NAMES["crossfit"]),
        caption="Shares of panels with exact 95 % intervals; gains over the global model with Student "
        "intervals.",
    )


def assign_table(trials: Mapping[str, Trials]) -> Table:
    """The same panels divided on VAL alone and on TRAIN and VAL."""
    rows = []
    for key in (*SIZES, *power_cases(trials)):
        both = trials[f"both-{key}"]
        for name, found in (("VAL", trials[key][: len(both)]), ("TRAIN and VAL", both)):
            recovered = None if key in SIZES else mean([trial["ari"] for trial in found], unit="panels")
            rows.append(
                (
                    f"0, {SIZES[key].split(' x ')[0]}"
                    if key in SIZES
                    else f"{100 * known_gain(found):.1f} %",
                    name,
                    recovered,
                    adoption(found, "crossfit"),
                    mean(candidate_gains(found, "clustered"), percent=True, unit="panels"),
                )
            )
    return Table(
        id="assigned-on",
        title="The same panels, assigned on other rows",
        columns=(
            Column(name="known gain"),
            Column(name="assigned on"),
            Column(name="Rand index", kind="estimate"),
            Column(name="adopted", kind="estimate"),
            Column(name="TEST gain without a gate", kind="estimate"),
        ),
        rows=tuple(rows),
        emphasis=tuple(range(1, len(rows), 2)),
        caption="Adjusted Rand index; adoption by the default gate. On TRAIN every series is left out of its "
        "own cluster exactly, so that it does not vote for itself.",
    )


def recovery_table(trials: Mapping[str, Trials]) -> Table:
    """Recovery of known regimes, and what it is worth."""
    rows = []
    for key, name in CASES.items():
        found, used = trials[key], gains(trials[key], "crossfit")
        true = candidate_gains(found, "true")
        known = key != "noise-control"
        rows.append(
            (
                name,
                mean([trial["ari"] for trial in found], unit="panels") if known else None,
                adoption(found, "crossfit"),
                mean(used, percent=True, unit="panels"),
                mean(true, percent=True, unit="panels") if known else None,
                ratio(used, true, unit="panels") if known else None,
            )
        )
    return Table(
        id="recovery",
        title="Known regimes",
        columns=(
            Column(name="panels"),
            Column(name="Rand index", kind="estimate"),
            Column(name="adopted", kind="estimate"),
            Column(name="TEST gain", kind="estimate"),
            Column(name="of the truth", kind="estimate"),
            Column(name="share of it", kind="estimate"),
        ),
        rows=tuple(rows),
        caption="Means over panels with 95 % intervals. The adjusted Rand index judges the partition, "
        "adopted or not; the truth is the true partition fitted by the same learner.",
    )
