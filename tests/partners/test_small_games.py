"""Matrix, lever and rendezvous: closed forms, dynamic programming, and the contract every game keeps."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metier.core import InputError
from metier.partners.games import (
    LeverGame,
    MatrixGame,
    Rendezvous,
)


def test_matrix_game_should_have_its_sizes_and_closed_form():
    assert (MatrixGame().n_actions, MatrixGame.uneven().n_actions) == (256, 528)
    game = MatrixGame(blocks=(2, 1))
    first, second = jnp.array([0.5, 0.25, 0.25]), jnp.array([0.0, 0.5, 0.5])
    np.testing.assert_allclose(game.exact_behaviours(first, second), [0.75 * 0.5, 0.25 * 0.5])
    for one in range(3):
        for other in range(3):
            step = game.step(game.reset(None), jnp.array([one, other]))
            assert float(step.reward) == float(game.block_of[one] == game.block_of[other])


def random_tables(game, rng):
    shape = (game.n_stages, game.n_levers + 1, game.n_levers + 1, game.n_levers)
    return [jax.nn.softmax(jnp.asarray(rng.normal(size=shape))) for _ in range(2)]


def played(game, tables, episodes, key):
    """Return (returns, behaviours) of episodes that sample from the tables."""
    first, second = (jnp.log(table) for table in tables)

    def episode(key):
        def stage(carry, key):
            state, total, alive = carry
            own, other = state.last
            keys = jax.random.split(key)
            actions = jnp.stack(
                [
                    jax.random.categorical(keys[0], first[state.stage, own, other]),
                    jax.random.categorical(keys[1], second[state.stage, other, own]),
                ]
            )
            step = game.step(state, actions)
            after = jax.tree.map(lambda new, old: jnp.where(alive, new, old), step.state, state)
            return (after, total + alive * step.reward, alive & ~step.terminated), None

        start = (game.reset(None), jnp.float32(0), jnp.array(True))
        (state, total, _), _ = jax.lax.scan(stage, start, jax.random.split(key, game.n_stages))
        return total, game.behaviour(state)

    return jax.jit(jax.vmap(episode))(jax.random.split(key, episodes))


def test_lever_programming_should_match_played_episodes():
    """J and P(X) against 50,000 episodes, each within four standard errors (error rate 3e-4 in all)."""
    game = LeverGame(n_levers=3, n_stages=4, payoffs=(1.0, 0.5, 2.0), discount=0.8)
    tables = random_tables(game, np.random.default_rng(0))
    exact = game.exact(*tables)
    n = 50_000
    returns, behaviours = played(game, tables, n, jax.random.key(1))
    se = float(np.std(returns) / np.sqrt(n))
    assert abs(float(np.mean(returns)) - float(exact.expected_return)) <= 4 * se
    share = np.bincount(np.asarray(behaviours) + 1, minlength=4) / n
    wanted = np.array([float(exact.failure), *np.asarray(exact.behaviours)])
    assert wanted.sum() == pytest.approx(1.0, abs=1e-6)
    assert (np.abs(share - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / n)).all()


def test_lever_gradient_should_equal_finite_differences():
    """In double precision."""
    game = LeverGame(n_levers=3, n_stages=3)
    with jax.enable_x64(True):
        logits = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 4, 4, 3)))

        def value(logits):
            return game.exact(*jax.nn.softmax(logits)).expected_return

        gradient = np.asarray(jax.jit(jax.grad(value))(logits))
        places = list(itertools.product(range(2), range(3), (0, 3), (1, 3), range(3)))
        steps = np.zeros((len(places), *logits.shape))
        steps[(np.arange(len(places)), *zip(*places, strict=True))] = 1e-5
        ahead, behind = (jax.jit(jax.vmap(value))(logits + sign * steps) for sign in (1.0, -1.0))
        differences = (np.asarray(ahead) - np.asarray(behind)) / 2e-5
        assert np.abs(differences - [gradient[place] for place in places]).max() <= 1e-6
        assert np.abs(gradient).max() > 1e-2


def test_lever_observations_should_tell_the_history():
    game = LeverGame(n_levers=2, n_stages=2)
    table = game.all_observations()
    state = game.step(game.reset(None), jnp.array([0, 1])).state
    np.testing.assert_array_equal(game.observe(state)[0], table[1, 0, 1])
    np.testing.assert_array_equal(game.observe(state)[1], table[1, 1, 0])
    assert len({tuple(row) for row in np.asarray(table).reshape(-1, game.observation_size)}) == 2 * 9


def test_rendezvous_should_pay_for_meeting_at_a_landmark():
    game = Rendezvous()
    mark = jnp.asarray(game.landmarks[2])
    there = game.reset(None)._replace(position=jnp.stack([mark, mark]))
    step = game.step(there, jnp.array([0, 0]))
    assert float(step.reward) == pytest.approx(1.0, abs=1e-6)
    assert int(game.behaviour(step.state)) == 2
    apart = game.reset(None)
    assert float(game.step(apart, jnp.array([0, 0])).reward) == pytest.approx(1.0 - 2.25 - 0.3, abs=1e-5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: MatrixGame(blocks=()), "at least one block"),
        (lambda: LeverGame(n_levers=0), "n_levers is a whole number"),
        (lambda: LeverGame(payoffs=(1.0,)), "expected 6 payoffs, got 1"),
        (lambda: LeverGame(discount=1.5), r"a number in \(0, 1\]"),
        (lambda: Rendezvous(layout="medium"), "'easy' | 'hard'"),
    ],
)
def test_small_games_should_refuse_bad_settings(make, match):
    with pytest.raises(InputError, match=match):
        make()
