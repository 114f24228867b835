"""Whether a game of one's own keeps the contract: one random episode, checked step by step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metier.core import InputError, positive_int

from .game import N_SEATS, Game, whole_game


def check_game(game: Any, *, episodes: int = 8, seed: int = 0) -> Game:
    """Play random episodes of a game under `jit` and `vmap`; refuse what breaks the contract of `Game`.

    Args:
        game: The game.
        episodes: Episodes played side by side.
        seed: Where starts and actions come from.

    Returns:
        The same game.

    Raises:
        InputError: A missing attribute or method, a game that cannot be hashed, a state whose structure,
            shapes or dtypes change, observations of another shape or dtype, a reward that is no number,
            an episode that never ends, or a behaviour that has no name.

    Example:
        >>> from metier.partners.games import LeverGame
        >>> check_game(LeverGame(n_levers=2)).n_actions
        2
    """
    _refuse_incomplete(game)
    positive_int("episodes", episodes)
    states = jax.vmap(game.reset)(jax.random.split(jax.random.key(seed), episodes))
    shapes = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), states)
    step = jax.jit(lambda s, a: _looked_at(game, s, a))
    draws = np.random.default_rng(seed).integers(0, game.n_actions, (game.horizon, episodes, N_SEATS))
    ended = np.zeros(episodes, bool)
    for time, actions in enumerate(draws):
        try:
            after, seen, behaviours = step(states, jnp.asarray(actions, jnp.int32))
        except (TypeError, ValueError, jax.errors.JAXTypeError) as error:
            text = str(error).strip().splitlines()[0]
            raise _broken("runs under jit and vmap", "pure functions of arrays", text) from error
        found = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), after.state)
        if found != shapes:
            raise _broken("keeps the shapes and dtypes of its state", shapes, found)
        _refuse_step(game, time, after, seen, behaviours, ended)
        ended |= np.asarray(after.terminated | after.truncated)
        states = after.state
    if not ended.all():
        raise _broken("ends at the horizon", f"an end within {game.horizon} steps", "an episode that goes on")
    return game  # type: ignore[no-any-return]


def _looked_at(game: Game, states: Any, actions: Any) -> tuple[Any, Any, Any]:
    step = jax.vmap(game.step)(states, actions)
    return step, jax.vmap(game.observe)(step.state), jax.vmap(game.behaviour)(step.state)


def _refuse_incomplete(game: Any) -> None:
    whole_game(game)
    try:
        hash(game)
    except TypeError:
        raise _broken("can be hashed", "a frozen dataclass of hashable fields", "unhashable") from None
    for name in ("n_actions", "observation_size", "horizon"):
        positive_int(f"{name} of the game", getattr(game, name))


def _refuse_step(game: Game, time: int, step: Any, seen: Any, behaviours: Any, ended: Any) -> None:
    n = len(ended)
    wanted = (n, N_SEATS, game.observation_size)
    if seen.shape != wanted or seen.dtype != jnp.float32:
        raise _broken("observes both seats", f"float32, {wanted[1:]}", f"{seen.dtype}, {seen.shape[1:]}")
    if not np.isfinite(np.asarray(seen)).all():
        raise _broken("observes finite numbers", "no NaN or infinity", f"some at step {time}")
    if step.reward.shape != (n,) or not np.isfinite(np.asarray(step.reward)).all():
        raise _broken("pays one finite reward per step", "shape ()", f"shape {step.reward.shape[1:]}")
    if np.asarray(step.terminated & step.truncated).any():
        raise _broken("ends in one way", "terminated or truncated", f"both at step {time}")
    shown = np.asarray(behaviours)[~ended]
    if shown.size and not (shown.min() >= -1 and shown.max() < len(game.behaviours)):
        expected = f"-1 to {len(game.behaviours) - 1}"
        raise _broken("names its behaviours", expected, f"{shown.min()} to {shown.max()}")


def _broken(rule: str, expected: object, got: object) -> InputError:
    return InputError(
        f"the game {rule}",
        expected=expected,
        got=got,
        next_step="See the contract in metier.partners.games.Game.",
    )
