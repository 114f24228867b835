"""Mixed play: an episode begins with another member in one seat, then goes on as self-play."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from metier.partners.games.game import N_SEATS

from .actors import Actor, Memory
from .collect import OneActor, Seats


class MixedMemory(NamedTuple):
    """Memories of the member in both seats and of its guest, and the step at which the guest leaves."""

    own: Memory
    guest: Memory
    switch: Array


class MixedSeats(NamedTuple):
    """The member's record in both seats, and which steps are its own.

    Attributes:
        seats: As of self-play; steps with a guest are recorded but not the member's.
        is_own: bool, shape (steps, envs): the guest has left.
    """

    seats: Seats
    is_own: Array


@dataclass(frozen=True, slots=True)
class MixedActor:
    """A member with a guest in one seat for the first t' steps, uniform on 0 .. horizon - 1.

    In the first half of the environments the guest sits right, in the other half left. The member watches
    from both seats from the start, so that a recurrent member has a memory when it takes over. `params` is a
    pair (member's, guest's).
    """

    actor: Actor
    horizon: int

    def start(self, n_envs: int) -> MixedMemory:
        """Return the memories of both seats."""
        once = OneActor(self.actor)
        return MixedMemory(once.start(n_envs), once.start(n_envs), jnp.zeros(n_envs, jnp.int32))

    def play(
        self,
        params: tuple[Any, Any],
        observations: Array,
        memories: MixedMemory,
        starts: Array,
        times: Array,
        uniforms: Array,
    ) -> tuple[Array, MixedMemory, Any]:
        """Let both seats act, the guest in one of them before the switch."""
        team = OneActor(self.actor)
        drawn = (uniforms[:, 5] * self.horizon).astype(jnp.int32)
        switch = jnp.where(starts, drawn, memories.switch)
        own = team.play(params[0], observations, memories.own, starts, times, uniforms)
        # One seat uses one of the two draws only, so that guest and member may share them.
        guest = team.play(params[1], observations, memories.guest, starts, times, uniforms)
        is_own = times >= switch
        sits = jnp.where(jnp.arange(len(switch)) < len(switch) // 2, 1, 0)
        by_guest = (jnp.arange(N_SEATS) == sits[:, None]) & ~is_own[:, None]
        actions = jnp.where(by_guest, guest[0], own[0])
        return actions, MixedMemory(own[1], guest[1], switch), (own[2], is_own)

    def record(self, recorded: Any, memories: MixedMemory) -> MixedSeats:
        """Return the member's record."""
        own, is_own = recorded
        return MixedSeats(OneActor(self.actor).record(own, memories.own), is_own)
