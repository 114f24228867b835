"""Study `forecast`: do specialists found by validation loss forecast a real panel better than one model?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier import data
from metier.core import Assignment, derive_seed
from metier.data.bundled import registry
from metier.forecast import ClusterForecaster
from metier.forecast.panel import Panel, panel_from_frame
from metier.runs import (
    Claim,
    DataUsed,
    Divided,
    Headline,
    Losses,
    Measured,
    Paid,
    Result,
    Run,
    Section,
    paid,
    specialized,
)
from metier.studies.base import Progress, Study
from metier.studies.forecast_claims import (
    coverage_claim,
    gain_claim,
    gain_decision,
    information_claim,
    relative_gain,
    share_claim,
)
from metier.studies.forecast_figures import (
    WORDS,
    candidates_table,
    coverage_table,
    descriptions_table,
    examples_figure,
    gain_figure,
    letter,
    series_figure,
    trace_figure,
)
from metier.studies.forecast_homogeneous import (
    HOMOGENEOUS_GATES,
    adoption_figure,
    adoption_table,
    homogeneous_panel,
)
from metier.studies.forecast_origins import IN_USE, judge_origin

Floats = NDArray[np.float64]

MIN_GAIN, MAX_REGRET, COVERAGE_TOLERANCE, MIN_INFORMATION = 0.01, 0.01, 0.02, 0.1
MAX_ADOPTION, MIN_SPURIOUS = 0.10, 0.5
"""Minimum effects, stated before anything was measured."""

CLAIMS = (
    "specialists-gain",
    "division-matters",
    "gate-regret",
    "coverage-80",
    "coverage-95",
    "clusters-informative",
    "crossfit-refrains",
    "fallback-adopts",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastConfig:
    """What the study runs.

    Args:
        panel: a bundled panel.
        n_series: the largest so many series, or None for all.
        lags, season_length, horizon, loss, n_clusters, gate: as in `ClusterForecaster`.
        test_size: newest share of the panel that is TEST.
        val_size: share of the whole panel that is VAL at the first origin.
        origins: refits, evenly over TEST; between them the models are frozen.
        homogeneous: simulated panels without groups.
        permutations: of the information's null.
    """

    panel: str = "flights_hourly"
    n_series: int | None = None
    lags: int = 24
    season_length: int | None = 168
    horizon: int = 1
    loss: str = "squared"
    n_clusters: int | str = "auto"
    gate: str = "crossfit"
    test_size: float = 0.2
    val_size: float = 0.2
    origins: int = 4
    homogeneous: int = 60
    permutations: int = 999


def run(config: ForecastConfig, run: Run, progress: Progress) -> Result:
    """Fit at every origin, judge on TEST, then ask the gates about panels without groups."""
    source = data.load(config.panel)
    panel = panel_from_frame((source if config.n_series is None else source.top(config.n_series)).to_frame())
    progress.stage(
        f"{panel.n_series} series x {panel.n_steps} steps; the newest {100 * config.test_size:.0f} % "
        f"are TEST, "
        f"no fit sees them; {config.origins} refits on the way"
    )
    origins = [
        run.cell(f"origin-{w}", partial(judge_origin, _forecaster(config, run.seed), panel, a, b))
        for w, (a, b) in enumerate(progress.track(spans(config, panel.n_steps), "origins"))
    ]
    progress.stage("does the gate refrain where there is nothing to find? panels of one and the same process")
    replicates = [
        run.cell(f"homogeneous-{r}", partial(homogeneous_panel, r, seed=derive_seed(run.seed, "panels")))
        for r in progress.track(range(config.homogeneous), "homogeneous panels")
    ]
    return _result(config, run, panel, origins, adoption_counts(replicates))


def _forecaster(config: ForecastConfig, seed: int) -> ClusterForecaster:
    return ClusterForecaster(
        lags=config.lags,
        season_length=config.season_length,
        horizon=config.horizon,
        loss=config.loss,
        n_clusters=config.n_clusters,
        gate=config.gate,
        val_size=config.val_size / (1.0 - config.test_size),
        rng=derive_seed(seed, "forecast"),
    )


def spans(config: ForecastConfig, n_steps: int) -> list[tuple[int, int]]:
    """TEST in as many pieces as there are origins, as (first step, one past the last).

    Example:
        >>> spans(ForecastConfig(origins=2), 100)
        [(80, 90), (90, 100)]
    """
    start = n_steps - round(config.test_size * n_steps)
    cuts = np.linspace(start, n_steps, config.origins + 1).round().astype(int).tolist()
    return list(pairwise(cuts))


def adoption_counts(replicates: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int, float]]:
    """Per gate: panels with an adopted cluster, panels, mean gain on TEST."""
    return {
        gate: (
            sum(r[gate]["clusters"] > 0 for r in replicates),
            len(replicates),
            float(np.mean([r[gate]["gain"] for r in replicates])),
        )
        for gate in HOMOGENEOUS_GATES
        if replicates
    }


def _result(
    config: ForecastConfig,
    run: Run,
    panel: Panel,
    origins: list[dict[str, Any]],
    counts: dict[str, tuple[int, int, float]],
) -> Result:
    losses = {name: joined(origins, name) for name in origins[-1]["losses"]}
    last = origins[-1]
    contexts = terciles(np.array(last["level"]))
    found, told = information_claim(
        contexts,
        last["labels"],
        minimum=MIN_INFORMATION,
        permutations=config.permutations,
        rng=run.rng("information"),
        claim_id="clusters-informative",
        statement="The clusters tell how busy a series is, which no model was shown",
        command=run.command,
    )
    words = (
        "the clusters tell how busy a series is (its tercile of traffic), which scaling hid from every model"
    )
    entry = registry[config.panel]
    return Result(
        study=run.study,
        family="forecast",
        size=run.size,
        seed=run.seed,
        title=STUDY.title,
        question=STUDY.question,
        command=run.command,
        headline=Headline(
            divided=_divided(last), specialized=specialized(found, text=words), paid=_paid(losses, last)
        ),
        claims=(*_test_claims(losses, origins, run.command), told, *_gate_claims(counts, run.command)),
        sections=_sections(config, origins, losses, counts, entry.unit),
        losses=(
            Losses(
                id="test",
                description="mean loss over the series of the model in use, on the scale of the past",
                unit="time step",
                keys=[stamp for o in origins for stamp in o["stamps"]],
                values=losses[IN_USE],
                dependence="time",
            ),
        ),
        data=tuple(
            DataUsed(name=file, sha256=digest, description=entry.title)
            for file, digest in entry.files.items()
        ),
        notes=_notes(config, panel, origins),
    )


def joined(origins: Sequence[dict[str, Any]], name: str) -> Floats:
    """(T,) losses of one candidate over all of TEST; where an origin lacks it, those of the global model."""
    parts = [o["losses"].get(name, o["losses"]["global"]) for o in origins]
    return np.concatenate([np.array(part, dtype=np.float64) for part in parts])


def terciles(level: Floats) -> list[str]:
    """Context of each series: low, middle or high traffic in the past."""
    cuts = np.quantile(level, [1 / 3, 2 / 3])
    return [("low", "middle", "high")[int(np.searchsorted(cuts, x))] for x in level]


def _divided(last: dict[str, Any]) -> Divided:
    if not last["n_clusters"]:
        return Divided(text="too few series to divide; one global model serves them all")
    assignment = Assignment.from_labels(np.array(last["labels"]), n_specialists=last["n_clusters"])
    sizes = ", ".join(str(round(share * assignment.n_items)) for share in assignment.load)
    return Divided(
        text=f"{assignment.n_items} series into {assignment.n_specialists} clusters ({sizes}) by which model "
        f"forecasts them best on validation data; the gate chose: {last['chosen']}",
        load=assignment.load,
        names=tuple(f"{letter(d['cluster'])} {d['name']}" for d in last["descriptions"]),
    )


def _paid(losses: dict[str, Floats], last: dict[str, Any]) -> Paid:
    """The clusters against the global model on TEST, in percent of the global loss."""
    if "clustered" not in losses:
        raise ValueError("a study of clusters needs a panel that can be divided")
    decision = gain_decision(losses["clustered"], losses["global"])
    gain = relative_gain(losses["clustered"], losses["global"])
    side = "below" if gain.value >= 0 else "above"
    text = f"on TEST the clusters' loss is {100 * abs(gain.value):.1f} % {side} the global model's"
    best = min((n for n in losses if n != IN_USE), key=lambda n: float(losses[n].mean()))
    if best != "clustered":
        saved = 100 * relative_gain(losses[best], losses["global"]).value
        text += f"; the best in hindsight was {WORDS[best]} ({saved:.1f} %)"
    text += f"; the gate chose {WORDS[last['chosen']]}"
    return paid(decision, text=text).model_copy(update={"gain": gain})


def _test_claims(losses: dict[str, Floats], origins: list[dict[str, Any]], command: str) -> list[Claim]:
    named = [name for name in losses if name != IN_USE]
    best = min(named, key=lambda name: float(losses[name].mean()))
    claims = [
        gain_claim(
            losses["clustered"],
            losses["global"],
            minimum=MIN_GAIN,
            claim_id="specialists-gain",
            statement="Clusters found by validation loss forecast better than one global model",
            effect=f"at least {100 * MIN_GAIN:g} % of its loss",
            command=command,
        ),
        gain_claim(
            losses["clustered"],
            losses["random"],
            minimum=MIN_GAIN,
            claim_id="division-matters",
            statement="It is the division that helps: the clusters beat as many random ones of equal size",
            effect=f"at least {100 * MIN_GAIN:g} % of their loss",
            command=command,
        ),
        gain_claim(
            losses[IN_USE],
            losses[best],
            minimum=-MAX_REGRET,
            claim_id="gate-regret",
            statement=f"What the gate puts to use is as good as the best candidate in hindsight ({best})",
            effect=f"at most {100 * MAX_REGRET:g} % of its loss worse",
            command=command,
        ),
    ]
    for level in (0.8, 0.95):
        shares = [share for o in origins for share in o["coverage"]["by_time"][f"{level:g}"]]
        claims.append(
            coverage_claim(
                shares,
                level,
                tolerance=COVERAGE_TOLERANCE,
                claim_id=f"coverage-{100 * level:g}",
                command=command,
            )
        )
    return claims


def _gate_claims(counts: dict[str, tuple[int, int, float]], command: str) -> list[Claim]:
    if not counts:
        return []
    crossfit, paper = counts["crossfit"], counts["paper"]
    return [
        share_claim(
            crossfit[0],
            crossfit[1],
            most=MAX_ADOPTION,
            id="crossfit-refrains",
            statement="On panels without groups the cross-fitted gate keeps the global model",
            command=command,
        ),
        share_claim(
            paper[0],
            paper[1],
            least=MIN_SPURIOUS,
            id="fallback-adopts",
            statement="On panels without groups a fall-back judged on the same validation data "
            "specializes anyway",
            command=command,
        ),
    ]


def _sections(
    config: ForecastConfig,
    origins: list[dict[str, Any]],
    losses: dict[str, Floats],
    counts: dict[str, tuple[int, int, float]],
    unit: str,
) -> tuple[Section, ...]:
    last = origins[-1]
    names = {d["cluster"]: d["name"] for d in last["descriptions"]}
    gains = {name: relative_gain(loss, losses["global"]) for name, loss in losses.items() if name != "global"}
    base, own = (np.array(last["by_series"][name]) for name in ("global", "clustered"))
    labels, trace = np.array(last["labels"]), trace_figure(last["trace"])
    by_cluster = {k: 1.0 - float(own[labels == k].mean() / base[labels == k].mean()) for k in names}
    shown = examples_figure(
        last["examples"],
        names,
        unit=unit,
        caption="The largest series of each cluster in the last three days of TEST: what came "
        "(gray), one-step "
        "forecasts of the model in use and their 80 % intervals.",
    )
    pay = Section(
        title="Did it pay?",
        text=f"On held-out blocks before TEST, the gate found: {last['decision']}\n\nAt each of "
        f"{len(origins)} origins everything is fitted on the "
        f"steps before it, "
        "then frozen and judged on the steps up to the next. Losses are on the scale that the past "
        "set for each "
        "series, so that large and small series count alike.",
        figures=(
            gain_figure(gains, where="on TEST"),
            series_figure(
                np.array(last["level"]), base, own, labels, unit=unit, where="after the last origin"
            ),
        ),
        tables=(candidates_table(losses, gains, naive=_naive(origins), chosen=last["chosen"]),),
    )
    who = Section(
        title="Who serves whom",
        text="The clusters of the last origin, by letter. Their names and sentences are made from medians.",
        figures=tuple(f for f in (shown, trace) if f is not None),
        tables=(
            descriptions_table(last["descriptions"], by_cluster),
            coverage_table(pooled_coverage(last), names, where="after the last origin"),
        ),
    )
    none = Section(
        title="Where there is nothing to find",
        text="A fall-back that is judged on the data that chose the partition takes luck for merit: "
        "every series "
        "picked the model that happened to fit its validation noise. The cross-fitted gate repeats the whole "
        "search without each block and judges on that block.",
        figures=(adoption_figure(counts),) if counts else (),
        tables=(adoption_table(counts),) if counts else (),
    )
    return (pay, who, none) if counts else (pay, who)


def _naive(origins: Sequence[dict[str, Any]]) -> float:
    return float(np.concatenate([np.array(o["naive"]) for o in origins]).mean())


def pooled_coverage(origin: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the coverage table of one origin."""
    return list(origin["coverage"].get("groups", []))


