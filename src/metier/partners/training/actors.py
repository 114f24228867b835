"""Actors: a network with the conventions of a seat, a private latent, and action draws; and as policies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metier.partners.games.game import N_SEATS, Game, input_size, whole_game
from metier.partners.policies import Pure

from .networks import Network


class Memory(NamedTuple):
    """What an actor carries through an episode.

    Attributes:
        hidden: The network's memory, shape (..., gru_units).
        latent: z, int32, shape (...); drawn at the start of the episode and kept to its end.
    """

    hidden: Array
    latent: Array


@dataclass(frozen=True, slots=True)
class Actor:
    """A family of policies: seated observation, and a one-hot latent z if any, in; action logits out.

    Args:
        network: Takes the observation, the seat one-hot and the latent one-hot, in this order.
        n_latents: Values of z (0: none). Each seat draws its own z at the start of each episode.

    Example:
        >>> from metier.partners.games import LeverGame
        >>> actor = Actor.for_game(LeverGame(), n_latents=2)
        >>> actor.network.n_inputs == LeverGame().observation_size + 2 + 2
        True
    """

    network: Network
    n_latents: int = 0

    @classmethod
    def for_game(
        cls, game: Game, *, hidden: tuple[int, ...] = (64, 64), gru_units: int = 0, n_latents: int = 0
    ) -> Actor:
        """Return the actor that fits a game."""
        whole_game(game)
        network = Network(input_size(game) + n_latents, game.n_actions, hidden=hidden, gru_units=gru_units)
        return cls(network, n_latents)

    def init(self, key: Array) -> dict[str, Any]:
        """Return fresh parameters."""
        return self.network.init(key)

    def inputs(self, observations: Array, seats: Array, latents: Array) -> Array:
        """Return what the network sees.

        Args:
            observations: float32, shape (..., observation_size), without the seat.
            seats: int, broadcast to (...): 0 or 1.
            latents: int, shape (...); not used where there are none.
        """
        shape = observations.shape[:-1]
        parts = [observations, _one_hot(seats, N_SEATS, shape)]
        if self.n_latents:
            parts.append(_one_hot(latents, self.n_latents, shape))
        return jnp.concatenate(parts, axis=-1)

    def start(self, *shape: int) -> Memory:
        """Return memories of episodes that have not begun; `begin` makes them ready."""
        return Memory(self.network.initial_memory(*shape), jnp.zeros(shape, jnp.int32))

    def begin(self, memory: Memory, starts: Array, uniforms: Array) -> Memory:
        """Clear the memory and draw z anew where an episode starts; call before every step.

        Args:
            memory: From the step before.
            starts: bool, shape (...).
            uniforms: In [0, 1), shape (...), for z.
        """
        hidden = (
            jnp.where(starts[..., None], 0.0, memory.hidden) if self.network.is_recurrent else memory.hidden
        )
        if not self.n_latents:
            return Memory(hidden, memory.latent)
        drawn = (uniforms * self.n_latents).astype(jnp.int32)
        return Memory(hidden, jnp.where(starts, drawn, memory.latent))

    def act(
        self, params: Any, observations: Array, seats: Array, memory: Memory, uniforms: Array
    ) -> tuple[Array, Array, Memory]:
        """Return (actions int32, their log-probabilities, next memory), each of shape (...).

        Args:
            params: The network's.
            observations: shape (..., observation_size).
            seats: Broadcast to (...).
            memory: After `begin`.
            uniforms: In [0, 1), shape (...), one per action.
        """
        inputs = self.inputs(observations, seats, memory.latent)
        logits, hidden = self.network.step(params, inputs, memory.hidden)
        actions = draw(logits, uniforms)
        return actions, log_prob(logits, actions), Memory(hidden, memory.latent)

    def unroll(
        self, params: Any, observations: Array, seats: Array, latents: Array, hidden: Array, starts: Array
    ) -> Array:
        """Return the logits of whole chunks, shape (steps, ..., n_actions), as when they were played.

        Args:
            params: The network's.
            observations: shape (steps, ..., observation_size).
            seats: Broadcast to (steps, ...).
            latents: int, shape (steps, ...), as recorded.
            hidden: The network's memory before the first step, shape (..., gru_units).
            starts: bool, shape (steps, ...): first steps of episodes.
        """
        return self.network.unroll(params, self.inputs(observations, seats, latents), hidden, starts)[0]


def draw(logits: Array, uniforms: Array) -> Array:
    """Return one action per row by inversion, int32: one uniform each, and no action of probability 0."""
    probabilities = jax.nn.softmax(logits)
    n = logits.shape[-1]
    # A product with a triangle is several times faster on CPU than a cumulative sum, while it is small.
    if n <= 32:
        below = probabilities @ jnp.triu(jnp.ones((n, n), logits.dtype))
    else:
        below = jnp.cumsum(probabilities, axis=-1)
    reached = (below <= uniforms[..., None] * below[..., -1:]).sum(axis=-1)
    return jnp.minimum(reached, n - 1).astype(jnp.int32)


def log_prob(logits: Array, actions: Array) -> Array:
    """Return log pi(action), shape (...)."""
    chosen = _one_hot(actions, logits.shape[-1], actions.shape)
    return (logits * chosen).sum(axis=-1) - jax.nn.logsumexp(logits, axis=-1)


def entropy(logits: Array) -> Array:
    """Return the entropy of each row's softmax in nats, shape (...)."""
    logs = jax.nn.log_softmax(logits)
    return -(jnp.exp(logs) * logs).sum(axis=-1)


def _one_hot(values: Array, n: int, shape: tuple[int, ...]) -> Array:
    values = jnp.broadcast_to(jnp.asarray(values), shape)
    return (values[..., None] == jnp.arange(n)).astype(jnp.float32)


class _PolicyMemory(NamedTuple):
    memory: Memory
    fresh: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class ActorPolicy(Pure):
    """A trained actor as a `Policy` and a `PurePolicy`; it draws its own z when an episode begins.

    Args:
        params: The network's parameters.
        actor: Its shape.
    """

    params: Any
    actor: Actor = field(metadata={"static": True})

    def initial_state(self) -> _PolicyMemory:
        """Return a memory that is marked as fresh."""
        return _PolicyMemory(self.actor.start(), jnp.array(True))

    def pure_act(self, observation: Array, state: _PolicyMemory, key: Array) -> tuple[Array, _PolicyMemory]:
        """Draw an action; the last two numbers of the observation are the seat."""
        uniforms = jax.random.uniform(key, (2,))
        memory = self.actor.begin(state.memory, state.fresh, uniforms[0])
        seat = jnp.argmax(observation[-N_SEATS:])
        action, _, memory = self.actor.act(self.params, observation[:-N_SEATS], seat, memory, uniforms[1])
        return action, _PolicyMemory(memory, jnp.zeros_like(state.fresh))
