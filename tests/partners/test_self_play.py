"""Networks, rollouts, PPO and self-play: exact replay, seams between episodes, learning, same bits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metier.partners import PPO
from metier.partners.games import LeverGame, reset_pool
from metier.partners.training.actors import Actor
from metier.partners.training.collect import OneActor, begin, collect
from metier.partners.training.self_play import self_play_batch, self_play_terms

GAME = LeverGame(n_levers=3, n_stages=4)
SMALL = PPO(n_envs=32, n_steps=16, minibatches=2, learning_rate=3e-3, entropy_weight=0.01)


def played(actor, params, n_envs, n_steps, key, chunks=1):
    pool = reset_pool(GAME, jax.random.key(5), 16)
    running = begin(GAME, OneActor(actor), pool, key, n_envs)
    for index in range(chunks):
        running, chunk = collect(
            GAME, OneActor(actor), params, running, pool, jax.random.fold_in(key, index), n_steps=n_steps
        )
    return chunk


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("gru_units", "n_latents"), [(0, 0), (6, 0), (6, 3)])
def test_ratio_should_be_one_on_the_first_minibatch_across_episode_ends(gru_units, n_latents):
    """Must 13: also in the second chunk, which begins in the middle of episodes."""
    actor = Actor.for_game(GAME, hidden=(8,), gru_units=gru_units, n_latents=n_latents)
    params = jax.tree.map(lambda leaf: 3.0 * leaf + 0.1, actor.init(jax.random.key(0)))

    @jax.jit
    def ratios(params, key):
        chunk = played(actor, params, 16, 10, key, chunks=2)
        sequences, initial = self_play_batch(chunk, chunk.rewards)
        return chunk, self_play_terms(actor, params, (sequences, initial), SMALL)[2]

    chunk, ratio = ratios(params, jax.random.key(1))
    assert chunk.starts[1:].any()
    assert not chunk.starts[0].all()
    np.testing.assert_allclose(ratio, 1.0, atol=1e-5)
    if gru_units:
        wrong = chunk._replace(starts=jnp.roll(chunk.starts, 1, axis=0))
        sequences, initial = self_play_batch(wrong, chunk.rewards)
        off = self_play_terms(actor, params, (sequences, initial), SMALL)[2]
        assert float(jnp.abs(off - 1.0).max()) > 1e-3
