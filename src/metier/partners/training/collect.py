"""Rollouts for training: many games side by side, restarted from a pool when they end, under one scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from metier.partners.games.game import N_SEATS, Game

from .actors import Actor, Memory

N_UNIFORMS = 5
"""Draws per environment step: two actions, two latents, one start state."""


class Seats(NamedTuple):
    """What was done in one seat (arrays without a seat axis) or in both (with an axis of 2).

    Attributes:
        actions: int32, shape (steps, envs[, 2]).
        log_probs: Of these actions when they were drawn, likewise.
        latents: z during each step, int32, likewise.
        hidden: The network's memory before the first step of the chunk, shape (envs[, 2], gru_units).
    """

    actions: Array
    log_probs: Array
    latents: Array
    hidden: Array


class Chunk(NamedTuple):
    """Some steps of some environments; episodes go over from chunk to chunk.

    Attributes:
        observations: float32, shape (steps, envs, 2, observation_size), without seats.
        final: The observations after the last step (of a new episode where one ended), (envs, 2, size).
        successors: The observations each step led to, before any restart, or None if not asked for.
        rewards: float32, shape (steps, envs).
        terminated: bool, shape (steps, envs): the game was over after this step.
        truncated: bool, likewise: the horizon was reached after this step.
        starts: bool, likewise: this step is the first of an episode.
        times: int32, likewise: steps of the episode before this one.
        returns: float32, likewise: the episode's return, where it ended; 0 elsewhere.
        behaviours: int32, likewise: the episode's behaviour, where it ended; -1 elsewhere or for none.
        seats: What the players did, as the team recorded it.
    """

    observations: Array
    final: Array
    successors: Array | None
    rewards: Array
    terminated: Array
    truncated: Array
    starts: Array
    times: Array
    returns: Array
    behaviours: Array
    seats: Any

    @property
    def done(self) -> Array:
        """Whether an episode ended with this step, bool, shape (steps, envs)."""
        return self.terminated | self.truncated


class Running(NamedTuple):
    """Environments in the middle of their episodes: a leading axis of envs on everything.

    Attributes:
        states: The games' states.
        memories: The team's memories.
        starts: bool: the next step is the first of an episode.
        times: Steps of the episode so far, int32.
        returns: Return of the episode so far, float32.
    """

    states: Any
    memories: Any
    starts: Array
    times: Array
    returns: Array


class Team(Protocol):
    """Who sits in the two seats: pure functions of parameters; see `OneActor` and `TwoActors`."""

    def start(self, n_envs: int) -> Any:
        """Return the memories of both seats."""

    def play(
        self, params: Any, observations: Array, memories: Any, starts: Array, times: Array, uniforms: Array
    ) -> tuple[Array, Any, Any]:
        """Return (actions int32 of shape (envs, 2), next memories, what to record of this step)."""

    def record(self, recorded: Any, memories: Any) -> Any:
        """Return the chunk's `seats` from the stacked records and the memories before the first step."""


@dataclass(frozen=True, slots=True)
class OneActor:
    """The same parameters in both seats, self-play: `params` is the actor's, `seats` one `Seats` of both."""

    actor: Actor

    def start(self, n_envs: int) -> Memory:
        """Return the memories of both seats, shape (envs, 2, ...)."""
        return self.actor.start(n_envs, N_SEATS)

    def play(
        self,
        params: Any,
        observations: Array,
        memories: Memory,
        starts: Array,
        times: Array,
        uniforms: Array,
    ) -> tuple[Array, Memory, Any]:
        """Let both seats act."""
        both = jnp.broadcast_to(starts[:, None], (*starts.shape, N_SEATS))
        memories = self.actor.begin(memories, both, uniforms[:, 2:4])
        seats = jnp.arange(N_SEATS)
        actions, log_probs, after = self.actor.act(params, observations, seats, memories, uniforms[:, :2])
        return actions, after, (actions, log_probs, memories.latent)

    def record(self, recorded: Any, memories: Memory) -> Seats:
        """Return both seats' record."""
        actions, log_probs, latents = recorded
        return Seats(actions, log_probs, latents, memories.hidden)


