"""What a policy is, and how policies of every make are run over many episodes at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError
from metier.core.extras import naming_extras

with naming_extras():
    import jax
    import jax.numpy as jnp
    from jax import Array

Floats = NDArray[np.float32]

LEGAL = int(np.iinfo(np.int32).min)
"""Stands for "no illegal action"; below every action."""


@runtime_checkable
class Policy(Protocol):
    """Anything that acts: a torch or JAX network, a script, a wrapped checkpoint.

    One object plays either seat; the last two numbers of the observation say which.
    """

    def act(self, observation: Floats, state: Any, rng: np.random.Generator) -> tuple[int, Any]:
        """Choose an action.

        Args:
            observation: float32, shape (game.observation_size + 2,): what the seat sees, and which seat.
            state: What this method returned at the step before; None at the start of an episode.
            rng: For policies that draw.

        Returns:
            The action, an int in [0, game.n_actions), and the state to be given back at the next step.
        """


@runtime_checkable
class PurePolicy(Protocol):
    """A policy in JAX: a pytree with two pure methods, so that whole episodes run under one `jit`."""

    def initial_state(self) -> Any:
        """Return the memory at the start of an episode, a pytree of arrays (an empty tuple for none)."""

    def pure_act(self, observation: Array, state: Any, key: Array) -> tuple[Array, Any]:
        """Return (action, int32 of shape (); next memory) for one observation."""


class Pure:
    """Gives a `PurePolicy` the `act` of a `Policy`."""

    def act(self: Any, observation: Floats, state: Any, rng: np.random.Generator) -> tuple[int, Any]:
        """Choose an action for one observation; see `Policy`."""
        memory = self.initial_state() if state is None else state
        action, memory = _act_once(self, jnp.asarray(observation), memory, _key(rng))
        return int(action), memory


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class UniformPolicy(Pure):
    """Every action with the same probability.

    Args:
        n_actions: Actions of the game.

    Example:
        >>> action, _ = UniformPolicy(3).act(np.zeros(2, np.float32), None, np.random.default_rng(0))
        >>> action in range(3)
        True
    """

    n_actions: int

    def initial_state(self) -> tuple[()]:
        """Return no memory."""
        return ()

    def pure_act(self, observation: Array, state: tuple[()], key: Array) -> tuple[Array, tuple[()]]:
        """Draw an action."""
        return jax.random.randint(key, (), 0, self.n_actions, jnp.int32), state


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class ConstantPolicy(Pure):
    """Always the same action: a mate who does nothing, where action 0 is nothing.

    Args:
        action: The action.
    """

    action: int = 0

    def initial_state(self) -> tuple[()]:
        """Return no memory."""
        return ()

    def pure_act(self, observation: Array, state: tuple[()], key: Array) -> tuple[Array, tuple[()]]:
        """Return the action."""
        return jnp.asarray(self.action, jnp.int32), state


class Seatmate(Protocol):
    """A policy in one seat of many episodes that run side by side."""

    def start(self, n_episodes: int) -> None:
        """Forget everything; `n_episodes` begin."""

    def act(self, observations: Floats) -> NDArray[np.int64]:
        """Return one action per episode for observations of shape (episodes, input_size)."""


def seatmate(policy: Any, *, n_actions: int, name: str, rng: np.random.Generator) -> Seatmate:
    """Return the fastest way to run `policy` over many episodes: a `jit` where it is pure, else `act`.

    Raises:
        InputError: `policy` has no `act`.
    """
    refuse_class(policy, name)
    if isinstance(policy, PurePolicy):
        return _PureSeatmate(policy, n_actions, name, rng)
    if callable(getattr(policy, "act", None)):
        return _CalledSeatmate(policy, n_actions, name, rng)
    raise InputError(
        f"{name} is a policy",
        expected="an object with act(observation, state, rng) -> (action, state)",
        got=type(policy).__name__,
        next_step="Wrap a function or a checkpoint in a class with that method.",
    )


def refuse_class(policy: Any, name: str) -> None:
    """Refuse a class of policies where a policy is meant.

    Raises:
        InputError: `policy` is a class.
    """
    if isinstance(policy, type):
        raise InputError(
            f"{name} is a policy",
            expected="an object with act(observation, state, rng) -> (action, state)",
            got=f"the class {policy.__name__}",
            next_step=f"Make one: {policy.__name__}(...).",
        )


class _PureSeatmate:
    def __init__(self, policy: Any, n_actions: int, name: str, rng: np.random.Generator) -> None:
        self.policy, self.n_actions, self.name = policy, n_actions, name
        self.rng, self.memory = rng, None

    def start(self, n_episodes: int) -> None:
        self.memory = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (n_episodes, *jnp.shape(leaf))), self.policy.initial_state()
        )

    def act(self, observations: Floats) -> NDArray[np.int64]:
        actions, self.memory = _act_many(self.policy, jnp.asarray(observations), self.memory, _key(self.rng))
        chosen = np.asarray(actions, np.int64)
        illegal = chosen[(chosen < 0) | (chosen >= self.n_actions)]
        if illegal.size:
            raise illegal_action(self.name, self.n_actions, repr(int(illegal[0])))
        return chosen


class _CalledSeatmate:
    def __init__(self, policy: Policy, n_actions: int, name: str, rng: np.random.Generator) -> None:
        self.policy, self.n_actions, self.name, self.rng = policy, n_actions, name, rng
        self.memories: list[Any] = []

    def start(self, n_episodes: int) -> None:
        self.memories = [None] * n_episodes

    def act(self, observations: Floats) -> NDArray[np.int64]:
        actions = np.empty(len(observations), np.int64)
        for episode, observation in enumerate(observations):
            action, memory = self._call(observation, self.memories[episode])
            actions[episode], self.memories[episode] = action, memory
        return actions

    def _call(self, observation: Floats, memory: Any) -> tuple[int, Any]:
        try:
            returned = self.policy.act(observation, memory, self.rng)
        except Exception as error:
            error.add_note(f"{self.name} was given an observation of {len(observation)} numbers")
            raise
        if not (isinstance(returned, tuple) and len(returned) == 2):
            raise _refusal(self.name, "a pair (action, state)", f"{type(returned).__name__}")
        action, memory = returned
        if not _is_action(action, self.n_actions):
            raise illegal_action(self.name, self.n_actions, repr(action))
        return int(action), memory


def one_illegal(actions: Array, n_actions: int, axis: int | tuple[int, ...]) -> Array:
    """Return one action along `axis` that the game does not have, or `LEGAL`; for use under `jit`.

    Example:
        >>> one_illegal(jnp.array([[0, 7], [1, 2]]), 3, axis=1).tolist() == [7, LEGAL]
        True
    """
    illegal: Array = (actions < 0) | (actions >= n_actions)
    return jnp.where(illegal, actions, LEGAL).max(axis=axis)


def illegal_action(name: str, n_actions: int, got: str) -> InputError:
    """Return the error for an action that the game does not have."""
    return _refusal(name, f"a whole number from 0 to {n_actions - 1}", got)


def _refusal(name: str, expected: str, got: str) -> InputError:
    return InputError(
        f"{name} returns an action of the game",
        expected=expected,
        got=got,
        next_step="Correct its act method; it returns (action, state).",
    )


def _is_action(action: Any, n_actions: int) -> bool:
    try:
        return bool(int(action) == action and 0 <= action < n_actions)
    except (TypeError, ValueError):
        return False


def _key(rng: np.random.Generator) -> Array:
    return jax.random.key(int(rng.integers(2**32)))


_act_once: Callable[..., tuple[Array, Any]] = jax.jit(
    lambda policy, o, memory, key: policy.pure_act(o, memory, key)
)


@jax.jit
def _act_many(policy: Any, observations: Array, memory: Any, key: Array) -> tuple[Array, Any]:
    keys = jax.random.split(key, len(observations))
    acted: tuple[Array, Any] = jax.vmap(policy.pure_act)(observations, memory, keys)
    return acted
