"""Episodes of two policies: under one `jit` where both are pure, step by step where one is not."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError
from metier.core.extras import naming_extras

from .games.game import N_SEATS, Game, seated, whole_game
from .policies import LEGAL, PurePolicy, Seatmate, illegal_action, one_illegal, refuse_class, seatmate

with naming_extras():
    import jax
    import jax.numpy as jnp
    from jax import Array


@dataclass(frozen=True, slots=True)
class Episodes:
    """What some episodes came to.

    Attributes:
        returns: Sum of rewards, float64, shape (episodes,).
        behaviours: Behaviour shown, int, -1 for none, shape (episodes,).
        lengths: Steps, int, shape (episodes,).
    """

    returns: NDArray[np.float64]
    behaviours: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @property
    def successes(self) -> int:
        """Number of episodes that showed a behaviour."""
        return int((self.behaviours >= 0).sum())

    def counts(self, n_behaviours: int) -> NDArray[np.int64]:
        """Return the episodes by behaviour, failures left out, shape (n_behaviours,)."""
        return np.bincount(self.behaviours[self.behaviours >= 0], minlength=n_behaviours)


class Frames(NamedTuple):
    """One step of all episodes on the host: (what the seats see, reward, whether it was the last step)."""

    observations: Array
    reward: Array
    done: Array


def play(
    first: Any,
    second: Any,
    game: Game,
    *,
    episodes: int,
    rng: np.random.Generator,
    names: tuple[str, str] = ("the first policy", "the second policy"),
    takeover: tuple[int, int, Any] | None = None,
) -> Episodes:
    """Play episodes with `first` in seat 0 and `second` in seat 1.

    Args:
        first: The policy in seat 0.
        second: The policy in seat 1.
        game: The game.
        episodes: How many.
        rng: Where starts and draws come from.
        names: How errors call the two.
        takeover: (step, seat, policy): from that step on the policy has that seat, which it has watched.

    Returns:
        Returns, behaviours and lengths.
    """
    whole_game(game)
    for policy, name in zip((first, second), names, strict=True):
        refuse_class(policy, name)
    key = jax.random.key(int(rng.integers(2**32)))
    if takeover is None and isinstance(first, PurePolicy) and isinstance(second, PurePolicy):
        return _played_pure(game, (first, second), names, key, episodes)
    mates = [
        seatmate(policy, n_actions=game.n_actions, name=name, rng=rng)
        for policy, name in zip((first, second), names, strict=True)
    ]
    follower = None
    if takeover is not None:
        step, seat, policy = takeover
        follower = (step, seat, seatmate(policy, n_actions=game.n_actions, name="the newcomer", rng=rng))
    try:
        return _play_on_host(game, mates, key, episodes, follower)
    except (TypeError, ValueError) as error:
        refuse_unfit(
            (first, second, *(takeover[2:] if takeover else ())), (*names, "the newcomer"), game, error
        )
        raise


def refuse_unfit(policies: Sequence[Any], names: Sequence[str], game: Game, error: Exception) -> None:
    """Say which policy in JAX cannot take the game's observations, if that is why play failed.

    Raises:
        InputError: Such a policy is among them.
    """
    seen = jnp.zeros(game.observation_size + N_SEATS, jnp.float32)
    for policy, name in zip(policies, names, strict=False):
        if not isinstance(policy, PurePolicy):
            continue
        try:
            jax.eval_shape(policy.pure_act, seen, policy.initial_state(), jax.random.key(0))
        except (TypeError, ValueError) as failure:
            raise InputError(
                f"{name} takes the game's observations",
                expected=f"a policy for {game.observation_size} numbers and the seat's {N_SEATS}",
                got=str(failure).strip().splitlines()[0].rstrip("."),
                next_step="Check that it was made for this game.",
            ) from error


def _played_pure(
    game: Game, policies: tuple[Any, Any], names: tuple[str, str], key: Array, episodes: int
) -> Episodes:
    try:
        *played, strange = _play_pure(game, *policies, key, episodes)
    except (TypeError, ValueError) as error:
        refuse_unfit(policies, names, game, error)
        raise
    for name, action in zip(names, np.asarray(strange), strict=True):
        if action != LEGAL:
            raise illegal_action(name, game.n_actions, repr(int(action)))
    return _episodes(*played)


def _play_on_host(
    game: Game, mates: list[Seatmate], key: Array, episodes: int, follower: tuple[int, int, Seatmate] | None
) -> Episodes:
    states, observations = _reset_many(game, jax.random.split(key, episodes))
    for mate in [*mates, *([follower[2]] if follower else [])]:
        mate.start(episodes)
    alive, returns = np.ones(episodes, bool), np.zeros(episodes)
    lengths = np.zeros(episodes, np.int64)
    for t in range(game.horizon):
        seen = np.asarray(observations)
        actions = [mate.act(seen[:, seat]) for seat, mate in enumerate(mates)]
        if follower is not None:
            # Whoever takes over later still sees, and remembers, what its seat sees from the start.
            newcomer = follower[2].act(seen[:, follower[1]])
            if t >= follower[0]:
                actions[follower[1]] = newcomer
        states, frame = _step_many(game, states, jnp.asarray(np.stack(actions, axis=1)), jnp.asarray(alive))
        returns += np.where(alive, np.asarray(frame.reward, np.float64), 0.0)
        lengths += alive
        alive &= ~np.asarray(frame.done)
        observations = frame.observations
        if not alive.any():
            break
    return _episodes(returns, _behaviours(game, states), lengths)


def _episodes(returns: Any, behaviours: Any, lengths: Any) -> Episodes:
    return Episodes(
        np.asarray(returns, np.float64), np.asarray(behaviours, np.int64), np.asarray(lengths, np.int64)
    )


def _frozen(alive: Array, new: Any, old: Any) -> Any:
    """Keep what has ended as it was."""

    def keep(after: Array, before: Array) -> Array:
        return jnp.where(alive.reshape(alive.shape + (1,) * (after.ndim - alive.ndim)), after, before)

    return jax.tree.map(keep, new, old)


@functools.partial(jax.jit, static_argnums=0)
def _reset_many(game: Game, keys: Array) -> tuple[Any, Array]:
    states = jax.vmap(game.reset)(keys)
    return states, seated(jax.vmap(game.observe)(states))


@functools.partial(jax.jit, static_argnums=0)
def _step_many(game: Game, states: Any, actions: Array, alive: Array) -> tuple[Any, Frames]:
    step = jax.vmap(game.step)(states, actions)
    after = _frozen(alive, step.state, states)
    frame = Frames(seated(jax.vmap(game.observe)(after)), step.reward, step.terminated | step.truncated)
    return after, frame


@functools.partial(jax.jit, static_argnums=0)
def _behaviours(game: Game, states: Any) -> Array:
    return jax.vmap(game.behaviour)(states)


@functools.partial(jax.jit, static_argnums=(0, 4))
def _play_pure(
    game: Game, first: Any, second: Any, key: Array, episodes: int
) -> tuple[Array, Array, Array, Array]:
    """Return returns, behaviours, lengths, and one illegal action of either seat, or `LEGAL`."""
    start, draw = jax.random.split(key)
    states = jax.vmap(game.reset)(jax.random.split(start, episodes))
    policies = (first, second)
    memories = tuple(
        jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (episodes, *jnp.shape(leaf))), policy.initial_state()
        )
        for policy in policies
    )

    def one(carry: Any, key: Array) -> tuple[Any, None]:
        states, memories, alive, returns, lengths, strange = carry
        seen = seated(jax.vmap(game.observe)(states))
        keys = jax.random.split(key, (2, episodes))
        acted = [
            jax.vmap(policy.pure_act)(seen[:, seat], memories[seat], keys[seat])
            for seat, policy in enumerate(policies)
        ]
        actions = jnp.stack([action for action, _ in acted], axis=1)
        asked = jnp.where(alive[:, None], actions, 0)  # nobody minds what is said after the end
        strange = jnp.maximum(strange, one_illegal(asked, game.n_actions, axis=0))
        step = jax.vmap(game.step)(states, actions)
        returns = returns + jnp.where(alive, step.reward, 0.0)
        after = (
            _frozen(alive, step.state, states),
            tuple(memory for _, memory in acted),
            alive & ~(step.terminated | step.truncated),
            returns,
            lengths + alive,
            strange,
        )
        return after, None

    none, zero = jnp.full(2, LEGAL, jnp.int32), jnp.zeros(episodes, jnp.int32)
    carry = (states, memories, jnp.ones(episodes, bool), jnp.zeros(episodes), zero, none)
    (states, _, _, returns, lengths, strange), _ = jax.lax.scan(
        one, carry, jax.random.split(draw, game.horizon)
    )
    return returns, jax.vmap(game.behaviour)(states), lengths, strange
