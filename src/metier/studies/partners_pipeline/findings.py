"""What the pipelines show: headline, claims, tables and figures of the study `partners`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metier.core import (
    Assignment,
    Comparison,
    Decision,
    compare_paired,
    information,
    specialize_or_fall_back,
)
from metier.runs import (
    BarGroup,
    Bars,
    Claim,
    Column,
    Divided,
    Figure,
    Headline,
    Measured,
    Result,
    Run,
    Section,
    Table,
)
from metier.runs.from_core import measured, paid, specialized

from .study import BASELINE, QUESTION, SOURCES, TITLE, PartnersConfig

Facts = Mapping[str, Any]
SHARE_CAPABLE = 0.75
FEWEST_COVERED = 3
UNIT = "partners x seeds"


def findings(
    config: PartnersConfig, cells: Mapping[str, Sequence[Facts]], oracles: Sequence[Facts], run: Run
) -> Result:
    """Write down what was measured."""
    best = config.arms[-1]
    return Result(
        study=run.study,
        family="partners",
        size=run.size,
        seed=run.seed,
        title=TITLE,
        question=QUESTION,
        command=run.command,
        headline=_headline(config, cells, best),
        claims=tuple(_claims(config, cells, oracles, best, run.command)),
        sections=tuple(_sections(config, cells, oracles)),
        notes=_notes(config, cells, best),
    )


def counts_as_population(config: PartnersConfig, facts: Facts) -> bool:
    """Return whether enough members are capable and enough behaviours are covered to speak of partners."""
    capable = sum(facts["capable"])
    return capable >= SHARE_CAPABLE * config.n_members and facts["covered"] >= FEWEST_COVERED


def behaviour_names(config: PartnersConfig) -> tuple[str, ...]:
    """Return the game's behaviours, without loading it."""
    from metier.partners.games import Cooking, LeverGame

    return LeverGame().behaviours if config.game == "lever" else Cooking().behaviours


def _tried(config: PartnersConfig, facts: Sequence[Facts], arm: str) -> str:
    found = "; ".join(
        f"seed {k}: {sum(f['capable'])} of {config.n_members} capable, {f['covered']} behaviours"
        for k, f in enumerate(facts)
    )
    steps = config.distill_steps if SOURCES[arm] else config.generation_steps
    return f"{found}. Tried: {arm}, {steps:,} steps, lambda_X {config.xp_weight:g}, layers {config.hidden}"


def _losses(cells: Mapping[str, Sequence[Facts]], arm: str, episodes: int) -> list[float]:
    """Share of failures with each held-out specialist, seed after seed."""
    return [1.0 - s / episodes for facts in cells[arm] for s in facts["with_strangers"]["successes"]]


def _decision(config: PartnersConfig, cells: Mapping[str, Sequence[Facts]], arm: str) -> Decision:
    own, base = (_losses(cells, name, config.episodes) for name in (arm, BASELINE))
    return specialize_or_fall_back(own, base)


def _headline(config: PartnersConfig, cells: Mapping[str, Sequence[Facts]], best: str) -> Headline:
    counted = [counts_as_population(config, facts) for facts in cells[best]]
    rows = np.array([row for facts in cells[best] for row in facts["counts"]])
    succeeded = rows[rows.sum(axis=1) > 0]
    names = behaviour_names(config)
    decision = _decision(config, cells, best)
    base = _robustness(cells, BASELINE)
    prefix = "" if all(counted) else "Not reproduced in every seed; "
    answer = paid(
        decision,
        text=f"{prefix}A generalist trained with {best} partners has robustness "
        f"{_robustness(cells, best):.2f} with held-out specialists, with {BASELINE} partners {base:.2f}.",
    )
    if not len(succeeded):
        divided = Divided(text="No partner succeeded with itself; there is nothing that could be divided.")
        told = information(["none"] * 2, [0, 0], permutations=19)
    else:
        load = Assignment.from_weights(succeeded / succeeded.sum(axis=1, keepdims=True)).load
        divided = Divided(
            text=f"{sum(map(sum, (f['capable'] for f in cells[best])))} of "
            f"{config.n_members * config.n_seeds} partners are capable; they cover "
            f"{min(f['covered'] for f in cells[best])} to {max(f['covered'] for f in cells[best])} of "
            f"{len(names)} behaviours in a seed.",
            load=load,
            names=names,
        )
        told = _told(cells[best][0])
    return Headline(
        divided=divided,
        specialized=specialized(
            told,
            text=f"In the first seed an episode's behaviour tells {told.value:.2f} nats about the partner, "
            f"of at most {told.ceiling:.2f}.",
        ),
        paid=answer.model_copy(update={"needed_unit": "" if answer.needed is None else UNIT}),
    )


