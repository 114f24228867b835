"""What the study `forecast` says: headline, claims and sections from the values of its origins and panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metier.core import Assignment
from metier.data.bundled import registry
from metier.forecast.panels.panel import Panel
from metier.forecast.report import IN_USE, gain_decision, relative_gain
from metier.forecast.report.figures import (
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
from metier.runs import (
    Claim,
    DataUsed,
    Divided,
    Headline,
    Losses,
    Paid,
    Result,
    Run,
    Section,
    paid,
    specialized,
)
from metier_studies.forecast_flights.claims import (
    adopted_share,
    coverage_claim,
    gain_claim,
    information_claim,
    share_claim,
)
from metier_studies.forecast_flights.homogeneous import adoption_figure, adoption_table

if TYPE_CHECKING:
    from metier.runs import Study
    from metier_studies.forecast_flights.study import ForecastConfig

Floats = NDArray[np.float64]

MIN_GAIN, MAX_REGRET, COVERAGE_TOLERANCE, MIN_INFORMATION = 0.01, 0.01, 0.02, 0.1
MAX_ADOPTION, MIN_SPURIOUS = 0.10, 0.5
"""Minimum effects, stated before anything was measured."""


def build_result(
    config: ForecastConfig,
    run: Run,
    study: Study,
    panel: Panel,
    origins: list[dict[str, Any]],
    counts: dict[str, tuple[int, int, float]],
) -> Result:
    """The study's result: no work is done here that takes time, and nothing is random but the null."""
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
        "The clusters tell how busy a series is (its tercile of traffic), which scaling hid from all models."
    )
    entry = registry[config.panel]
    return run.result(
        family="forecast",
        title=study.title,
        question=study.question,
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
        f"forecasts them best on validation data.",
        load=assignment.load,
        names=tuple(f"{letter(d['cluster'])} {d['name']}" for d in last["descriptions"]),
    )


def _paid(losses: dict[str, Floats], last: dict[str, Any]) -> Paid:
    """What the gate put to use against the global model on TEST, in percent of the global loss."""
    if "clustered" not in losses:
        raise ValueError("a study of clusters needs a panel that can be divided")
    base = losses["global"]
    gain = relative_gain(losses[IN_USE], base)
    text = f"The gate put {WORDS[last['chosen']]} to use. Of the global model's loss on TEST"
    text += f" the choice saves {100 * gain.value:.1f} %"
    if last["chosen"] != "clustered":
        text += f", the clusters alone {100 * relative_gain(losses['clustered'], base).value:.1f} %"
    best = min((n for n in losses if n != IN_USE), key=lambda n: float(losses[n].mean()))
    if best != last["chosen"]:
        saved = 100 * relative_gain(losses[best], base).value
        text += f", the best in hindsight ({WORDS[best]}) {saved:.1f} %"
    return paid(gain_decision(losses[IN_USE], base), text=text + ".").model_copy(update={"gain": gain})


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
        ).model_copy(update={"reason": _hindsight(origins, best)}),
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


def _hindsight(origins: Sequence[dict[str, Any]], best: str) -> str:
    """What the gate could know about the best candidate before TEST."""
    chosen = [o["chosen"] for o in origins]
    seen = ", ".join(f"{100 * o['gate_gains'].get(best, 0.0):.1f} %" for o in origins)
    pairs = zip(origins, chosen, strict=True)
    used = ", ".join(f"{100 * o['gate_gains'].get(name, 0.0):.1f} %" for o, name in pairs)
    return (
        f"Before TEST the held-out blocks gave {WORDS[best]} a gain of {seen} at the origins, "
        f"and what was chosen ({', '.join(chosen)}) {used}."
    )


def heavy_series(origins: Sequence[dict[str, Any]], *, least: float = 0.03) -> str | None:
    """A note on series that alone make much of the global loss, or None."""
    last = origins[-1]
    loss = np.nan_to_num(np.array(last["by_series"]["global"], dtype=np.float64))
    share = loss / loss.sum()
    heavy = np.argsort(-share)[: int((share > least).sum())]
    if not len(heavy):
        return None
    names = ", ".join(last["series"][i] for i in heavy)
    return (
        f"{names} alone make {100 * float(share[heavy].sum()):.0f} % of the loss after the last origin: on "
        "the scale of a quiet past, a single event counts many standard deviations."
    )


def _gate_claims(counts: dict[str, tuple[int, int, float]], command: str) -> list[Claim]:
    if not counts:
        return []
    crossfit, paper = counts["crossfit"], counts["paper"]
    return [
        share_claim(
            adopted_share(*crossfit[:2]),
            limit=MAX_ADOPTION,
            below=True,
            claim_id="crossfit-refrains",
            source="metier",
            statement="On panels without groups the cross-fitted gate keeps the global model",
            command=command,
        ),
        share_claim(
            adopted_share(*paper[:2]),
            limit=MIN_SPURIOUS,
            below=False,
            claim_id="fallback-adopts",
            source="metier",
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
        text=f"On held-out blocks before TEST, the gate found: {last['decision']}\n\n"
        f"At each of {len(origins)} origins everything is fitted on the "
        f"steps before it, "
        "then frozen and judged on the steps up to the next. Losses are on the scale that the past "
        "set for each "
        "series, so that large and small series count alike.",
        figures=(
            gain_figure(gains, where="on TEST", in_use=IN_USE if IN_USE in gains else last["chosen"]),
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
    heavy = heavy_series(origins)
    if heavy is not None:
        notes.append(heavy)
    return (*notes, *dict.fromkeys(note for o in origins for note in o["notes"]), *entry.traps)
