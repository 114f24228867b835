"""The paper's claims and the study's own, each with the smallest effect that matters, and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from metier.core import Decision, Estimate, compare_paired, specialize_or_fall_back
from metier.records import Claim, Measured
from metier_studies.lib.claims import claim

from .intervals import (
    FEWEST_COVERED,
    FEWEST_SEEDS,
    LEVEL,
    SHARE_CAPABLE,
    Facts,
    counts_as_population,
    gains,
    over_seeds,
)
from .published import published_difference
from .settings import BASELINE, SOURCES, PartnersConfig

PAPER = "Charakorn et al., NeurIPS 2024"
ALPHA = (1.0 - LEVEL) / 2.0
Cells = Mapping[str, Sequence[Facts]]


@dataclass(frozen=True, slots=True)
class Statement:
    """A claim about a measure of two arms: sign x (measure of `high` - measure of `low`) exceeds `limit`.

    Args:
        id: of the claim.
        text: for people.
        letter: D, S, I, O or R.
        low, high: the arms.
        limit: the smallest effect that matters.
        sign: -1 where the claim is that `high` has less.
    """

    id: str
    text: str
    letter: str
    low: str
    high: str
    limit: float
    sign: float = 1.0

    @property
    def published(self) -> float | None:
        """What the paper's tables say of this difference, if they have both arms."""
        difference = published_difference(self.letter, self.low, self.high)
        return None if difference is None else self.sign * difference


def statements(config: PartnersConfig) -> tuple[Statement, ...]:
    """Return the statements about methods whose arms the configuration has.

    Those about cross-play minimization and its distillation are about the first arm of it: plain in every
    size, or the variant that `--set arms` puts in its place.
    """
    specialists = next(arm for arm in config.arms if arm != BASELINE)
    distilled = f"{specialists}+dagger"
    every = (
        Statement(
            "more-information",
            "Cross-play minimization makes partners that their behaviour tells apart, more than self-play.",
            "I", BASELINE, specialists, 0.1,
        ),
        Statement(
            "more-overfit",
            "Partners of cross-play minimization are overfit to their own mates, more than those of "
            "self-play.",
            "O", BASELINE, specialists, 0.05,
        ),
        Statement(
            "less-overfit",
            "SpecTRL DAgger lowers the overfitness of the partners that it distils.",
            "O", specialists, distilled, 0.05, sign=-1.0,
        ),
        Statement(
            "keeps-information",
            "SpecTRL DAgger keeps what behaviour tells about the partner: it loses less than 0.2 nats.",
            "I", specialists, distilled, -0.2,
        ),
        Statement(
            "cross-play-pays",
            "A generalist that trained with partners of cross-play minimization is more robust than one "
            "that trained with those of self-play.",
            "R", BASELINE, specialists, 0.05,
        ),
        Statement(
            "distillation-pays",
            "A generalist that trained with distilled partners is more robust than one that trained with "
            "their sources.",
            "R", specialists, distilled, 0.02,
        ),
        Statement(
            "mi-widens",
            "The mutual-information term makes the population do more (D).",
            "D", "xp-min", "xp-min+mi", 0.1,
        ),
        Statement(
            "mi-blurs",
            "The mutual-information term makes partners less decided (S).",
            "S", "xp-min", "xp-min+mi", 0.1, sign=-1.0,
        ),
        Statement(
            "dagger-or-spectrl",
            "A generalist profits more from SpecTRL DAgger than from SpecTRL alone.",
            "R", "xp-min+spectrl", "xp-min+dagger", 0.02,
        ),
        Statement(
            "mixed-play-costs",
            "Mixed play makes the population worse to train with.",
            "R", "xp-min", "xp-min+mp", 0.05, sign=-1.0,
        ),
    )  # fmt: skip
    return tuple(statement for statement in every if {statement.low, statement.high} <= set(config.arms))


def claims(config: PartnersConfig, cells: Cells, command: str) -> tuple[Claim, ...]:
    """Return every claim that the arms can decide."""
    best = config.arms[-1]
    made = [_enough(config, cells[best], best, command)]
    made += [_about_methods(config, cells, statement, command) for statement in statements(config)]
    return (*made, _pays(config, cells, best, command))


def failures(facts: Facts) -> list[float]:
    """Return the share of failures with each held-out specialist."""
    return [1.0 - share for share in facts["with_strangers"]["success"]]


def decide(cells: Cells, best: str) -> tuple[Decision, str]:
    """Return whether the best population pays over self-play, in failures, and what the units are.

    Units are seeds (failures averaged over specialists). Below three seeds they are the specialists of these
    seeds: a statement about these generalists, not about the method.
    """
    own, base = (np.array([failures(facts) for facts in cells[arm]]) for arm in (best, BASELINE))
    if len(own) >= FEWEST_SEEDS:
        return specialize_or_fall_back(own.mean(axis=1), base.mean(axis=1), alpha=ALPHA), "seeds"
    return specialize_or_fall_back(own.ravel(), base.ravel(), alpha=ALPHA), "specialists"


