"""Networks, rollouts, PPO and self-play: exact replay, seams between episodes, checkpoints, same bits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metier.core import InputError
from metier.partners import PPO, Population, train_self_play
from metier.partners.games import LeverGame, MatrixGame
from metier.partners.training.actors import Actor
from metier.partners.training.collect import OneActor, begin, collect
from metier.partners.training.loop import make_pool
from metier.partners.training.ppo import gae, policy_loss
from metier.partners.training.self_play import self_play_batch, self_play_terms

GAME = LeverGame(n_levers=3, n_stages=4)
# The sizes of the trainers' own examples, so that XLA compiles their functions once.
TINY = LeverGame(n_levers=2, n_stages=2)
SMALL = PPO(n_envs=8, n_steps=4, epochs=1, minibatches=2)


@pytest.mark.parametrize(
    ("gru_units", "n_latents"),
    [pytest.param(0, 0, marks=pytest.mark.slow), pytest.param(6, 0, marks=pytest.mark.slow), (6, 3)],
)
def test_ratio_should_be_one_on_the_first_minibatch_across_episode_ends(gru_units, n_latents):
    """Also in the second chunk, which begins in the middle of episodes."""
    actor = Actor.for_game(GAME, hidden=(8,), gru_units=gru_units, n_latents=n_latents)
    params = jax.tree.map(lambda leaf: 3.0 * leaf + 0.1, jax.jit(actor.init)(jax.random.key(0)))
    team, pool = OneActor(actor), make_pool(GAME, jax.random.key(5))

    @jax.jit
    def played(params, running, key):
        return collect(GAME, team, params, running, pool, key, n_steps=10)

    @jax.jit
    def ratios(params, chunk):
        return self_play_terms(actor, params, self_play_batch(chunk, chunk.rewards), SMALL)[2]

    running, _ = played(params, begin(GAME, team, pool, jax.random.key(1), 16), jax.random.key(2))
    chunk = played(params, running, jax.random.key(3))[1]
    ratio = ratios(params, chunk)
    assert chunk.starts[1:].any()
    assert not chunk.starts[0].all()
    np.testing.assert_allclose(ratio, 1.0, atol=1e-5)
    if gru_units:
        off = ratios(params, chunk._replace(starts=jnp.roll(chunk.starts, 1, axis=0)))
        assert float(jnp.abs(off - 1.0).max()) > 1e-3


def slow_gae(rewards, now, after, done, discount, trace_decay):
    advantage = np.zeros_like(rewards)
    for t in range(len(rewards)):
        weight = 1.0
        for later in range(t, len(rewards)):
            follows = 0.0 if done[later] else discount * after[later]
            advantage[t] += weight * (rewards[later] + follows - now[later])
            if done[later]:
                break
            weight *= discount * trace_decay
    return advantage


def test_advantages_should_equal_the_slow_sums_and_stop_at_ends():
    rng = np.random.default_rng(0)
    rewards, now, after = rng.normal(size=(3, 12))
    done = rng.uniform(size=12) < 0.3
    fast = gae(*(jnp.asarray(v, jnp.float32) for v in (rewards, now, after)), jnp.asarray(done), 0.9, 0.8)
    np.testing.assert_allclose(fast, slow_gae(rewards, now, after, done, 0.9, 0.8), atol=1e-5)


def test_padding_should_carry_no_loss_and_the_gradient_should_have_a_limit():
    ratio, gain = jnp.array([1.1, 0.9, 5.0]), jnp.array([1.0, -2.0, 50.0])
    weights = jnp.array([1.0, 1.0, 0.0])
    assert float(policy_loss(ratio, gain, 0.3, weights)) == pytest.approx(-(1.1 - 1.8) / 2)
    assert float(jax.grad(lambda r: policy_loss(r, gain, 0.3, weights))(ratio)[2]) == 0.0
    # Adam's first moment after one step is a tenth of the gradient that it was given.
    optimizer, params = SMALL.optimizer(), {"w": jnp.zeros(4)}
    for size, norm in ((100.0, SMALL.max_grad_norm), (0.1, 0.2)):
        _, state = optimizer.update({"w": jnp.full(4, size)}, optimizer.init(params))
        assert float(optax.tree.norm(optax.tree.get(state, "mu"))) == pytest.approx(0.1 * norm, rel=1e-5)


class Interrupt:
    """Stops a training after some reports, as Ctrl-C does."""

    def __init__(self, after):
        self.after, self.rows = after, []

    def __call__(self, row):
        self.rows.append(row)
        if len(self.rows) == self.after:
            raise KeyboardInterrupt


def train(folder=None, on_progress=None, iterations=4, **settings):
    options = {"n_members": 2, "ppo": SMALL, "hidden": (8,), "reports": 4, "rng": 1}
    steps = iterations * 2 * 8 * 4
    return train_self_play(
        TINY, steps=steps, folder=folder, on_progress=on_progress, **{**options, **settings}
    )


def bits(population):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(population.params)]


def test_training_should_resume_to_the_same_bits_after_an_interruption(tmp_path):
    """Ctrl-C leaves a checkpoint; the rest ends with the same bits; files of other trainings are refused."""
    whole = train()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Interrupt(2))
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]
    rest = Interrupt(99)
    resumed = train(tmp_path, rest)
    assert bits(resumed) == bits(whole)
    assert len(rest.rows) == 2
    assert resumed.progress == whole.progress
    with pytest.raises(InputError, match="the same rng"):
        train(tmp_path, rng=2)
    with pytest.raises(InputError, match=r"not beyond the training.*at most 3 iterations, got 4"):
        train(tmp_path, iterations=3)
    with pytest.raises(InputError, match="the same game"):
        train_self_play(MatrixGame(), n_members=2, steps=8, ppo=SMALL, hidden=(8,), folder=tmp_path)

    path = tmp_path / "population.safetensors"
    whole.save(path)
    assert bits(Population.load(path, TINY)) == bits(whole)
    with pytest.raises(InputError, match="plays the game it was trained for"):
        Population.load(path, MatrixGame())
    with pytest.raises(InputError, match="plays the game it was trained for"):
        Population.load(path, LeverGame(n_levers=4))
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="is damaged or of another program"):
        Population.load(tmp_path / "cut.safetensors")
    path = tmp_path / "training.safetensors"
    good = path.read_bytes()
    for damaged in (good[:-20], good[: len(good) // 2], good[:5], b"", b"not safetensors at all" * 9):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged or of another program; use an earlier checkpoint"):
            train(tmp_path)
        assert path.read_bytes() == damaged


@pytest.mark.slow
def test_members_side_by_side_should_equal_members_one_after_the_other():
    """Within 1e-4 after ten iterations; rounding is all that differs."""
    side, turn = (train(iterations=10, members=way) for way in ("vmap", "loop"))
    for a, b in zip(jax.tree.leaves(side.params), jax.tree.leaves(turn.params), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    usual = train(iterations=10)
    on_one_cpu = jax.device_count() == 1 and jax.default_backend() == "cpu"
    for a, b in zip(
        jax.tree.leaves(usual.params), jax.tree.leaves((turn if on_one_cpu else side).params), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: PPO(n_envs=10, minibatches=4), "n_envs a multiple of minibatches=4"),
        (lambda: PPO(clip=1.5), "clip is a fraction"),
        (lambda: PPO(discount=1.1), "discount is at most 1"),
        (lambda: PPO(max_grad_norm=0), "max_grad_norm is above 0"),
        (lambda: train_self_play(GAME, n_members=0, steps=1), "n_members is a whole number"),
        (
            lambda: Population("lever", Actor.for_game(GAME), {"w": np.zeros((0, 2))}),
            "a population has members",
        ),
    ],
)
def test_trainers_should_refuse_bad_settings(make, match):
    with pytest.raises(InputError, match=match):
        make()
