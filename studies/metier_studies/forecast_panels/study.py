"""Study `forecast-panels`: over many panels, what does it cost not to know the best candidate in advance?"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from metier.core import InputError, derive_seed
from metier.core.checks import one_of
from metier.forecast.gate.reasons import FLAGS
from metier.forecast.report import IN_USE
from metier.runs import DataUsed, Losses, Progress, Result, Run, Section, Study
from metier_studies.forecast_panels.cases import CASES, PanelCase, Splits, judge, split
from metier_studies.forecast_panels.tables import (
    gain_claim,
    headline,
    losses_figure,
    panels_table,
    regret_claim,
    regret_figure,
)

Origins = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class PanelsConfig:
    """What the study runs.

    Args:
        panels: names of `CASES`; those whose package is not installed are left out, and the notes say so.
        max_series, max_steps, n_windows: at most so many, below what the panel's case says.
        gate, assign_on, model: as in `ClusterForecaster`.
    """

    panels: tuple[str, ...] = tuple(CASES)
    max_series: int | None = None
    max_steps: int | None = None
    n_windows: int | None = None
    gate: str = "crossfit"
    assign_on: str = "val"
    model: str = "ridge"

    def case(self, name: str) -> PanelCase:
        """The panel's case within these limits."""
        case = CASES[one_of("panels", name, CASES)]
        return replace(
            case,
            max_series=least(case.max_series, self.max_series),
            max_steps=least(case.max_steps, self.max_steps),
            n_windows=min(case.n_windows, self.n_windows or case.n_windows),
        )


def least(*limits: int | None) -> int | None:
    """The lower of the limits that are set.

    Example:
        >>> least(None, 5), least(3, 5), least(None, None)
        (5, 3, None)
    """
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def run(config: PanelsConfig, run: Run, progress: Progress) -> Result:
    """Refit at every origin of every panel and compare the choice with each candidate in hindsight."""
    cases = {name: config.case(name) for name in config.panels}
    absent = [name for name, case in cases.items() if not case.installed]
    if len(cases) - len(absent) < 2:
        raise InputError(
            "a comparison over panels needs at least two of them",
            expected="two panels or more whose packages are installed",
            got=", ".join(name for name in cases if name not in absent) or "none",
            next_step="Name more panels, or install the bench extra.",
        )
    facts, origins = {}, {}
    for name, case in cases.items():
        if name not in absent:
            facts[name], origins[name] = _panel(name, case, config, run, progress)
    return _result(config, run, cases, facts, origins, absent)


def _panel(
    name: str, case: PanelCase, config: PanelsConfig, run: Run, progress: Progress
) -> tuple[dict[str, Any], Origins]:
    """Facts of the panel, and what every origin found; a resumed run loads it only if something is left."""
    loaded: list[Splits] = []

    def splits() -> Splits:
        if not loaded:
            loaded.append(split(case, run.seed))
        return loaded[0]

    facts = run.cell(f"{name}/panel", lambda: facts_of(splits()))
    progress.stage(f"{name}: {facts['n_series']} series x {facts['n_steps']} steps")

    def origin(window: int) -> dict[str, Any]:
        cutoff = splits().cutoffs[window]
        rng = derive_seed(run.seed, "forecast-panels", name)
        settings = {"gate": config.gate, "assign_on": config.assign_on, "model": config.model, "rng": rng}
        return judge(case, splits(), cutoff, **settings)

    windows = progress.track(range(case.n_windows), f"{name}: origins")
    return facts, [run.cell(f"{name}/origin-{w}", partial(origin, w)) for w in windows]


def facts_of(splits: Splits) -> dict[str, Any]:
    """Plain facts of a panel as it is judged."""
    values = np.ascontiguousarray(splits.data.values)
    return {
        "n_series": splits.data.n_series,
        "n_steps": splits.data.n_steps,
        "freq": splits.data.freq,
        "filled": float(1.0 - splits.observed.mean()),
        "stamps": [str(splits.data.stamps[cutoff - 1].astype("datetime64[m]")) for cutoff in splits.cutoffs],
        "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        "provenance": splits.data.provenance,
    }


