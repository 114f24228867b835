"""Generalists: exact replay with memory, frozen partners of every kind, weights, learning, saving."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metier.core import InputError
from metier.partners import PPO, CapacitySampler, Generalist, Population, evaluate, train_generalist
from metier.partners.games import Cooking, LeverGame, MatrixGame, reset_pool, specialists
from metier.partners.policies import LEGAL, ConstantPolicy, one_illegal
from metier.partners.samplers import UniformSampler
from metier.partners.training.actors import Actor, log_prob
from metier.partners.training.generalist_training import (
    GeneralistTraining,
    generalist_batch,
    generalist_logits,
)
from metier.partners.training.loop import fresh_state
from metier.partners.training.mates import stacked_mates

GAME = LeverGame(n_levers=3, n_stages=4)
QUICK = PPO(n_envs=16, n_steps=8, epochs=2, minibatches=2, learning_rate=1e-2, entropy_weight=0.01)
LEVERS = [ConstantPolicy(k) for k in range(3)]


def trainer_of(partners, sampler=None, gru_units=6):
    mate, params, n = stacked_mates(partners, GAME)
    actor = Actor.for_game(GAME, hidden=(8,), gru_units=gru_units)
    return GeneralistTraining(GAME, actor, QUICK, mate, params, n, sampler or UniformSampler())


@functools.partial(jax.jit, static_argnums=0)
def played(trainer, params, state, key):
    """Compiled once for trainers of one shape; the partners are in the state."""
    return trainer.collect(params, state, reset_pool(GAME, jax.random.key(5), 8), key)


@functools.cache
def two_chunks(seed):
    """Return the generalist's parameters and what it played with LEVERS in its second chunk."""
    trainer, key = trainer_of(LEVERS), jax.random.key(seed)
    state = fresh_state(trainer, key)
    params = jax.tree.map(lambda leaf: 3.0 * leaf[0] + 0.1, state.params)
    running, _ = played(trainer, params, state, key)
    return params, played(trainer, params, state._replace(running=running), jax.random.fold_in(key, 1))[1]


def test_ratio_should_be_one_with_memory_across_episode_ends():
    """chunks that begin and end in the middle of episodes, in both seats."""
    trainer = trainer_of(LEVERS)

    @jax.jit
    def ratios(params, chunks):
        batch = generalist_batch(chunks, jnp.zeros((3, 2, QUICK.n_steps, QUICK.n_envs)), jnp.ones(3))
        logits = generalist_logits(trainer.actor, params, batch)
        return jnp.exp(log_prob(logits, batch[0][1]) - batch[0][2])

    params, chunks = two_chunks(1)
    ratio = ratios(params, chunks)
    assert all(chunk.starts[:, 1:].any() and not chunk.starts[:, 0].all() for chunk in chunks)
    np.testing.assert_allclose(ratio, 1.0, atol=1e-5)


def test_partners_should_sit_opposite_and_stay_as_they_were():
    _, chunks = two_chunks(1)
    for seat, chunk in enumerate(chunks):
        assert chunk.rewards.shape == (3, QUICK.n_steps, QUICK.n_envs)
        goes_on = ~np.asarray(chunk.done)[:, :-1]
        mate = np.asarray(chunk.observations)[:, 1:, :, seat, 4:8].argmax(-1)
        for partner in range(3):
            assert (mate[partner][goes_on[partner]] == partner).all()


@pytest.mark.slow
def test_a_partner_without_weight_should_not_move_the_generalist():
    trainer, sampler = trainer_of(LEVERS), CapacitySampler((0.5, 0.5, 0.0))
    params, chunks = two_chunks(1)
    advantage = jax.random.normal(jax.random.key(1), (3, 2, QUICK.n_steps, QUICK.n_envs))
    other = advantage.at[2].multiply(-7.0)
    weights = 3.0 * sampler.weights(sampler.start(3))

    @jax.jit
    def gradient(advantage, weights):
        batch = generalist_batch(chunks, advantage, weights)
        return jax.grad(lambda p: trainer.loss(p, batch)[0])(params)

    def apart(a, b):
        return max(float(jnp.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))

    assert apart(gradient(advantage, weights), gradient(other, weights)) == 0.0
    assert apart(gradient(advantage, jnp.ones(3)), gradient(other, jnp.ones(3))) > 1e-4