def _told(facts: Facts) -> Any:
    """Return the information between partner and behaviour over the successful episodes of one seed."""
    counts = np.array(facts["counts"])
    partner, behaviour = np.nonzero(counts)
    times = counts[partner, behaviour]
    if not times.sum():
        return information(["none"] * 2, [0, 0], permutations=19)
    return information(np.repeat(partner, times).tolist(), np.repeat(behaviour, times))


def _robustness(cells: Mapping[str, Sequence[Facts]], arm: str) -> float:
    """Mean over seeds of the harmonic mean over held-out specialists."""
    return float(np.mean([facts["with_strangers"]["robustness"] for facts in cells[arm]]))


def _claims(
    config: PartnersConfig,
    cells: Mapping[str, Sequence[Facts]],
    oracles: Sequence[Facts],
    best: str,
    command: str,
) -> list[Claim]:
    source = SOURCES[best]
    counted = [counts_as_population(config, facts) for facts in cells[best]]
    tried = "" if all(counted) else f"not reproduced: {_tried(config, cells[best], best)}"
    claims = [
        Claim(
            id="specialists-count",
            statement=f"At least {100 * SHARE_CAPABLE:.0f} % of the {best} partners are capable and they "
            f"cover at least {FEWEST_COVERED} behaviours.",
            source="metier",
            minimum_effect="in every seed",
            minimum_effect_value=1.0,
            measured=Measured(value=float(np.mean(counted)), n=len(counted), unit="seeds", percent=True),
            verdict="holds" if all(counted) else "does not hold",
            reason=tried,
            command=command,
        )
    ]
    rows = [
        (
            "more-information",
            f"Behaviour tells more about a partner among {best} partners than among {BASELINE} ones.",
            "Charakorn et al., NeurIPS 2024",
            [_information(f) for f in cells[BASELINE]],
            [_information(f) for f in cells[best]],
        )
    ]
    if source is not None:
        rows += [
            (
                "less-overfit",
                f"Distillation lowers the overfitness of {source} partners.",
                "Charakorn et al., NeurIPS 2024",
                [f["with_oracle"]["robustness"] for f in cells[source]],
                [f["with_oracle"]["robustness"] for f in cells[best]],
            ),
            (
                "keeps-information",
                "Distillation keeps the information in behaviour: it loses at most 0.2 nats.",
                "Charakorn et al., NeurIPS 2024",
                [_information(f) - 0.2 for f in cells[source]],
                [_information(f) for f in cells[best]],
            ),
        ]
    for name, text, origin, low, high in rows:
        claims.append(_over_seeds(name, text, origin, np.subtract(high, low), tried, command))
    claims.append(_pays(config, cells, best, tried, command))
    return claims


def _information(facts: Facts) -> float:
    """Exact where the game allows it, else corrected from counts; 0 without a capable partner."""
    exact = facts.get("exact")
    if exact and "information" in exact:
        return float(exact["information"])
    return float(facts["told"]["information"]) if "told" in facts else 0.0


def _over_seeds(name: str, text: str, origin: str, gains: Any, tried: str, command: str) -> Claim:
    """A claim about a method: its units are seeds; below three of them there is no verdict."""
    gains = np.asarray(gains, float)
    base = {
        "id": name,
        "statement": text,
        "source": origin,
        "minimum_effect": "a mean difference above zero over seeds",
        "minimum_effect_value": 0.0,
        "command": command,
    }
    if len(gains) < 3:
        lone = Measured(value=float(gains.mean()), n=len(gains), unit="seeds", method="mean, no interval")
        reason = f"{len(gains)} seeds give no interval; {tried}".rstrip("; ")
        return Claim(**base, measured=lone, verdict="undecided", needed=3, needed_unit="seeds", reason=reason)
    found: Comparison = compare_paired(np.zeros(len(gains)), gains)
    low, high = found.interval
    verdict = "holds" if low > 0 else "does not hold" if high < 0 else "undecided"
    if tried and verdict == "holds":
        verdict = "undecided"
    return Claim(
        **base,
        measured=measured(found).model_copy(update={"unit": "seeds"}),
        verdict=verdict,
        reason=tried,
    )


def _pays(
    config: PartnersConfig, cells: Mapping[str, Sequence[Facts]], best: str, tried: str, command: str
) -> Claim:
    decision = _decision(config, cells, best)
    verdicts = {"pays": "holds", "hurts": "does not hold", "equivalent": "equivalent"}
    verdict = verdicts.get(decision.verdict, "undecided")
    if tried and verdict == "holds":
        verdict = "undecided"
    needed = (
        int(np.ceil(decision.needed)) if verdict == "undecided" and np.isfinite(decision.needed) else None
    )
    return Claim(
        id="specialists-pay",
        statement=f"A generalist that trained with {best} partners fails less with held-out specialists "
        f"than one that trained with {BASELINE} partners.",
        source="Charakorn et al., NeurIPS 2024",
        minimum_effect="a mean difference of failure shares above zero, over specialists and seeds",
        minimum_effect_value=0.0,
        measured=measured(decision).model_copy(update={"unit": UNIT, "percent": True}),
        verdict=verdict,
        needed=needed,
        needed_unit="" if needed is None else UNIT,
        reason=tried or decision.reason,
        command=command,
    )


