"""Regret over panels: estimates, claims, table and figures of the study `forecast-panels`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core import Decision, Estimate, compare_paired, specialize_or_fall_back
from metier.forecast.report import IN_USE
from metier.forecast.report.figures import WORDS
from metier.runs import (
    Claim,
    Column,
    Divided,
    Figure,
    Headline,
    Heatmap,
    IntervalRow,
    Intervals,
    Measured,
    Specialized,
    Table,
    paid,
)
from metier_studies.forecast_panels.cases import PanelCase
from metier_studies.lib.claims import claim

Floats = NDArray[np.float64]
Squared = Mapping[str, Mapping[str, Floats]]
"""Losses by panel and forecast, one value per origin."""

MAX_REGRET, MIN_GAIN = 0.01, 0.0
"""Minimum effects, stated before anything was measured."""
LEVEL = 0.95
SELECTABLE = ("global", "local", "clustered")
CANDIDATES = (*SELECTABLE, "feature", "random")


def best_in_hindsight(losses: Mapping[str, Floats], among: Sequence[str] = CANDIDATES) -> str:
    """The candidate with the least mean loss over all origins; ties go to the earlier one."""
    return min((name for name in among if name in losses), key=lambda name: float(losses[name].mean()))


def regret(losses: Mapping[str, Floats], among: Sequence[str] = CANDIDATES) -> Measured:
    """Loss of the choices over that of the best candidate in hindsight, less 1; interval over origins.

    Example:
        >>> losses = {"in use": np.array([1.0, 1.1]), "global": np.array([1.0, 1.0])}
        >>> round(regret(losses).value, 6)
        0.05
    """
    best = losses[best_in_hindsight(losses, among)]
    compared = compare_paired(best, losses[IN_USE], dependence="time", level=LEVEL)
    low, high = (end / float(best.mean()) for end in compared.interval)
    return Measured(
        value=compared.gain / float(best.mean()),
        low=low,
        high=high,
        level=LEVEL,
        n=compared.n,
        unit="origins",
        method="EWC Student t" if compared.method == "ewc" else compared.method,
        percent=True,
    )


def regrets(squared: Squared, among: Sequence[str] = CANDIDATES) -> Floats:
    """(P,) regret of every panel."""
    return np.array([regret(losses, among).value for losses in squared.values()])


def gains(squared: Squared) -> Floats:
    """(P,) share of the global model's loss that the choices save, by panel."""
    return np.array([1.0 - s[IN_USE].mean() / s["global"].mean() for s in squared.values()])


def mean_over_panels(values: ArrayLike) -> Measured:
    """Mean over panels with a Student t interval; panels are the independent units."""
    x = np.asarray(values, dtype=np.float64)
    compared = compare_paired(np.zeros(x.size), x, level=LEVEL)
    return Measured(
        value=float(x.mean()),
        low=compared.interval[0],
        high=compared.interval[1],
        level=LEVEL,
        n=x.size,
        unit="panels",
        method="Student t over panels",
        percent=True,
    )


def above(values: ArrayLike, minimum: float) -> Decision:
    """Whether the mean over panels lies above `minimum`, at two-sided 5 %."""
    x = np.asarray(values, dtype=np.float64)
    return specialize_or_fall_back(np.full(x.size, minimum), x, alpha=(1 - LEVEL) / 2)


def regret_claim(squared: Squared, *, command: str) -> Claim:
    """The mean regret over panels is at most `MAX_REGRET`."""
    return _claim(
        -regrets(squared),
        -MAX_REGRET,
        claim_id="panels-regret",
        statement="Over all panels the choice loses little against the best candidate in hindsight",
        effect=f"at most {100 * MAX_REGRET:g} % on average",
        measured=mean_over_panels(regrets(squared)),
        command=command,
    )


def gain_claim(squared: Squared, *, command: str) -> Claim:
    """The mean gain over the global model is above `MIN_GAIN`."""
    return _claim(
        gains(squared),
        MIN_GAIN,
        claim_id="panels-gain",
        statement="Over all panels the choice forecasts better than one global model",
        effect="any gain on average",
        measured=mean_over_panels(gains(squared)),
        command=command,
    )


def _claim(
    values: Floats,
    minimum: float,
    *,
    claim_id: str,
    statement: str,
    effect: str,
    measured: Measured,
    command: str,
) -> Claim:
    return claim(
        Estimate.from_values(values, level=LEVEL, unit="panels"),
        at_least=minimum,
        shown=measured,
        id=claim_id,
        statement=statement,
        source="ours",
        minimum_effect=effect,
        command=command,
    ).model_copy(update={"minimum_effect_value": abs(minimum)})


