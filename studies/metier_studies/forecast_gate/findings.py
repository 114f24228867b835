"""What the trials of `forecast-gate` show, as a report: text with its numbers, figures, tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metier.runs import Figure, IntervalRow, Intervals, Lines, Measured, Result, Run, Section, Series
from metier_studies.forecast_gate.claims import claims
from metier_studies.forecast_gate.measures import (
    GATE_NAMES,
    SHOWN,
    SIZES,
    Trials,
    adoption,
    candidate_gains,
    gains,
    known_gain,
    nearest_power,
    power_cases,
)
from metier_studies.forecast_gate.tables import assign_table, power_table, recovery_table, size_table
from metier_studies.lib.shares import mean

if TYPE_CHECKING:
    from metier_studies.forecast_gate.study import GateConfig


def findings(
    config: GateConfig, trials: Mapping[str, Trials], run: Run, *, title: str, question: str
) -> Result:
    """The study's result from its trials, by case."""
    return run.result(
        family="forecast",
        title=title,
        question=question,
        claims=claims(trials, run.command),
        sections=(
            size_section(trials, config.loss),
            power_section(trials, config.loss),
            *assign_sections(trials),
            recovery_section(trials, config.recovery_loss),
        ),
        notes=(
            "Gains on TEST are shares of the global model's one-step loss. All models are refitted on TRAIN "
            "and VAL, and TEST is read once.",
            "Panels without regimes lie inside the hypothesis that is tested; they do not prove the level of "
            "the test at its edge.",
        ),
    )


def size_section(trials: Mapping[str, Trials], loss: str) -> Section:
    """Adoption where nothing is there to adopt."""
    words = " ".join(_size_words(trials[key], size) for key, size in SIZES.items())
    rows = [
        _row(f"{size}: {GATE_NAMES[gate]}", adoption(trials[key], gate), emphasis=gate == "crossfit")
        for key, size in SIZES.items()
        for gate in GATE_NAMES
    ]
    figure = Figure(
        id="size",
        title="Adopted where no regimes exist",
        caption="Share of panels on which each gate adopts specialists, with exact 95 % intervals. The right "
        "answer is 0 %.",
        alt="Rates of adoption per gate and panel size. " + words,
        data=Intervals(x_label="panels on which specialists are adopted (%)", rows=tuple(rows)),
    )
    text = (
        f"All series of these panels follow one autoregression ({loss} loss, K=4). {words}\n\n"
        "The reason is arithmetic, not bad luck: every series picks the best of K models on the same T "
        "steps that then judge the choice. That minimum is optimistic to first order in the distance of the "
        "models, while a spurious specialist costs only second order, and averaging over series removes "
        "none of it. The default gate repeats the whole search without each block of VAL and lets that "
        "block judge."
    )
    return Section(
        title="What the gate does where there is nothing to find",
        text=text,
        figures=(figure,),
        tables=(size_table(trials),),
    )


def power_section(trials: Mapping[str, Trials], loss: str) -> Section:
    """Adoption and TEST gain against the known gain."""
    keys = power_cases(trials)
    words = _power_words(trials, keys)
    text = (
        f"Three regimes of 100 series and 280 steps move apart ({loss} loss, K=4); the gain that the true "
        f"partition has with unlimited data is known from a formula. {words}\n\n"
        "What the default gate declines is best read beside what it would have earned: the fall-back on the "
        "same VAL adopts whatever the gain, so that its curve in the second figure is that of the clusters "
        f"without a gate. {_feature_words(trials[nearest_power(trials)])}"
    )
    return Section(
        title="What it finds where there is something",
        text=text,
        figures=(_power_figure(trials, keys, words), _earned_figure(trials, keys)),
        tables=(power_table(trials),),
    )


def assign_sections(trials: Mapping[str, Trials]) -> tuple[Section, ...]:
    """Which rows should assign the series, where the loss allows the comparison."""
    keys = power_cases(trials)
    if any(f"both-{key}" not in trials for key in keys):
        return ()
    at = nearest_power(trials)
    both = trials[f"both-{at}"]
    val = trials[at][: len(both)]
    on_val, on_both = (_signed(candidate_gains(t, "clustered")) for t in (val, both))
    text = (
        "The paper assigns every series by its loss on VAL alone, a short stretch. With squared loss the "
        "TRAIN rows can vote too without flattering anybody: each series' own sums are taken out of its "
        f"cluster before the cluster is fitted. At a known gain of {100 * known_gain(both):.1f} %, the same "
        f"{len(both)} panels gain {on_val} on TEST assigned on VAL and {on_both} assigned on "
        'TRAIN and VAL (assign_on="both"), no gate in either.'
    )
    figure = Figure(
        id="assigned",
        title="What assigns the series matters",
        caption="Mean TEST gain over the global model, no gate, with 95 % Student intervals over panels.",
        alt="Mean TEST gain against the known gain for clusters assigned on VAL, on TRAIN and VAL, and by "
        "features. " + text,
        data=Lines(
            x_label=_KNOWN,
            y_label="TEST gain over the global model (%)",
            series=(
                _ungated(trials, keys, "both-", "clustered", "assigned on TRAIN and VAL"),
                _ungated(trials, keys, "", "clustered", "assigned on VAL"),
                _ungated(trials, keys, "", "feature", "clusters by features", style="dotted"),
                _ungated(trials, keys, "", "true", "true partition", style="dashed"),
            ),
        ),
    )
    title = "Which rows should assign the series?"
    return (Section(title=title, text=text, figures=(figure,), tables=(assign_table(trials),)),)


