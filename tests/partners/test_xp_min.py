"""Cross-play minimization: exact gradients, the clip's direction, who is closest, latents, mixed play."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metier.core import InputError
from metier.partners import PPO, train_xp_min
from metier.partners.games import LeverGame, MatrixGame, reset_pool
from metier.partners.training.actors import Actor
from metier.partners.training.collect import Chunk, TwoActors, begin, collect
from metier.partners.training.mixed_play import MixedActor
from metier.partners.training.pairs import (
    episode_means,
    find_closest,
    own_seat,
    pair_table,
    running_success,
)
from metier.partners.training.ppo import normalized, policy_loss
from metier.partners.training.self_play import replay
from metier.partners.training.xp_terms import latent_loss
from metier.partners.training.xp_trainer import XPMin

MATRIX = MatrixGame(blocks=(2, 1, 3))
LEVER = LeverGame(n_levers=3, n_stages=4)


def two_members(actor, scale=4.0):
    params = jax.jit(jax.vmap(actor.init))(jax.random.split(jax.random.key(3), 2))
    return jax.tree.map(lambda leaf: scale * leaf, params)


def test_cross_play_gradient_should_match_the_exact_one_on_the_matrix_game():
    """Unclipped, cosine at least .99; nothing moves the other member."""
    actor = Actor.for_game(MATRIX, hidden=(6,))
    params = jax.tree.map(lambda leaf: leaf * 1.0, two_members(actor, 20.0))
    seats = jnp.eye(2)

    @jax.jit
    def gradients(params, key):
        team, pool = TwoActors(actor, actor), reset_pool(MATRIX, key, 4)
        one, other = (jax.tree.map(lambda leaf, k=k: leaf[k], params) for k in (0, 1))

        def seating(left, right, key):
            running = begin(MATRIX, team, pool, key, 20_000)
            return collect(MATRIX, team, (left, right), running, pool, key, n_steps=1)[1]

        stack = jax.tree.map(lambda a, b: jnp.stack([a, b]), one, other)
        swapped = jax.tree.map(lambda leaf: leaf[::-1], stack)
        chunk = jax.vmap(seating)(stack, swapped, jax.random.split(key))
        chunk = jax.tree.map(lambda leaf: leaf[None], chunk)
        sequences, hidden = own_seat(chunk, chunk.rewards, jnp.array(0), jnp.array(True))

        def sampled(params):
            mine = jax.tree.map(lambda leaf: leaf[0], params)
            _, ratio = replay(actor, mine, (sequences, hidden))
            return policy_loss(ratio, -normalized(sequences[-1]), 0.3)

        def exact(mine):
            def play(params, seat):
                inputs = jnp.concatenate([jnp.ones(1), seats[seat]])
                return jax.nn.softmax(actor.network.step(params, inputs, jnp.zeros(0))[0])

            left = MATRIX.exact_behaviours(play(mine, 0), play(other, 1)).sum()
            return (left + MATRIX.exact_behaviours(play(other, 0), play(mine, 1)).sum()) / 2

        return jax.grad(sampled)(params), jax.grad(exact)(one)

    sampled, exact = gradients(params, jax.random.key(0))
    mine = np.concatenate([np.ravel(leaf[0]) for leaf in jax.tree.leaves(sampled)])
    true = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(exact)])
    # The loss goes down where J_XP goes down.
    assert mine @ true / np.linalg.norm(mine) / np.linalg.norm(true) >= 0.99
    assert all((np.asarray(leaf[1]) == 0.0).all() for leaf in jax.tree.leaves(sampled))


def test_cross_play_term_should_stop_where_the_clip_says():
    """A = 1, r = .5, eps = .3 moves nothing; r = .8 and A = -1, r = .5 do."""

    def slope(ratio, advantage):
        return float(jax.grad(lambda r: policy_loss(r, -jnp.array(advantage), 0.3))(jnp.array(ratio)))

    assert slope(0.5, 1.0) == 0.0
    assert slope(0.8, 1.0) == pytest.approx(1.0)
    assert slope(0.5, -1.0) == pytest.approx(-1.0)
    assert slope(1.5, -1.0) == 0.0


def test_closest_should_go_by_returns_of_both_seatings():
    """Returns, not rewards per step; the mean of both seatings, the same from either side."""
    table = pair_table(3)
    done = np.zeros((3, 2, 6, 1), bool)
    returns = np.zeros((3, 2, 6, 1), np.float32)
    # Pair (0, 1): one episode of six steps with return 3; pair (0, 2): six of one step with return 1 each.
    done[0, :, 5], returns[0, :, 5] = True, 3.0
    done[1], returns[1] = True, 1.0
    chunk = Chunk._make([None] * len(Chunk._fields))._replace(
        terminated=jnp.asarray(done), truncated=jnp.zeros_like(done), returns=jnp.asarray(returns)
    )
    seated = episode_means(chunk, jnp.full((3, 2), -7.0))
    np.testing.assert_array_equal(seated, [[3, 3], [1, 1], [-7, -7]])
    assert find_closest(seated, table, jnp.arange(3)).tolist() == [1, 0, 0]
    assert find_closest(seated, table, jnp.array([1, 2])).tolist() == [2, 2, 0]
    lopsided = jnp.array([[4.0, 0.0], [1.0, 2.0], [3.0, 3.0]])
    assert find_closest(lopsided, table, jnp.arange(3)).tolist() == [1, 2, 1]


def test_latents_should_last_an_episode_and_be_private_to_a_seat():
    """Z stays to the end of an episode, seats draw alone, MI's gradient moves the policy."""
    actor = Actor.for_game(LEVER, hidden=(6,), n_latents=4)
    trainer = XPMin(LEVER, actor, PPO(), 2, mi_weight=0.5, n_pairs=1)
    params = jax.tree.map(lambda leaf: leaf[0], two_members(actor))

    @jax.jit
    def play(params, key):
        pool = reset_pool(LEVER, key, 4)
        team = TwoActors(actor, actor)
        running = begin(LEVER, team, pool, key, 400)
        chunk = collect(LEVER, team, (params, params), running, pool, key, n_steps=12)[1]
        classifier = trainer.classifier.init(key)

        def loss(params):
            latents = jnp.stack([seat.latents for seat in chunk.seats], axis=2)
            starts = jnp.stack([chunk.starts] * 2, axis=2)
            batch = (chunk.observations, latents, latents, latents, starts, starts)
            logits, _ = replay(actor, params, (batch, jnp.zeros((400, 2, 0))))
            return latent_loss(trainer, classifier, chunk.observations, logits, latents)

        return chunk, jax.grad(loss)(params)

    chunk, gradient = play(params, jax.random.key(0))
    left, right = (np.asarray(seat.latents) for seat in chunk.seats)
    kept = ~np.asarray(chunk.starts)[1:]
    assert (left[1:] == left[:-1])[kept].all()
    assert (left[1:] != left[:-1])[~kept].mean() == pytest.approx(0.75, abs=0.06)
    first = np.asarray(chunk.starts)
    # Chance agreement of two independent draws of 4: 1/4 within 4 standard errors of 1,200 or more episodes.
    assert (left == right)[first].mean() == pytest.approx(0.25, abs=0.05)
    assert float(jnp.abs(gradient["dense0"]["w"]).max()) > 0.0


