"""Trainings in one process: each has its own frozen partners, though equal programs are compiled once."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from metier.partners import PPO, Population
from metier.partners.games import LeverGame
from metier.partners.policies import ConstantPolicy
from metier.partners.samplers import UniformSampler
from metier.partners.training.actors import Actor
from metier.partners.training.distill import Distillation
from metier.partners.training.generalist_training import GeneralistTraining
from metier.partners.training.loop import fresh_state
from metier.partners.training.mates import stacked_mates

GAME = LeverGame(n_levers=2, n_stages=2)
QUICK = PPO(n_envs=2, n_steps=2, epochs=1, minibatches=1)


def test_a_second_generalist_should_start_with_its_own_partners():
    """Equal trainers share a compiled program; the partners of the first must not stay in it."""
    actor = Actor.for_game(GAME, hidden=(4,), gru_units=2)
    for levers in ([0, 1], [1, 0]):
        mate, params, n = stacked_mates([ConstantPolicy(lever) for lever in levers], GAME)
        trainer = GeneralistTraining(GAME, actor, QUICK, mate, params, n, UniformSampler())
        state = fresh_state(trainer, jax.random.key(0))
        assert np.asarray(state.mates.action).tolist() == levers


@pytest.mark.slow
def test_a_second_distillation_should_start_with_its_own_sources():
    actor = Actor.for_game(GAME, hidden=(4,))
    for seed in (0, 1):
        sources = Population.fresh(GAME, n_members=1, rng=seed, actor=actor)
        trainer = Distillation(GAME, actor, QUICK, 1, actor, sources.params, 0.1)
        state = fresh_state(trainer, jax.random.key(0))
        for kept, own in zip(jax.tree.leaves(state.sources), jax.tree.leaves(sources.params), strict=True):
            np.testing.assert_array_equal(kept, own)
