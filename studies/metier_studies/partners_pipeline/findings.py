"""What the pipelines show: the result of the study `partners`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metier.core import Assignment, information
from metier.records.from_core import paid, specialized
from metier.runs import Divided, Headline, Losses, Result, Run, Section

from . import figures, tables
from .claims import claims, decide, failures, needed_of, tried
from .intervals import Facts, counts_as_population, mean_over_seeds
from .settings import BASELINE, PartnersConfig
from .study import QUESTION, TITLE

Cells = Mapping[str, Sequence[Facts]]


def findings(
    config: PartnersConfig,
    cells: Cells,
    oracles: Sequence[Facts],
    run: Run,
    *,
    curves: Sequence[Mapping[str, Any]] = (),
    episode: Mapping[str, Any] | None = None,
) -> Result:
    """Write down what was measured.

    Args:
        config: of the study.
        cells: facts of every arm, by seed.
        oracles: what the oracle does with the scripted specialists, by seed.
        run: of the study.
        curves: learning curves, by seed.
        episode: the animated episode, if there is one.
    """
    best = config.arms[-1]
    return run.result(
        family="partners",
        title=TITLE,
        question=QUESTION,
        headline=_headline(config, cells, best),
        claims=claims(config, cells, run.command),
        sections=_sections(config, cells, oracles, curves, episode),
        losses=_losses(config, cells, best),
        notes=_notes(config, cells),
    )


def behaviour_names(config: PartnersConfig) -> tuple[str, ...]:
    """Return the game's behaviours."""
    from .pipeline import game_of

    return tuple(game_of(config).behaviours)


def _headline(config: PartnersConfig, cells: Cells, best: str) -> Headline:
    counted = all(counts_as_population(config, facts) for facts in cells[best])
    decision, unit = decide(cells, best)
    own, base = (mean_over_seeds(cells[arm], "R").value for arm in (best, BASELINE))
    prefix = "" if counted else "Not reproduced in every seed; "
    needed = needed_of(decision)
    answer = paid(
        decision,
        text=f"{prefix}A generalist trained with {best} partners has robustness {own:.2f} with held-out "
        f"specialists, with {BASELINE} partners {base:.2f}; the gain is the difference of failure shares.",
        percent=True,
    )
    gain = answer.gain.model_copy(update={"unit": unit})
    return Headline(
        divided=_divided(config, cells[best], best),
        specialized=_specialized(cells[best]),
        paid=answer.model_copy(
            update={"gain": gain, "needed": needed, "needed_unit": "" if needed is None else unit}
        ),
    )


def _divided(config: PartnersConfig, rows: Sequence[Facts], best: str) -> Divided:
    """How the behaviours are divided among the partners of the best arm, all seeds together."""
    counts = np.array([row for facts in rows for row in facts["counts"]])
    succeeded = counts[counts.sum(axis=1) > 0]
    if not len(succeeded):
        return Divided(text="No partner succeeded with itself; there is nothing that could be divided.")
    names = behaviour_names(config)
    capable = sum(sum(facts["capable"]) for facts in rows)
    covered = [facts["covered"] for facts in rows]
    seeds = "in the seed" if len(rows) == 1 else f"in each of {len(rows)} seeds"
    spread = f"{min(covered)}" if min(covered) == max(covered) else f"{min(covered)} to {max(covered)}"
    return Divided(
        text=f"{capable} of {config.n_members * len(rows)} {best} partners are capable; they cover "
        f"{spread} of {len(names)} behaviours {seeds}.",
        load=Assignment.from_weights(succeeded / succeeded.sum(axis=1, keepdims=True)).load,
        names=names,
    )


def _specialized(rows: Sequence[Facts]) -> Any:
    """How much an episode's behaviour tells about the partner, in the first seed, beside its null."""
    counts = np.array(rows[0]["counts"])
    partner, behaviour = np.nonzero(counts)
    times = counts[partner, behaviour]
    if not times.sum():
        return specialized(
            information(["none"] * 2, [0, 0], permutations=19), text="No partner succeeded with itself."
        )
    told = information(np.repeat(partner, times).tolist(), np.repeat(behaviour, times))
    return specialized(
        told,
        text=f"In the first seed an episode's behaviour tells {told.value:.2f} nats about the partner, of at "
        f"most {told.ceiling:.2f}: {np.exp(told.value):.1f} of {len(counts)} partners could be told apart.",
    )


def _sections(
    config: PartnersConfig,
    cells: Cells,
    oracles: Sequence[Facts],
    curves: Sequence[Mapping[str, Any]],
    episode: Mapping[str, Any] | None,
) -> tuple[Section, ...]:
    floor = 1.0 - float(np.mean([facts["robustness"] for facts in oracles]))
    names = behaviour_names(config)
    oracle = (
        "a scripted copy-cat, which chooses the best lever first and then what the other one chose"
        if config.game == "lever"
        else "a generalist that trained with the scripted cooks"
    )
    sections = [
        Section(
            title="Populations",
            text="D is how much a population does, S how decided its partners are (0 is fully), I = D + S "
            "what an episode's behaviour tells about the partner, in nats, of capable partners: those that "
            "succeed with themselves in more than half of their episodes. Overfitness O is 1 minus the "
            f"harmonic mean of the success of an oracle with the partners; the oracle is {oracle}.",
            tables=(
                tables.populations(config, cells, floor),
                *tables.published(config, cells),
                *tables.exact_beside_counts(cells),
            ),
            figures=(
                figures.measures(cells),
                figures.behaviours(cells, names),
                *figures.cross_play(cells),
            ),
        ),
        Section(
            title="Generalists",
            text="Robustness R is the harmonic mean of a generalist's success with held-out scripted "
            "specialists, one per behaviour; it trained with the named population only.",
            tables=(tables.with_specialists(config, cells, names), *tables.partner_rows(config, cells)),
            figures=(
                figures.with_specialists(cells, names),
                *((figures.episode(episode, config.arms[-1]),) if episode else ()),
            ),
        ),
    ]
    if curves:
        sections.append(
            Section(title="Learning", figures=(figures.learning_curves(config, curves[0]),)),
        )
    return tuple(sections)


def _losses(config: PartnersConfig, cells: Cells, best: str) -> tuple[Losses, ...]:
    """Failures with each held-out specialist, so that two runs can be compared."""
    names = behaviour_names(config)
    keys = [f"seed {seed}, {name}" for seed in range(len(cells[best])) for name in names]
    return (
        Losses(
            id="failures",
            description=f"failure share of the generalist trained with {best} partners",
            unit="held-out specialist",
            keys=tuple(keys),
            values=[loss for facts in cells[best] for loss in failures(facts)],
            dependence="groups",
            groups=tuple(f"seed {seed}" for seed in range(len(cells[best])) for _ in names),
        ),
    )


def _notes(config: PartnersConfig, cells: Cells) -> tuple[str, ...]:
    notes = []
    if config.n_seeds < 3:
        notes.append(
            "With fewer than three seeds the headline's interval is over specialists: it describes these two "
            "generalists, and says nothing about the methods."
        )
    for arm, facts in cells.items():
        if arm != BASELINE and not all(counts_as_population(config, f) for f in facts):
            notes.append(f"{arm} does not count as a population of partners. {tried(config, facts, arm)}.")
    return tuple(notes)
