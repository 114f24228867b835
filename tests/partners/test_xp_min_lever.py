"""Cross-play minimization beside exact dynamic programming: its gradient in the lever game."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metier.partners import PPO
from metier.partners.games import LeverGame, reset_pool
from metier.partners.training.actors import Actor
from metier.partners.training.collect import OneActor, TwoActors, begin, collect
from metier.partners.training.pairs import own_seat
from metier.partners.training.self_play import self_play_batch
from metier.partners.training.xp_terms import scale_advantages, xp_min_loss
from metier.partners.training.xp_trainer import XPMin

GAME = LeverGame(n_levers=3, n_stages=3)
ACTOR = Actor.for_game(GAME, hidden=(6,))
N_ENVS, N_STEPS = 4_000, 24


def policy_table(params, seat):
    """pi(k | t, own last, other last), shape (T, K + 1, K + 1, K)."""
    seen = GAME.all_observations()
    inputs = ACTOR.inputs(seen, jnp.array(seat), jnp.array(0))
    return jax.nn.softmax(ACTOR.network.step(params, inputs, jnp.zeros((*seen.shape[:-1], 0)))[0])


def exact_return(left, right):
    return GAME.exact(policy_table(left, 0), policy_table(right, 1)).expected_return


def returns_to_come(chunk):
    """The return of the episode that each step belongs to (rewards come at the end only), 0 if cut off."""

    def one(later, step):
        done, total = step
        now = jnp.where(done, total, later)
        return now, now

    start = jnp.zeros(chunk.returns.shape[-1])
    return jax.lax.scan(one, start, (chunk.done, chunk.returns), reverse=True)[1]


@pytest.mark.slow
@pytest.mark.parametrize("xp_weight", [0.0, 1.0])
def test_gradient_should_match_dynamic_programming_in_the_lever_game(xp_weight):
    """the whole loss, on one scale, against the slope of J_SP - lambda J_XP.

    With weight 0 self-play alone; with weight 1 a wrong sign, seat or relative weight turns the direction.
    """
    trainer = XPMin(
        GAME, ACTOR, PPO(entropy_weight=0.0), 2, xp_weight=xp_weight, adv_norm="shared", n_pairs=1
    )
    params = jax.tree.map(
        lambda leaf: 3.0 * leaf, jax.vmap(ACTOR.init)(jax.random.split(jax.random.key(3), 2))
    )
    params["head"]["w"] = 60.0 * params["head"]["w"]
    params["head"]["b"] = jnp.array([[0.8, 0.0, -0.4], [0.2, 0.5, 0.0]])
    mine, other = (jax.tree.map(lambda leaf, k=k: leaf[k], params) for k in (0, 1))

    @jax.jit
    def both(key):
        pool = reset_pool(GAME, key, 4)

        def played(team, params, key):
            running = begin(GAME, team, pool, key, N_ENVS)
            return collect(GAME, team, params, running, pool, key, n_steps=N_STEPS)[1]

        keys = jax.random.split(key, 3)
        own = played(OneActor(ACTOR), mine, keys[0])
        team = TwoActors(ACTOR, ACTOR)
        seatings = [played(team, pair, k) for pair, k in (((mine, other), keys[1]), ((other, mine), keys[2]))]
        cross = jax.tree.map(lambda *leaves: jnp.stack(leaves)[None], *seatings)
        gains = jnp.stack([returns_to_come(chunk) for chunk in seatings])[None]
        parts = [
            self_play_batch(own, returns_to_come(own)),
            own_seat(cross, gains, jnp.array(0), jnp.array(True)),
        ]
        scaled, weights = scale_advantages(
            [part[0][-1] for part in parts],
            [None, None],
            [part[0][-2] for part in parts],
            trainer,
            trainer.cross_weight(jnp.array(0.0)),
        )
        sequences = tuple((*part[0][:-1], gain, None) for part, gain in zip(parts, scaled, strict=True))
        batch = (sequences, tuple(part[1] for part in parts))
        learned = {"actor": mine, "classifier": {}}
        sampled = jax.grad(lambda one: xp_min_loss(trainer, one, batch, weights)[0])(learned)["actor"]

        def objective(mine):
            crossed = (exact_return(mine, other) + exact_return(other, mine)) / 2
            return exact_return(mine, mine) - xp_weight * crossed

        return sampled, jax.grad(objective)(mine)

    sampled, exact = both(jax.random.key(0))
    ours, true = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (sampled, exact)
    )
    assert np.linalg.norm(true) > 1e-2
    assert -(ours @ true) / np.linalg.norm(ours) / np.linalg.norm(true) >= 0.99