def recovery_section(trials: Mapping[str, Trials], loss: str) -> Section:
    """Whether the partition is the true one, and worth as much."""
    text = (
        "The adjusted Rand index is 1 for the true partition and 0 for chance. Where the series differ in "
        "their dynamics K=4, so that two regimes are split further than they need be and their index stays "
        f"below 1 ({loss} loss). Series that differ only in the shape of their noise have equal conditional "
        "means: the pinball loss sees the whole distribution, the Huber loss little of it (K=2)."
    )
    return Section(title="Are the regimes found?", text=text, tables=(recovery_table(trials),))


def _size_words(found: Trials, size: str) -> str:
    counts = {gate: _adopted(found, gate) for gate in SHOWN}
    gain = 100 * statistics.fmean(gains(found, "paper"))
    moves = "lowers" if gain > 0 else "raises"
    return (
        f"At {size}, the fall-back on the same VAL adopts in {counts['paper']} of {len(found)} panels and "
        f"{moves} the TEST loss by {abs(gain):.2f} %; the cross-fitted mean adopts in {counts['mean']}, the "
        f"default gate in {counts['crossfit']}."
    )


def _power_words(trials: Mapping[str, Trials], keys: list[str]) -> str:
    def counts(gate: str) -> str:
        return ", ".join(str(_adopted(trials[key], gate)) for key in keys)

    known = ", ".join(f"{100 * known_gain(trials[key]):.1f}" for key in keys)
    n = len(trials[keys[0]])
    return (
        f"At known gains of {known} % the default gate adopts in {counts('crossfit')} of {n} panels each, "
        f"the cross-fitted mean in {counts('mean')}, the fall-back on the same VAL in {counts('paper')}."
    )


def _feature_words(found: Trials) -> str:
    names = ("clustered", "feature", "random")
    clustered, feature, random = (_signed(candidate_gains(found, name)) for name in names)
    return (
        f"Without any gate, at a known gain of {100 * known_gain(found):.1f} %, the clusters by validation "
        f"loss gain {clustered} on TEST, k-means of autoregressive coefficients {feature}, "
        f"random clusters {random}: these regimes are defined by their coefficients, which is what "
        "k-means looks at."
    )


def _power_figure(trials: Mapping[str, Trials], keys: list[str], words: str) -> Figure:
    curves = tuple(
        _curve(trials, keys, GATE_NAMES[gate], [adoption(trials[key], gate) for key in keys])
        for gate in SHOWN
    )
    return Figure(
        id="power",
        title="How large a gain each gate finds",
        caption="Share of panels on which specialists are adopted, with exact 95 % intervals.",
        alt="Adoption against the known gain. " + words,
        data=Lines(x_label=_KNOWN, y_label="panels on which specialists are adopted (%)", series=curves),
    )


def _earned_figure(trials: Mapping[str, Trials], keys: list[str]) -> Figure:
    curves = [
        _curve(trials, keys, GATE_NAMES[gate], [mean(gains(trials[key], gate)) for key in keys])
        for gate in SHOWN
    ]
    for name, label, style in _UNGATED:
        curves.append(_ungated(trials, keys, "", name, label, style=style))
    return Figure(
        id="earned",
        title="What each gate earns on TEST",
        caption="Mean TEST gain over the global model, with 95 % Student intervals over panels. Below zero, "
        "dividing did harm.",
        alt="Mean TEST gain against the known gain, for three gates, clusters by features, and the true "
        "partition.",
        data=Lines(x_label=_KNOWN, y_label="TEST gain over the global model (%)", series=tuple(curves)),
    )


_UNGATED = (("feature", "clusters by features", "dotted"), ("true", "true partition", "dashed"))
_KNOWN = "known gain of the true partition with unlimited data (%)"


def _ungated(
    trials: Mapping[str, Trials],
    keys: list[str],
    prefix: str,
    name: str,
    label: str,
    *,
    style: Any = "line+points",
) -> Series:
    """TEST gain of a candidate without a gate."""
    values = [mean(candidate_gains(trials[prefix + key], name)) for key in keys]
    return _curve(trials, keys, label, values, style=style)


def _curve(
    trials: Mapping[str, Trials],
    keys: list[str],
    name: str,
    values: list[Measured],
    *,
    style: Any = "line+points",
) -> Series:
    """A curve in percent over the known gain."""
    return Series(
        name=name,
        x=tuple(100 * known_gain(trials[key]) for key in keys),
        y=tuple(100 * m.value for m in values),
        low=tuple(100 * (m.value if m.low is None else m.low) for m in values),
        high=tuple(100 * (m.value if m.high is None else m.high) for m in values),
        style=style,
    )


def _row(label: str, rate: Measured, *, emphasis: bool) -> IntervalRow:
    low, high = rate.low, rate.high
    return IntervalRow(
        label=label,
        value=100 * rate.value,
        low=100 * (rate.value if low is None else low),
        high=100 * (rate.value if high is None else high),
        emphasis=emphasis,
    )


def _signed(values: list[float]) -> str:
    """Their mean in percent, with a true minus sign."""
    return f"{100 * statistics.fmean(values):.2f} %".replace("-", "\N{MINUS SIGN}")


def _adopted(found: Trials, gate: str) -> int:
    return sum(trial["chosen"][gate] != "global" for trial in found)
