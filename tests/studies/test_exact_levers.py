"""Exact measures of the lever game against plain enumeration, and against episodes."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from metier.partners import Generalist, Population, evaluate
from metier.partners.games import LeverGame
from metier.partners.policies import ConstantPolicy
from metier.partners.training.actors import Actor
from metier_studies.partners_pipeline.lever import (
    copycat_table,
    meet,
    meet_with_memory,
    member_tables,
    specialist_tables,
)

GAME = LeverGame(n_levers=3, n_stages=3, payoffs=(0.5, 1.0, 0.7))


def generalist(gru_units):
    """Drawn by NumPy in the shapes of the actor's own parameters, which compiles nothing."""
    actor, rng = Actor.for_game(GAME, hidden=(5,), gru_units=gru_units), np.random.default_rng(3)
    shapes = jax.eval_shape(actor.init, jax.random.key(0))
    drawn = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)
    return Generalist(GAME.name, actor, drawn)


@functools.partial(jax.jit, static_argnums=0)
def choice(actor, params, seen, seat, memory):
    """Lever probabilities and the next memory of one seat at one stage."""
    logits, memory = actor.network.step(params, actor.inputs(seen, seat, jnp.array(0)), memory)
    return jax.nn.softmax(logits), memory


def enumerated(policy, table, seat):
    """Success and return with one mate, by walking through every pair of choices, one step at a time."""
    observations, rewards, total = np.asarray(GAME.all_observations()), np.asarray(GAME.rewards), np.zeros(2)
    table = np.asarray(table)

    def walk(stage, own, other, memory, weight):
        seen = observations[stage, own, other]
        mine, memory = choice(policy.actor, policy.params, seen, jnp.array(seat), memory)
        mine, theirs = np.asarray(mine), table[1 - seat, stage, other, own]
        for a, b in itertools.product(range(3), range(3)):
            p = weight * mine[a] * theirs[b]
            if a == b:
                total[:] += p, p * rewards[stage, a]
            elif stage < 2:
                walk(stage + 1, a, b, memory, p)

    walk(0, 3, 3, policy.actor.network.initial_memory(), 1.0)
    return total


def test_generalists_with_memory_should_equal_a_walk_through_all_histories():
    policy = generalist(gru_units=4)
    drawn = scipy.special.softmax(np.random.default_rng(0).normal(size=(1, 2, 3, 4, 4, 3)), axis=-1)
    mates = jnp.asarray(np.concatenate([specialist_tables(GAME)[1:2], drawn]), jnp.float32)
    found = meet_with_memory(GAME, policy, mates)
    for k in range(2):
        success, earned = np.mean([enumerated(policy, mates[k], seat) for seat in range(2)], axis=0)
        assert found["success"][k] == pytest.approx(success, abs=2e-6)
        assert found["returns"][k] == pytest.approx(earned, abs=2e-6)
    rates = np.array(found["success"])
    assert found["robustness"] == pytest.approx(2 / (1 / rates).sum(), abs=1e-6)


def test_policies_without_memory_should_agree_both_ways_and_with_episodes():
    """By histories, by dynamic programming, and by 4,000 episodes: 4 standard errors, one in 16,000."""
    policy = generalist(gru_units=0)
    mates = specialist_tables(GAME)
    table = member_tables(
        GAME, Population(GAME.name, policy.actor, jax.tree.map(lambda leaf: leaf[None], policy.params))
    )[0]
    by_history, by_programming = meet_with_memory(GAME, policy, mates), meet(GAME, table, mates)
    np.testing.assert_allclose(by_history["success"], by_programming["success"], atol=2e-6)
    np.testing.assert_allclose(by_history["returns"], by_programming["returns"], atol=2e-6)
    played = evaluate(policy, [ConstantPolicy(2)], GAME, episodes=4000).rates.rates[0]
    p = by_history["success"][2]
    assert abs(played - p) < 4 * np.sqrt(p * (1 - p) / 4000)


def test_the_scripted_oracle_should_meet_every_specialist_by_the_second_stage():
    found = meet(GAME, copycat_table(GAME), specialist_tables(GAME))
    assert found["success"] == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(found["returns"], [0.9 * 0.5, 1.0, 0.9 * 0.7], rtol=1e-6)
    assert meet(LeverGame(n_levers=2, n_stages=1), *_single())["success"] == [1.0, 0.0]


def _single():
    game = LeverGame(n_levers=2, n_stages=1)
    return copycat_table(game), specialist_tables(game)