@pytest.mark.slow
def test_mixed_play_should_seat_the_guest_only_before_the_switch():
    actor = Actor.for_game(LEVER, hidden=(6,))
    members = two_members(actor)
    # The guest always pulls lever 2, the member never does.
    bias = jnp.array([[9.0, 9.0, -99.0], [-99.0, -99.0, 9.0]])
    members = jax.tree.map(jnp.zeros_like, members) | {"head": {"w": jnp.zeros((2, 6, 3)), "b": bias}}

    @jax.jit
    def play(members, key):
        team, pool = MixedActor(actor, LEVER.horizon), reset_pool(LEVER, key, 4)
        both = tuple(jax.tree.map(lambda leaf, k=k: leaf[k], members) for k in (0, 1))
        running = begin(LEVER, team, pool, key, 64)
        return collect(LEVER, team, both, running, pool, key, n_steps=40)[1]

    chunk = play(members, jax.random.key(1))
    # What was pulled is seen at the next step: own and other last choice, one-hot.
    last = np.asarray(chunk.observations)[1:, :, :, :4].argmax(axis=-1)
    guest = (last == 2) & ~np.asarray(chunk.starts)[1:, :, None]
    own = np.asarray(chunk.seats.is_own)[:-1]
    assert guest.any()
    assert not guest[own].any()
    assert not guest[:, :32, 0].any()
    assert not guest[:, 32:, 1].any()
    assert 0.3 < np.asarray(chunk.seats.is_own).mean() < 0.9


@pytest.mark.slow
def test_training_should_part_members_on_the_matrix_game():
    """The two best blocks of two teams: with the cross-play term they end in different ones."""
    ppo = PPO(n_envs=128, n_steps=1, learning_rate=2e-3, entropy_weight=0.02, minibatches=1)
    population = train_xp_min(
        MatrixGame(blocks=(2, 2)),
        n_members=2,
        steps=128 * 4 * 60,
        xp_weight=1.0,
        ppo=ppo,
        hidden=(8,),
        reports=1,
    )
    row = population.progress.rows[-1]
    assert min(row["success"]) > 0.9
    assert row["cross_play"][0][1] < 0.2
    assert row["information"] > 0.5


def test_weight_should_wait_for_success_only_as_far_as_asked():
    """lambda_X min(1, s / wait); s a running share of finished episodes, a tenth of it the newest's."""
    actor = Actor.for_game(LEVER, hidden=(6,))
    shares = jnp.array([0.0, 0.5, 1.0])
    for wait, weights in ((0.0, [0.3, 0.3, 0.3]), (1.0, [0.0, 0.15, 0.3]), (0.4, [0.0, 0.3, 0.3])):
        trainer = XPMin(LEVER, actor, PPO(), 3, xp_weight=0.3, n_pairs=3, xp_wait=wait)
        np.testing.assert_allclose(trainer.cross_weight(shares), weights, rtol=1e-6)
    done = np.array([[True, False], [True, True], [False, True]])
    chunk = Chunk._make([None] * len(Chunk._fields))._replace(
        terminated=jnp.asarray(done),
        truncated=jnp.zeros_like(done),
        behaviours=jnp.array([[2, -1], [-1, 0], [-1, 1]]),
    )
    assert float(running_success(jnp.array(0.5), chunk)) == pytest.approx(0.9 * 0.5 + 0.1 * 3 / 4)
    none = chunk._replace(terminated=jnp.zeros_like(done), behaviours=jnp.full((3, 2), -1))
    assert float(running_success(jnp.array(0.5), none)) == 0.5


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"xp_wait": 1.5}, "xp_wait is a share of episodes"),
        ({"n_members": 1}, "n_members is a whole number"),
        ({"xp_weight": -1.0}, "xp_weight has no negative values"),
        ({"n_pairs": 2}, "n_pairs from 3 to 3"),
        ({"adv_norm": "both"}, "'separate' | 'shared'"),
        ({"mi_weight": 0.5, "n_latents": 1}, "n_latents is a whole number"),
    ],
)
def test_xp_min_should_refuse_bad_settings(settings, match):
    with pytest.raises(InputError, match=match):
        train_xp_min(LEVER, **{"n_members": 3, "steps": 10, **settings})