def _result(
    config: PanelsConfig,
    run: Run,
    cases: Mapping[str, PanelCase],
    facts: Mapping[str, dict[str, Any]],
    origins: Mapping[str, Origins],
    absent: Sequence[str],
) -> Result:
    squared = {name: stacked(rows, "squared") for name, rows in origins.items()}
    chosen = {name: [row["chosen"] for row in rows] for name, rows in origins.items()}
    mase = {name: float(np.mean(stacked(rows, "mase")[IN_USE])) for name, rows in origins.items()}
    keys = [f"{name} {stamp}" for name in origins for stamp in facts[name]["stamps"]]
    return run.result(
        family="forecast",
        title=STUDY.title,
        question=STUDY.question,
        headline=headline(squared, chosen),
        claims=(regret_claim(squared, command=run.command), gain_claim(squared, command=run.command)),
        sections=(
            Section(
                title="What not knowing costs",
                text="At every origin the forecaster is fitted on the past alone and makes its choice. "
                "Afterwards the best candidate is known: regret is how much larger the loss of the choices "
                "was than that of the one candidate that did best over all origins. A choice that follows "
                "the panel as it changes can be better than any fixed candidate; then regret is negative.",
                figures=(regret_figure(squared), losses_figure(squared)),
                tables=(panels_table(cases, facts, squared, chosen, mase),),
            ),
        ),
        losses=(
            Losses(
                id="choice",
                description="squared error of the choice on the scale of the past, relative to the global "
                "model's mean on the panel, one value per origin",
                unit="origin",
                keys=keys,
                values=np.concatenate([s[IN_USE] / s["global"].mean() for s in squared.values()]),
                dependence="groups",
                groups=[name for name, rows in origins.items() for _ in rows],
            ),
        ),
        data=tuple(
            DataUsed(name=name, sha256=fact["sha256"], description=fact["provenance"])
            for name, fact in facts.items()
        ),
        notes=_notes(cases, facts, origins, absent),
    )


def stacked(rows: Origins, metric: str) -> dict[str, np.ndarray]:
    """Metric of every forecast by origin; where an origin lacks a candidate, the global model's."""
    names = dict.fromkeys(name for row in rows for name in row[metric])
    return {name: np.array([row[metric].get(name, row[metric]["global"]) for row in rows]) for name in names}


def _notes(
    cases: Mapping[str, PanelCase],
    facts: Mapping[str, dict[str, Any]],
    origins: Mapping[str, Origins],
    absent: Sequence[str],
) -> tuple[str, ...]:
    missing = [f"{name} (package {cases[name].package})" for name in absent]
    filled = [f"{name} {fact['filled']:.1%}" for name, fact in facts.items() if fact["filled"] > 0]
    flags = {
        name: sorted({row["flag"] for row in rows if row["flag"]})
        for name, rows in origins.items()
        if any(row["flag"] for row in rows)
    }
    notes = []
    if missing:
        notes.append("Not measured, since their package is not installed: " + ", ".join(missing) + ".")
    if filled:
        notes.append(
            "Missing values are carried forward from the past and never scored: " + ", ".join(filled) + "."
        )
    notes.extend(
        f"On {name} the gate {'; at other origins it '.join(FLAGS[code] for code in codes)}."
        for name, codes in flags.items()
    )
    return tuple(notes)


STUDY = Study(
    name="forecast-panels",
    family="forecast",
    title="Forecasting many panels: what the choice costs against hindsight",
    question="Over panels of many kinds, how far is the forecaster's choice from the best candidate?",
    sizes={
        "tour": PanelsConfig(
            panels=("flights_hourly", "flights_routes", "simulated_strong", "simulated_homogeneous"),
            max_series=40,
            max_steps=1008,
            n_windows=3,
        ),
        "standard": PanelsConfig(),
        "full": PanelsConfig(),
    },
    run=run,
    claims=("panels-regret", "panels-gain"),
    paired_on=("panels", "max_series", "max_steps", "n_windows"),
)