@dataclass(frozen=True, slots=True)
class TwoActors:
    """One actor per seat, of any two shapes. `params` and `seats` are pairs."""

    left: Actor
    right: Actor

    def start(self, n_envs: int) -> tuple[Memory, Memory]:
        """Return the two seats' memories."""
        return self.left.start(n_envs), self.right.start(n_envs)

    def play(
        self,
        params: tuple[Any, Any],
        observations: Array,
        memories: tuple[Memory, Memory],
        starts: Array,
        times: Array,
        uniforms: Array,
    ) -> tuple[Array, Any, Any]:
        """Let each seat's actor act."""
        played = []
        for seat, actor in enumerate((self.left, self.right)):
            memory = actor.begin(memories[seat], starts, uniforms[:, 2 + seat])
            action, logs, after = actor.act(
                params[seat], observations[:, seat], jnp.array(seat), memory, uniforms[:, seat]
            )
            played.append((action, after, (action, logs, memory.latent)))
        actions = jnp.stack([play[0] for play in played], axis=1)
        return actions, tuple(play[1] for play in played), tuple(play[2] for play in played)

    def record(self, recorded: Any, memories: tuple[Memory, Memory]) -> tuple[Seats, Seats]:
        """Return the two seats' records."""
        (left, right), (of_left, of_right) = recorded, memories
        return Seats._make((*left, of_left.hidden)), Seats._make((*right, of_right.hidden))


def begin(game: Game, team: Team, pool: Any, key: Array, n_envs: int) -> Running:
    """Return environments at the start of episodes drawn from the pool of start states."""
    size = jax.tree.leaves(pool)[0].shape[0]
    picks = jax.random.randint(key, (n_envs,), 0, size)
    return Running(
        states=jax.tree.map(lambda leaf: leaf[picks], pool),
        memories=team.start(n_envs),
        starts=jnp.ones(n_envs, bool),
        times=jnp.zeros(n_envs, jnp.int32),
        returns=jnp.zeros(n_envs),
    )


def collect(
    game: Game,
    team: Team,
    params: Any,
    running: Running,
    pool: Any,
    key: Array,
    *,
    n_steps: int,
    successors: bool = False,
) -> tuple[Running, Chunk]:
    """Play `n_steps` steps in every environment.

    One team in `envs` environments; `jax.vmap` it over members, pairs or seatings with stacked `params`,
    `running` and `key` (the pool shared).

    Args:
        game: The game.
        team: Who plays.
        params: The team's parameters.
        running: Where the environments stand, from `begin` or the chunk before.
        pool: Start states (`games.reset_pool`), stacked on a leading axis.
        key: All randomness of the chunk comes from one draw with it.
        n_steps: Steps per environment.
        successors: Keep the observations before restarts, to bootstrap at the horizon.

    Returns:
        Where the environments stand now, and what happened.
    """
    n_envs = running.starts.shape[0]
    pool_size = jax.tree.leaves(pool)[0].shape[0]
    uniforms = jax.random.uniform(key, (n_steps, n_envs, N_UNIFORMS))
    seen = jax.vmap(game.observe)

    def one(carry: tuple[Running, Array], uniform: Array) -> tuple[tuple[Running, Array], Any]:
        now, observations = carry
        actions, memories, record = team.play(
            params, observations, now.memories, now.starts, now.times, uniform
        )
        step = jax.vmap(game.step)(now.states, actions)
        done = step.terminated | step.truncated
        total = now.returns + step.reward
        picks = (uniform[:, 4] * pool_size).astype(jnp.int32)
        states = jax.tree.map(lambda leaf, new: _where(done, leaf[picks], new), pool, step.state)
        after = Running(
            states, memories, done, jnp.where(done, 0, now.times + 1), jnp.where(done, 0.0, total)
        )
        ended = jnp.where(done, total, 0.0)
        shown = jnp.where(done, jax.vmap(game.behaviour)(step.state), -1)
        next_seen = seen(states)
        kept = (observations, seen(step.state) if successors else None, step.reward)
        flags = (step.terminated, step.truncated, now.starts, now.times, ended, shown)
        return (after, next_seen), (*kept, *flags, record)

    start = (running, seen(running.states))
    (after, final), (observations, *rest, records) = jax.lax.scan(one, start, uniforms)
    seats = team.record(records, running.memories)
    return after, Chunk._make((observations, final, *rest, seats))


def _where(done: Array, new: Array, old: Array) -> Array:
    return jnp.where(done.reshape(done.shape + (1,) * (old.ndim - done.ndim)), new, old)
