"""What a game is: pure functions of explicit states, for two players who share every reward."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from metier.core import InputError

N_SEATS = 2
UNDEFINED = -1
"""The behaviour of an episode that shows none."""
PARTS = ("name", "n_actions", "observation_size", "horizon", "behaviours")
FUNCTIONS = ("reset", "observe", "step", "behaviour")


class Step(NamedTuple):
    """What one step returns.

    Attributes:
        state: The next state.
        reward: Shared reward, float32, shape ().
        terminated: The game is over, bool, shape ().
        truncated: The horizon is reached and the game is not over, bool, shape ().
    """

    state: Any
    reward: Array
    terminated: Array
    truncated: Array


@runtime_checkable
class Game(Protocol):
    """A game for two players with a shared reward: pure functions, so that it runs under `jit` and `vmap`.

    A game is an immutable, hashable object (a frozen dataclass); all that changes is in the state, a pytree
    of arrays. Write these attributes and methods and every trainer and measure takes it.

    Attributes:
        name: One word; checkpoints are refused by games of another name.
        n_actions: Actions per player.
        observation_size: Floats in one player's observation, without its seat.
        horizon: Steps after which an episode is cut off.
        behaviours: Names of the behaviours X that an episode can show; an episode succeeds when it shows one.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def n_actions(self) -> int: ...  # noqa: D102
    @property
    def observation_size(self) -> int: ...  # noqa: D102
    @property
    def horizon(self) -> int: ...  # noqa: D102
    @property
    def behaviours(self) -> tuple[str, ...]: ...  # noqa: D102

    def reset(self, key: Array) -> Any:
        """Return the state at the start of an episode."""

    def observe(self, state: Any) -> Array:
        """Return both players' observations, float32, shape (2, observation_size)."""

    def step(self, state: Any, actions: Array) -> Step:
        """Return what the players' actions, int32 of shape (2,), lead to. Steps draw nothing at random."""

    def behaviour(self, state: Any) -> Array:
        """Return the index of the behaviour an episode ending in `state` showed, -1 for none."""


def whole_game(game: Any) -> Game:
    """Return the game if it has every attribute and method of `Game`.

    Raises:
        InputError: Something else, such as a game's name or its class.
    """
    if isinstance(game, type):
        missing = f"the class {game.__name__}, which has to be called"
    else:
        lacks = [name for name in PARTS if not hasattr(game, name)]
        lacks += [name for name in FUNCTIONS if not callable(getattr(game, name, None))]
        if not lacks:
            return game  # type: ignore[no-any-return]
        missing = f"{type(game).__name__} without {', '.join(lacks)}"
    raise InputError(
        "the game has every attribute and method of Game",
        expected="a game such as partners.games.Cooking()",
        got=missing,
        next_step="See the contract in metier.partners.games.Game.",
    )


def seated(observations: Array) -> Array:
    """Append the seat as a one-hot vector: (..., 2, observation_size) becomes (..., 2, observation_size + 2).

    A joint policy is one network that is told its seat; this is what every `Policy` observes.

    Example:
        >>> seated(jnp.zeros((2, 1))).tolist()
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    seats = jnp.broadcast_to(jnp.eye(N_SEATS, dtype=observations.dtype), (*observations.shape[:-1], N_SEATS))
    return jnp.concatenate([observations, seats], axis=-1)


def input_size(game: Game) -> int:
    """Return the length of what a policy observes: the observation and the seat."""
    return game.observation_size + N_SEATS


def reset_pool(game: Game, key: Array, size: int = 4096) -> Any:
    """Return `size` start states stacked on a leading axis, to draw from when episodes end inside a scan."""
    return jax.vmap(game.reset)(jax.random.split(key, size))