@pytest.mark.slow
def test_generalist_should_learn_every_lever():
    steps = 80 * 3 * 2 * QUICK.n_envs * QUICK.n_steps
    generalist = train_generalist(LEVERS, GAME, steps=steps, ppo=QUICK, gru_units=16, hidden=(16,), reports=1)
    found = evaluate(generalist, LEVERS, GAME, episodes=100)
    assert found.rates.minimum > 0.9
    assert generalist.progress.rows[-1]["partner_success"] > 0.9


def test_generalists_should_survive_the_disk(tmp_path):
    actor = Actor.for_game(GAME, hidden=(4,), gru_units=3)
    generalist = Generalist(GAME.name, actor, jax.jit(actor.init)(jax.random.key(0)))
    path = tmp_path / "generalist.safetensors"
    generalist.save(path)
    loaded = Generalist.load(path, GAME)
    for a, b in zip(jax.tree.leaves(generalist.params), jax.tree.leaves(loaded.params), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="plays the game it was trained for"):
        Generalist.load(path, MatrixGame())
    Population.fresh(GAME, n_members=2, actor=actor).save(tmp_path / "two.safetensors")
    with pytest.raises(InputError, match="one generalist: expected 1 policy, got a population of 2"):
        Generalist.load(tmp_path / "two.safetensors")


@pytest.mark.slow
def test_interrupted_training_should_end_with_the_same_bits(tmp_path):
    """Checkpoints of a generalist: half, then the rest, equals the whole; other partners are refused."""
    steps = 6 * 3 * 2 * QUICK.n_envs * QUICK.n_steps
    options = {"ppo": QUICK, "gru_units": 4, "hidden": (4,), "reports": 1}
    whole = train_generalist(LEVERS, GAME, steps=steps, **options)
    train_generalist(LEVERS, GAME, steps=steps // 2, folder=tmp_path, **options)
    resumed = train_generalist(LEVERS, GAME, steps=steps, folder=tmp_path, **options)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(resumed.params), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="same settings"):
        train_generalist(LEVERS[::-1], GAME, steps=steps, folder=tmp_path, **options)


class Torchlike:
    def act(self, observation, state, rng):
        return 0, None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Picky:
    """Takes observations of 5 numbers only."""

    weights: jax.Array

    def initial_state(self):
        return ()

    def pure_act(self, observation, state, key):
        return jnp.argmax(observation @ self.weights).astype(jnp.int32), state


@pytest.mark.parametrize(
    ("partners", "match"),
    [
        ([], "partners to train with.*got an empty list"),
        ([Torchlike()], "policies in JAX.*got partner 0: Torchlike"),
        ([ConstantPolicy(0), *specialists(Cooking())], "one class and one size.*got partner 1: Planner"),
        ([Picky(jnp.ones((5, 3)))], "take the game's observations: expected 14 numbers"),
        (Population.fresh(MatrixGame(), n_members=2), "plays the game it was trained for"),
    ],
)
def test_unfit_partners_should_be_refused(partners, match):
    with pytest.raises(InputError, match=match):
        train_generalist(partners, GAME, steps=10)


def test_actions_that_the_game_does_not_have_should_be_found_and_laid_at_a_partner_s_door():
    trainer = trainer_of([ConstantPolicy(2), ConstantPolicy(7), ConstantPolicy(-1)])
    params, _ = two_chunks(1)
    state = fresh_state(trainer, jax.random.key(1))
    _, chunks = played(trainer, params, state, jax.random.key(2))
    taken = jnp.stack([chunk.seats.partner_actions for chunk in chunks], axis=1)
    found = one_illegal(taken, GAME.n_actions, axis=(1, 2, 3))
    assert found.tolist() == [LEGAL, 7, -1]
    with pytest.raises(InputError, match=r"partner 1 returns an action of the game.*from 0 to 2, got 7"):
        trainer.checked({"illegal_actions": found})
    legal = {"illegal_actions": found[:1], "entropy": jnp.ones(())}
    assert list(trainer.checked(legal)) == ["entropy"]


@pytest.mark.slow
def test_a_partner_that_leaves_the_game_should_be_refused_while_it_trains(tmp_path):
    """Only what happens in the game is checked, so that a partner may be wrong where nobody ever is."""
    tiny = {"ppo": PPO(n_envs=2, n_steps=2, minibatches=1), "gru_units": 0, "hidden": (), "reports": 1}
    partners = [ConstantPolicy(2), ConstantPolicy(7)]
    with pytest.raises(InputError, match=r"partner 1 returns an action of the game.*from 0 to 2, got 7"):
        train_generalist(partners, GAME, steps=8, folder=tmp_path, **tiny)
    assert not list(tmp_path.iterdir())