def needed_of(decision: Decision) -> int | None:
    """Return how many units would decide, if the decision is open and any number would."""
    open_ = decision.verdict == "undecided" and math.isfinite(decision.needed)
    return math.ceil(decision.needed) if open_ else None


def shortcomings(config: PartnersConfig, cells: Cells, arms: Sequence[str]) -> str:
    """Return "not reproduced: ..." with what was tried, for arms that do not count as populations, or ""."""
    short = [
        arm
        for arm in arms
        if arm != BASELINE and not all(counts_as_population(config, f) for f in cells[arm])
    ]
    if not short:
        return ""
    return "not reproduced: " + "; ".join(tried(config, cells[arm], arm) for arm in short)


def tried(config: PartnersConfig, facts: Sequence[Facts], arm: str) -> str:
    """Return what an arm's population came to, seed by seed, and with which settings."""
    found = "; ".join(
        f"seed {k}: {sum(f['capable'])} of {config.n_members} capable, {f['covered']} behaviours"
        for k, f in enumerate(facts)
    )
    steps = config.distill_steps if SOURCES[arm] else config.generation_steps
    mixed = f"lambda_MP {config.mixed_play_weight:g}, " if "+mp" in arm else ""
    sizes = " x ".join(map(str, config.hidden))
    return (
        f"{found}. Tried: {arm}, {steps:,} steps, lambda_X {config.xp_weight:g}, whole from "
        f"{100 * config.xp_wait:g} % own success, {mixed}{config.n_envs} environments x {config.n_steps} "
        f"steps, learning rate {config.learning_rate:g}, layers {sizes}"
    )


def _enough(config: PartnersConfig, rows: Sequence[Facts], best: str, command: str) -> Claim:
    counted = [counts_as_population(config, facts) for facts in rows]
    return claim(
        Estimate.exact(float(np.mean(counted)), method="every seed of this run"),
        at_least=1.0,
        shown=Measured(value=float(np.mean(counted)), n=len(counted), unit="seeds", percent=True),
        reason="" if all(counted) else f"not reproduced: {tried(config, rows, best)}",
        id="specialists-count",
        statement=f"At least {100 * SHARE_CAPABLE:.0f} % of the {best} partners are capable and they cover "
        f"at least {FEWEST_COVERED} behaviours.",
        source="ours",
        minimum_effect="in every seed",
        command=command,
    )


def _about_methods(config: PartnersConfig, cells: Cells, statement: Statement, command: str) -> Claim:
    """A claim about a method: its units are seeds; below three of them there is no verdict."""
    values, stderrs = gains(cells[statement.low], cells[statement.high], statement.letter, statement.sign)
    found, limit = over_seeds(values, stderrs), statement.limit
    short = shortcomings(config, cells, (statement.low, statement.high))
    reasons = [short] if short else []
    few = len(values) < FEWEST_SEEDS
    if statement.published is not None and config.game == "cooking":
        reasons.append(f"the paper's tables: {statement.published:+.2f}")
    judged = claim(
        found,
        at_least=limit,
        unless=f"{len(values)} seeds say nothing about a method" if few else "",
        reason="; ".join(reasons),
        id=statement.id,
        statement=statement.text,
        source=PAPER,
        minimum_effect=f"a difference of {statement.letter} above {limit:g} "
        f"({statement.high} against {statement.low}), over seeds",
        command=command,
    )
    return (
        judged.model_copy(update={"needed": FEWEST_SEEDS, "needed_unit": "seeds"})
        if few
        else _short(judged, short)
    )


def _short(judged: Claim, short: str) -> Claim:
    """A claim about populations that do not count as such cannot hold."""
    return (
        judged.model_copy(update={"verdict": "undecided"}) if short and judged.verdict == "holds" else judged
    )


def _pays(config: PartnersConfig, cells: Cells, best: str, command: str) -> Claim:
    decision, unit = decide(cells, best)
    short = shortcomings(config, cells, (best,))
    own, base = (np.array([failures(facts) for facts in cells[arm]]) for arm in (best, BASELINE))
    losses = (own.mean(axis=1), base.mean(axis=1)) if unit == "seeds" else (own.ravel(), base.ravel())
    judged = claim(
        compare_paired(*losses, level=LEVEL),
        at_least=0.0,
        shown=_gain(decision, unit),
        reason=short,
        id="specialists-pay",
        statement=f"A generalist that trained with {best} partners fails less with held-out specialists "
        f"than one that trained with {BASELINE} partners.",
        source=PAPER,
        minimum_effect="a mean difference of failure shares above zero",
        command=command,
    )
    return _short(judged if judged.needed is None else judged.model_copy(update={"needed_unit": unit}), short)


def _gain(decision: Decision, unit: str) -> Measured:
    from metier.records.from_core import measured

    return measured(decision, percent=True).model_copy(update={"unit": unit})