def _notes(config: ForecastConfig, panel: Panel, origins: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    entry = registry[config.panel]
    left_out = panel.n_series - len(origins[-1]["series"])
    notes = [
        f"Data: {entry.title}. {entry.license}.",
        "Between origins the models are frozen; the intervals of the gains allow for dependence in "
        "time by the "
        "equal-weighted-cosine estimate and for that across series by averaging over them at each step.",
        "The tests are asymptotic; a shift between validation and test is not covered by the gate.",
    ]
    if left_out:
        notes.append(
            f"{left_out} series that did not vary in the past are served by the global model and not scored."
        )
    return (*notes, *dict.fromkeys(note for o in origins for note in o["notes"]), *entry.traps)


STUDY = Study(
    name="forecast",
    family="forecast",
    title="Forecasting flights: one model or specialists?",
    question="Do specialists found by validation loss forecast 229 airports better than one global model, "
    "does the gate know, and does it refrain where there is nothing to find?",
    sizes={
        "tour": ForecastConfig(),
        "standard": ForecastConfig(test_size=0.5, origins=12, homogeneous=400, permutations=9999),
        "full": ForecastConfig(test_size=0.5, origins=48, homogeneous=4000, permutations=9999),
    },
    run=run,
    claims=CLAIMS,
    paired_on=("panel", "n_series", "test_size", "horizon", "loss"),
)

__all__ = ["STUDY", "ForecastConfig", "Measured", "run"]