def _sections(
    config: PartnersConfig, cells: Mapping[str, Sequence[Facts]], oracles: Sequence[Facts]
) -> list[Section]:
    floor = 1.0 - float(np.mean([facts["robustness"] for facts in oracles]))
    return [
        Section(
            title="Populations",
            text="D is how much a population does, S how decided its partners are (0 is fully), I = D + S "
            "what an episode's behaviour tells about the partner, in nats, of capable partners. Overfitness "
            "O is 1 minus the harmonic mean of an oracle generalist's success with the partners; its floor, "
            f"with the scripted specialists themselves, is {floor:.2f}. Robustness R is the harmonic mean of "
            "a generalist's success with held-out scripted specialists, having trained with the population.",
            tables=(_table(config, cells), *_exact_table(cells)),
            figures=(_figure(config, cells),),
        )
    ]


def _table(config: PartnersConfig, cells: Mapping[str, Sequence[Facts]]) -> Table:
    rows = []
    for arm, facts in cells.items():
        told = [f["told"] for f in facts if "told" in f]
        rows.append(
            (
                arm,
                _spread([float(sum(f["capable"])) for f in facts]),
                _spread([float(f["covered"]) for f in facts]),
                *(
                    _spread([t[name] for t in told])
                    for name in ("diversity", "specialization", "information")
                ),
                _spread([1.0 - f["with_oracle"]["robustness"] for f in facts]),
                _spread([f["with_strangers"]["robustness"] for f in facts]),
                all(counts_as_population(config, f) for f in facts),
            )
        )
    names = ("capable", "behaviours", "D", "S", "I", "O", "R")
    return Table(
        id="populations",
        title=f"Mean over {config.n_seeds} seeds, lowest to highest in brackets",
        columns=(Column(name="population"), *(Column(name=name) for name in names), Column(name="counts")),
        rows=tuple(rows),
        caption=f"{config.n_members} partners each; {config.episodes} episodes per partner. A population "
        f"counts if {100 * SHARE_CAPABLE:.0f} % of its partners are capable and {FEWEST_COVERED} behaviours "
        "are covered in every seed.",
    )


def _exact_table(cells: Mapping[str, Sequence[Facts]]) -> tuple[Table, ...]:
    rows = []
    for arm, facts in cells.items():
        for seed, f in enumerate(facts):
            exact = f.get("exact")
            if exact and "information" in exact and "told" in f:
                pairs = np.array(exact["cross_play"])
                off = pairs[~np.eye(len(pairs), dtype=bool)].mean()
                told = f["told"]
                rows.append(
                    (
                        arm,
                        seed,
                        float(np.diag(pairs).mean()),
                        float(off),
                        exact["diversity"],
                        exact["specialization"],
                        exact["information"],
                        f"{told['information']:.3f} ± {told['stderr']['information']:.3f}",
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
                Column(name="I from counts"),
            ),
            rows=tuple(rows),
            caption="Exact values of the trained partners; the last column estimates I from episodes.",
        ),
    )


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{np.mean(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def _figure(config: PartnersConfig, cells: Mapping[str, Sequence[Facts]]) -> Figure:
    names = behaviour_names(config)
    rates = {
        arm: np.mean([f["with_strangers"]["successes"] for f in facts], axis=0) / config.episodes
        for arm, facts in cells.items()
    }
    return Figure(
        id="success-with-strangers",
        title="Success of the generalists with each held-out specialist",
        caption="Share of episodes, mean over seeds; one bar per population a generalist trained with.",
        alt="Success by specialist: "
        + "; ".join(f"{arm} {values.min():.2f} to {values.max():.2f}" for arm, values in rates.items()),
        data=Bars(
            categories=names,
            groups=tuple(BarGroup(name=arm, values=values) for arm, values in rates.items()),
            value_label="success",
        ),
    )


def _notes(config: PartnersConfig, cells: Mapping[str, Sequence[Facts]], best: str) -> tuple[str, ...]:
    notes = [
        "Intervals over specialists and seeds describe these trained generalists; a claim about a method "
        "needs more seeds.",
    ]
    for arm, facts in cells.items():
        if arm != BASELINE and not all(counts_as_population(config, f) for f in facts):
            notes.append(f"{arm} does not count as a population of partners. {_tried(config, facts, arm)}.")
    return tuple(notes)
