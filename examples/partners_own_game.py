"""A game of one's own: a frozen dataclass with four pure functions, and every measure takes it.

python examples/partners_own_game.py

Two porters push a crate along a corridor to one of two doors. It moves only when both push the same way.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from metier import partners
from metier.partners.games import Step, check_game

LEFT, RIGHT, WAIT = range(3)


class Crate(NamedTuple):
    """All that changes: a pytree of arrays whose shapes and dtypes never do."""

    place: jax.Array
    time: jax.Array


@dataclass(frozen=True)
class Corridor:
    """The crate starts in the middle, one cell to either side at random; a door is `length` cells away."""

    length: int = 3
    horizon: int = 12
    name: str = "corridor"
    n_actions: int = 3
    observation_size: int = 2
    behaviours: tuple[str, ...] = ("left door", "right door")

    def reset(self, key):
        return Crate(jax.random.randint(key, (), -1, 2), jnp.array(0, jnp.int32))

    def observe(self, state):
        """Both see the same: where the crate is and how late it is. Shape (2, observation_size)."""
        seen = jnp.array([state.place / self.length, state.time / self.horizon], jnp.float32)
        return jnp.stack([seen, seen])

    def step(self, state, actions):
        push = jnp.array([-1, 1, 0])[actions]
        place = state.place + jnp.where(push[0] == push[1], push[0], 0)
        after = Crate(place.astype(jnp.int32), state.time + 1)
        home = jnp.abs(place) >= self.length
        return Step(after, jnp.where(home, 1.0, -0.05), home, (after.time >= self.horizon) & ~home)

    def behaviour(self, state):
        home = jnp.abs(state.place) >= self.length
        return jnp.where(home, (state.place > 0).astype(jnp.int32), -1)


class Pusher:
    """A partner with a favorite door."""

    def __init__(self, way):
        self.way = way

    def act(self, observation, state, rng):
        return self.way, None


class Follower:
    """Pushes to where the crate already is; in the middle, anywhere."""

    def act(self, observation, state, rng):
        place = observation[0]
        return (int(rng.integers(2)) if place == 0 else int(place > 0)), None


game = check_game(Corridor())  # says what is wrong, if anything is
porters = {"left": Pusher(LEFT), "right": Pusher(RIGHT), "follower": Follower()}
pairs = partners.cross_play(list(porters.values()), game, episodes=100, names=list(porters))
print(pairs.summary())
print(pairs.self_play.information().summary())
print(
    partners.evaluate(porters["follower"], [porters["left"], porters["right"]], game, episodes=200).summary()
)