def headline(squared: Squared, chosen: Mapping[str, Sequence[str]]) -> Headline:
    """What was chosen, and what it gained over the global model."""
    every = [name for names in chosen.values() for name in names]
    counts = {name: every.count(name) for name in SELECTABLE}
    cost, gain = mean_over_panels(regrets(squared)), mean_over_panels(gains(squared))
    text = (
        f"Over {len(squared)} panels the choice's loss is {100 * gain.value:.1f} % below the global model's "
        f"and {100 * cost.value:.1f} % above the best candidate's in hindsight."
    )
    told = paid(above(gains(squared), MIN_GAIN), text=text)
    return Headline(
        divided=Divided(
            text="at "
            + ", ".join(f"{counts[name]} of {len(every)} origins {WORDS[name]}" for name in SELECTABLE),
            load=[counts[name] / len(every) for name in SELECTABLE],
            names=SELECTABLE,
        ),
        specialized=Specialized(text="on each panel the gate decides anew; see the table"),
        paid=told.model_copy(update={"gain": gain, "needed_unit": "" if told.needed is None else "panels"}),
    )


def regret_figure(squared: Squared) -> Figure:
    """Each panel's regret with its interval, and the mean over panels."""
    rows = [_row(name, regret(losses)) for name, losses in squared.items()]
    mean = mean_over_panels(regrets(squared))
    rows.append(_row("mean over panels", mean, emphasis=True))
    return Figure(
        id="panels-regret",
        title="Regret to the best candidate in hindsight",
        caption="Loss of the choices over that of the candidate that did best over all origins, less 1, with "
        "95 % intervals over origins (last row: over panels). Left of zero: better than any fixed candidate.",
        alt=f"Regret of {len(squared)} panels in percent; on average {100 * mean.value:.2f} %.",
        data=Intervals(x_label="regret, % of the best candidate's loss", rows=tuple(rows)),
    )


def _row(label: str, measured: Measured, *, emphasis: bool = False) -> IntervalRow:
    value = measured.value
    low = value if measured.low is None else measured.low
    high = value if measured.high is None else measured.high
    return IntervalRow(label=label, value=100 * value, low=100 * low, high=100 * high, emphasis=emphasis)


def losses_figure(squared: Squared) -> Figure:
    """Every candidate's loss on every panel, in percent above the best."""
    names = (IN_USE, *CANDIDATES)
    values = []
    for losses in squared.values():
        best = float(losses[best_in_hindsight(losses)].mean())
        values.append(
            tuple(100 * (float(losses[n].mean()) / best - 1) if n in losses else math.nan for n in names)
        )
    return Figure(
        id="panels-losses",
        title="Every candidate on every panel",
        caption="Squared error above that of the panel's best candidate, in percent. No fixed candidate is "
        "near the best everywhere.",
        alt="A table in color of losses above the best candidate, by panel and candidate, in percent.",
        data=Heatmap(
            row_labels=tuple(squared),
            column_labels=tuple("choice" if n == IN_USE else n for n in names),
            values=tuple(values),
            value_label="% above the best",
        ),
    )


def panels_table(
    cases: Mapping[str, PanelCase],
    facts: Mapping[str, dict[str, Any]],
    squared: Squared,
    chosen: Mapping[str, Sequence[str]],
    mase: Mapping[str, float],
) -> Table:
    """Per panel: size, protocol, choice, best candidate, gain and regret."""
    rows = []
    for name, losses in squared.items():
        fact, case, picks = facts[name], cases[name], chosen[name]
        rows.append(
            (
                name,
                f"{fact['n_series']} x {fact['n_steps']}",
                f"{case.horizon}, every {case.step}",
                len(picks),
                ", ".join(f"{pick} {picks.count(pick)}" for pick in SELECTABLE if pick in picks),
                best_in_hindsight(losses),
                100 * float(1.0 - losses[IN_USE].mean() / losses["global"].mean()),
                regret(losses),
                regret(losses, SELECTABLE),
                mase[name],
            )
        )
    return Table(
        id="panels",
        title="Panels",
        columns=(
            Column(name="panel"),
            Column(name="series x steps"),
            Column(name="horizon", unit="steps"),
            Column(name="origins", kind="integer"),
            Column(name="chosen, at origins"),
            Column(name="best in hindsight"),
            Column(name="gain over global", unit="%", kind="number", digits=2),
            Column(name="regret to all", kind="estimate"),
            Column(name="regret to the selectable", kind="estimate"),
            Column(name="MASE of the choice", kind="number", digits=3),
        ),
        rows=tuple(rows),
        caption="Squared errors are on the scale that the steps before the first origin set for each series. "
        "The choice picks among one global model, one per series, and the clusters; feature and random "
        "clusters are shown for comparison.",
    )
