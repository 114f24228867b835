"""What is measured of one pipeline's populations, generalists and oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from metier import partners
from metier.core import InputError
from metier.partners.rollout import play

from .pipeline import ORACLE, Pipeline

CAPABLE = 0.5
"""A partner is capable when it succeeds with itself in more than half of its episodes (the paper's rule)."""


def oracle_facts(pipeline: Pipeline) -> dict[str, Any]:
    """Return what the oracle generalist achieves with the scripted specialists: the floor of overfitness."""
    if pipeline.config.game == "lever":
        from .lever import copycat_table, meet, specialist_tables

        return meet(pipeline.game, copycat_table(pipeline.game), specialist_tables(pipeline.game))
    return _meets(pipeline, pipeline.generalist(ORACLE), pipeline.strangers, ORACLE)


def arm_facts(pipeline: Pipeline, arm: str) -> dict[str, Any]:
    """Return everything that is measured of one arm."""
    population = pipeline.population(arm)
    counts, failures = _self_play(pipeline, population, arm)
    shown = counts.sum(axis=1)
    capable = shown > CAPABLE * (shown + failures)
    covered = np.unique(counts[capable].argmax(axis=1)).size if capable.any() else 0
    facts: dict[str, Any] = {
        "counts": counts.tolist(),
        "failures": failures.tolist(),
        "capable": capable.tolist(),
        "covered": int(covered),
    }
    if capable.any():
        told = partners.behaviour_information(
            counts=counts[capable], failures=failures[capable], permutations=199
        )
        facts["told"] = {
            "diversity": told.diversity,
            "specialization": told.specialization,
            "information": told.information,
            "stderr": told.stderr,
        }
    if pipeline.config.game == "lever":
        return facts | _lever_facts(pipeline, population, arm)
    return facts | _cooking_facts(pipeline, population, arm)


def _lever_facts(pipeline: Pipeline, population: Any, arm: str) -> dict[str, Any]:
    from .lever import (
        copycat_table,
        exact_population,
        meet,
        meet_with_memory,
        member_tables,
        specialist_tables,
    )

    game = pipeline.game
    if population.actor.n_latents:
        raise InputError(
            "the lever game's exact measures are of partners without a latent",
            expected="arms without mi, or those that distil them",
            got=arm,
            next_step="Use the cooking game for this arm.",
        )
    tables = member_tables(game, population)
    exact = exact_population(game, tables)
    return {
        "exact": exact,
        "cross_play": exact["cross_play"],
        "with_oracle": meet(game, copycat_table(game), tables),
        "with_strangers": meet_with_memory(game, pipeline.generalist(arm), specialist_tables(game)),
    }


def _cooking_facts(pipeline: Pipeline, population: Any, arm: str) -> dict[str, Any]:
    oracle, config = pipeline.generalist(ORACLE), pipeline.config
    pairs = partners.cross_play(
        population, pipeline.game, episodes=config.pair_episodes, rng=pipeline.seed_of("pairs", arm)
    )
    return {
        "cross_play": pairs.returns.tolist(),
        "with_oracle": _meets(pipeline, oracle, population, arm, "with oracle"),
        "with_strangers": _meets(
            pipeline, pipeline.generalist(arm), pipeline.strangers, arm, "with strangers"
        ),
        "split": [_split(pipeline, oracle, member, arm, k) for k, member in enumerate(population)],
        "sabotage": [_sabotage(pipeline, oracle, member, arm, k) for k, member in enumerate(population)],
    }


def _self_play(pipeline: Pipeline, population: Any, arm: str) -> tuple[Any, Any]:
    """Return (episodes by behaviour, failures) of every member with itself."""
    rng = np.random.default_rng(pipeline.seed_of("self-play", arm))
    episodes, n = pipeline.config.episodes, len(pipeline.game.behaviours)
    played = [play(member, member, pipeline.game, episodes=episodes, rng=rng) for member in population]
    return np.array([e.counts(n) for e in played]), np.array([episodes - e.successes for e in played])


def _meets(pipeline: Pipeline, generalist: Any, mates: Any, *labels: str) -> dict[str, Any]:
    found = partners.evaluate(
        generalist,
        mates,
        pipeline.game,
        episodes=pipeline.config.episodes,
        rng=pipeline.seed_of("meets", *labels),
    )
    return {
        "success": found.rates.rates.tolist(),
        "returns": found.returns.tolist(),
        "robustness": found.rates.harmonic_mean,
        "stderr": found.rates.stderr,
    }


def _split(pipeline: Pipeline, oracle: Any, member: Any, arm: str, number: int) -> dict[str, Any] | None:
    """Return handshake and competence of one partner with the oracle; None where its games are too short."""
    config = pipeline.config
    try:
        found = partners.handshake_split(
            oracle,
            member,
            pipeline.game,
            prefix_steps=config.prefix_steps,
            episodes=config.episodes,
            rng=pipeline.seed_of("split", arm, str(number)),
        )
    except InputError:
        return None
    return {
        "from_start": found.from_start,
        "after_prefix": found.after_prefix,
        "index": found.handshake_index,
        "mismatch": found.state_mismatch,
    }


def _sabotage(pipeline: Pipeline, oracle: Any, member: Any, arm: str, number: int) -> dict[str, float]:
    found = partners.sabotage_gap(
        oracle,
        member,
        pipeline.game,
        episodes=pipeline.config.episodes,
        rng=pipeline.seed_of("sabotage", arm, str(number)),
    )
    return {"value": found.value, "low": found.interval[0], "high": found.interval[1]}
