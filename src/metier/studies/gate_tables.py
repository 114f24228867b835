"""Tables of the study `forecast-gate`."""

from __future__ import annotations

from collections.abc import Mapping

from metier.runs import Column, Table
from metier.studies.gate_measures import (
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
from metier.studies.shares import mean, ratio

CASES = {
    "strong": ("four strong regimes", 4),
    "medium": ("two regimes, half as far apart", 2),
    "medium-anomalies": ("the same with 1 % gross errors", 2),
    "noise-pinball": ("two noise shapes, pinball loss", 2),
    "noise-huber": ("two noise shapes, Huber loss", 2),
    "noise-control": ("one noise shape, pinball loss", 1),
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
            rows.append(
                (
                    known_gain(found),
                    f"{SIZES[key]}, no regimes" if key in SIZES else "three regimes",
                    name,
                    mean([trial["ari"] for trial in found], unit="panels"),
                    adoption(found, "crossfit"),
                    mean(candidate_gains(found, "clustered"), percent=True, unit="panels"),
                )
            )
    return Table(
        id="assigned-on",
        title="The same panels, assigned on other rows",
        columns=(
            Column(name="known gain", kind="percent", digits=1),
            Column(name="panels"),
            Column(name="assigned on"),
            Column(name="adjusted Rand index", kind="estimate"),
            Column(name="adopted by the default gate", kind="estimate"),
            Column(name="TEST gain without a gate", kind="estimate"),
        ),
        rows=tuple(rows),
        emphasis=tuple(range(1, len(rows), 2)),
        caption="On TRAIN every series is left out of its own cluster exactly, so that it does not vote for "
        "itself.",
    )


def recovery_table(trials: Mapping[str, Trials]) -> Table:
    """Recovery of known regimes, and what it is worth."""
    rows = []
    for key, (name, regimes) in CASES.items():
        found, used, true = trials[key], gains(trials[key], "crossfit"), candidate_gains(trials[key], "true")
        rows.append(
            (
                name,
                regimes,
                mean([trial["ari"] for trial in found], unit="panels"),
                adoption(found, "crossfit"),
                mean(used, percent=True, unit="panels"),
                mean(true, percent=True, unit="panels"),
                ratio(used, true, unit="panels") if regimes > 1 else None,
            )
        )
    return Table(
        id="recovery",
        title="Known regimes",
        columns=(
            Column(name="panels"),
            Column(name="regimes", kind="integer"),
            Column(name="adjusted Rand index", kind="estimate"),
            Column(name="adopted", kind="estimate"),
            Column(name="TEST gain", kind="estimate"),
            Column(name="TEST gain of the true partition", kind="estimate"),
            Column(name="share of it", kind="estimate"),
        ),
        rows=tuple(rows),
        caption="Means over panels with 95 % intervals; the index judges the partition, adopted or not.",
    )
