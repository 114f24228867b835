"""Frozen partners to train with: members of a population, or policies in JAX of any kind, stacked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metier.core import InputError
from metier.partners.games.game import N_SEATS, Game, whole_game
from metier.partners.policies import PurePolicy

from .actors import Actor, Memory
from .population import Population


class Mate(Protocol):
    """How a partner acts in many environments, given its parameters; hashable."""

    def start(self, n_envs: int) -> Any:
        """Return memories of episodes that have not begun."""

    def act(
        self, params: Any, observations: Array, seat: int, memory: Any, starts: Array, uniforms: Array
    ) -> tuple[Array, Any]:
        """Return (actions int32 of shape (envs,), next memories); `uniforms` has shape (envs, 2)."""


@dataclass(frozen=True, slots=True)
class ActorMate:
    """A member of a population."""

    actor: Actor

    def start(self, n_envs: int) -> Memory:
        """Return cleared memories."""
        return self.actor.start(n_envs)

    def act(
        self, params: Any, observations: Array, seat: int, memory: Memory, starts: Array, uniforms: Array
    ) -> tuple[Array, Memory]:
        """Draw z where an episode starts, then an action."""
        memory = self.actor.begin(memory, starts, uniforms[:, 1])
        action, _, memory = self.actor.act(params, observations, jnp.array(seat), memory, uniforms[:, 0])
        return action, memory


@dataclass(frozen=True, slots=True)
class PolicyMate:
    """A scripted or foreign policy in JAX; its parameters are the policy itself, a pytree.

    Args:
        template: One of the policies: what a memory looks like at the start of an episode.
        memory: A digest of that memory, by which templates are compared.
    """

    template: Any = field(compare=False)
    memory: str

    def start(self, n_envs: int) -> Any:
        """Return the memory at the start of an episode, for every environment."""
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(jnp.asarray(leaf), (n_envs, *jnp.shape(leaf))),
            self.template.initial_state(),
        )

    def act(
        self, params: Any, observations: Array, seat: int, memory: Any, starts: Array, uniforms: Array
    ) -> tuple[Array, Any]:
        """Clear the memory where an episode starts, then ask the policy."""

        def fresh(initial: Array, now: Array) -> Array:
            return jnp.where(starts.reshape(starts.shape + (1,) * (now.ndim - 1)), initial, now)

        memory = jax.tree.map(fresh, self.start(starts.shape[0]), memory)
        seats = jnp.broadcast_to(jnp.eye(N_SEATS)[seat], (*observations.shape[:-1], N_SEATS))
        seen = jnp.concatenate([observations, seats], axis=-1)
        # Two uniforms of 24 random bits each make a key of their own for every environment and step.
        keys = jax.random.wrap_key_data((uniforms * 2**24).astype(jnp.uint32))
        acted: tuple[Array, Any] = jax.vmap(params.pure_act)(seen, memory, keys)
        return acted


def stacked_mates(partners: Any, game: Game) -> tuple[Mate, Any, int]:
    """Return (how they act, their parameters with a leading partner axis, how many).

    Args:
        partners: A `Population`, or a list of JAX policies of one class and one size.
        game: The game they play.

    Raises:
        InputError: No partners, a population of another game, or policies that cannot run under one `jit`.
    """
    whole_game(game)
    if isinstance(partners, Population):
        partners.check_game(game)
        return ActorMate(partners.actor), partners.params, len(partners)
    policies = _list(partners)
    odd = next((k for k, policy in enumerate(policies) if not isinstance(policy, PurePolicy)), None)
    if odd is not None:
        raise InputError(
            "partners in training are policies in JAX",
            expected="objects with initial_state() and pure_act(observation, state, key)",
            got=f"partner {odd}: {type(policies[odd]).__name__}",
            next_step="Evaluate with it instead: evaluate and cross_play take policies of any make.",
        )
    leaves = [jax.tree.map(jnp.asarray, policy) for policy in policies]
    kinds = [(jax.tree.structure(leaf), jax.tree.map(jnp.shape, jax.tree.leaves(leaf))) for leaf in leaves]
    other = next((k for k, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is not None:
        raise InputError(
            "partners in training have one class and one size",
            expected=f"as partner 0, {type(policies[0]).__name__}",
            got=f"partner {other}: {type(policies[other]).__name__} of another shape",
            next_step="Pass a Population, or policies that differ in their numbers only.",
        )
    params = jax.tree.map(lambda *parts: jnp.stack(parts), *leaves)
    _refuse_illegal(policies[0], game)
    return PolicyMate(policies[0], fingerprint(policies[0].initial_state())), params, len(policies)


def _list(partners: Any) -> list[Any]:
    policies = list(partners) if isinstance(partners, Sequence) else [partners]
    if not policies:
        raise InputError(
            "there are partners to train with",
            expected="at least one partner",
            got="an empty list",
            next_step="Pass a Population or a list of policies.",
        )
    return policies


def _refuse_illegal(policy: Any, game: Game) -> None:
    """Refuse a policy that cannot take this game's observations: a clear word before a long compilation."""
    seen = jnp.zeros(game.observation_size + N_SEATS, jnp.float32)
    try:
        jax.eval_shape(policy.pure_act, seen, policy.initial_state(), jax.random.key(0))
    except (TypeError, ValueError) as error:
        raise InputError(
            "partners in training take the game's observations",
            expected=f"{game.observation_size + N_SEATS} numbers",
            got=str(error).strip().splitlines()[0],
            next_step="Check that they were made for this game.",
        ) from error


def fingerprint(params: Any) -> str:
    """Return a digest of arrays, so that a checkpoint knows with whom it was trained."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        array = np.ascontiguousarray(np.asarray(leaf))
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
