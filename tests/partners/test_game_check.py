"""`check_game` passes every game we ship and refuses, by name, what breaks the contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from metier.core import InputError
from metier.partners.games import Cooking, LeverGame, MatrixGame, Rendezvous, Step, check_game

GAMES = [
    MatrixGame(),
    MatrixGame.uneven(),
    LeverGame(),
    Rendezvous(),
    Rendezvous(layout="hard"),
    Cooking(layout="small", horizon=30),
    pytest.param(Cooking(), marks=pytest.mark.slow),
]


class Count(NamedTuple):
    time: jnp.ndarray
    met: jnp.ndarray


@dataclass(frozen=True)
class Whole:
    """Two steps; the behaviour is whether both chose action 1 at the last one."""

    name: str = "whole"
    n_actions: int = 2
    observation_size: int = 1
    horizon: int = 2
    behaviours: tuple[str, ...] = ("both",)

    def reset(self, key):
        return Count(jnp.array(0, jnp.int32), jnp.array(-1, jnp.int32))

    def observe(self, state):
        return jnp.full((2, 1), state.time, jnp.float32)

    def step(self, state, actions):
        after = Count(state.time + 1, jnp.where(actions.sum() == 2, 0, -1).astype(jnp.int32))
        return Step(after, jnp.float32(1), jnp.array(False), after.time >= 2)

    def behaviour(self, state):
        return state.met


class Drifting(Whole):
    def step(self, state, actions):
        step = super().step(state, actions)
        return step._replace(state=step.state._replace(time=step.state.time.astype(jnp.float32)))


class Endless(Whole):
    def step(self, state, actions):
        return super().step(state, actions)._replace(truncated=jnp.array(False))


class Twice(Whole):
    def step(self, state, actions):
        step = super().step(state, actions)
        return step._replace(terminated=step.truncated)


class Unpaid(Whole):
    def step(self, state, actions):
        return super().step(state, actions)._replace(reward=jnp.zeros(2))


class Nowhere(Whole):
    def step(self, state, actions):
        return super().step(state, actions)._replace(reward=jnp.float32(np.inf))


class OneEyed(Whole):
    def observe(self, state):
        return jnp.zeros((1, 1), jnp.float32)


class Wide(Whole):
    def observe(self, state):
        return jnp.zeros((2, 3), jnp.float32)


class Unnamed(Whole):
    def behaviour(self, state):
        return jnp.array(4, jnp.int32)


class Impure(Whole):
    def step(self, state, actions):
        return super().step(state, actions) if int(actions[0]) else None


class Listed(Whole):
    __hash__ = None


@pytest.mark.parametrize("game", GAMES, ids=lambda game: f"{game.name}-{game.n_actions}")
def test_games_of_ours_should_pass(game):
    assert check_game(game, episodes=3) is game


def test_a_game_of_ones_own_should_pass():
    game = Whole()
    assert check_game(game) is game


@pytest.mark.parametrize(
    ("game", "match"),
    [
        (object(), "every attribute and method of Game.*got object without name, n_actions"),
        (Listed(), "can be hashed"),
        (Whole(n_actions=0), "n_actions of the game is a whole number"),
        (Drifting(), "shapes and dtypes of its state.*float32"),
        (Endless(), "ends at the horizon.*2 steps"),
        (Twice(), "ends in one way.*got both at step 1"),
        (Unpaid(), "one finite reward per step.*got shape \\(2,\\)"),
        (Nowhere(), "one finite reward per step"),
        (OneEyed(), "observes both seats.*got float32, \\(1, 1\\)"),
        (Wide(), "observes both seats.*got float32, \\(2, 3\\)"),
        (Unnamed(), "names its behaviours: expected -1 to 0, got 4"),
        (Impure(), "runs under jit and vmap"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_broken_games_should_be_refused(game, match):
    with pytest.raises(InputError, match=match):
        check_game(game)
