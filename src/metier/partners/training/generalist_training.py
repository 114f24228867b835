"""One iteration of a generalist's training: it plays with every partner in both seats, and learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metier.partners.games.game import N_SEATS, Game, reset_pool
from metier.partners.policies import LEGAL, illegal_action, one_illegal
from metier.partners.samplers import PartnerSampler

from .actors import Actor, Memory, entropy, log_prob
from .collect import Chunk, Running, Seats, begin
from .mates import Mate
from .ppo import (
    PPO,
    advantages,
    critic_network,
    descend,
    fit_critic,
    minibatch_order,
    normalized,
    play,
    policy_loss,
    weighted_mean,
)


class MixedSeats(NamedTuple):
    """What a mixed team records.

    Attributes:
        generalist: The generalist's seat.
        partner_actions: The partner's actions, int32, shape (steps, envs).
    """

    generalist: Seats
    partner_actions: Array


@dataclass(frozen=True, slots=True)
class MixedTeam:
    """The generalist in one seat and a frozen partner in the other; `params` is (generalist's, partner's)."""

    actor: Actor
    mate: Mate
    seat: int

    def start(self, n_envs: int) -> tuple[Memory, Any]:
        """Return both memories."""
        return self.actor.start(n_envs), self.mate.start(n_envs)

    def play(
        self,
        params: tuple[Any, Any],
        observations: Array,
        memories: tuple[Memory, Any],
        starts: Array,
        times: Array,
        uniforms: Array,
    ) -> tuple[Array, Any, Any]:
        """Let both act."""
        own, other = self.seat, 1 - self.seat
        memory = self.actor.begin(memories[0], starts, uniforms[:, 2 + own])
        action, logs, after = self.actor.act(
            params[0], observations[:, own], jnp.array(own), memory, uniforms[:, own]
        )
        draws = jnp.stack([uniforms[:, other], uniforms[:, 2 + other]], axis=1)
        theirs, mate = self.mate.act(params[1], observations[:, other], other, memories[1], starts, draws)
        pair = [action, theirs] if own == 0 else [theirs, action]
        record = (action, logs, memory.latent), theirs
        return jnp.stack(pair, axis=1).astype(jnp.int32), (after, mate), record

    def record(self, recorded: Any, memories: tuple[Memory, Any]) -> MixedSeats:
        """Return the generalist's record and the partner's actions."""
        own, theirs = recorded
        return MixedSeats(Seats._make((*own, memories[0].hidden)), theirs)


class GeneralistState(NamedTuple):
    """Everything of a generalist's training.

    Attributes:
        params: Of the generalist, with a leading axis of 1.
        optimizer: Likewise without that axis.
        mates: The partners' parameters, a leading partner axis, never changed.
        critic: One critic per partner and seating, axes (partners, 2).
        critic_optimizer: Theirs.
        running: The environments of the two seatings, a leading partner axis.
        sampler: The sampler's state.
        keys: One raw random key.
    """

    params: Any
    optimizer: Any
    mates: Any
    critic: Any
    critic_optimizer: Any
    running: tuple[Running, Running]
    sampler: Any
    keys: Array


@dataclass(frozen=True, slots=True)
class GeneralistTraining:
    """The trainer of a generalist; see `loop.Trainer`.

    The partners' parameters go into the state, so that trainers are equal, and compiled once, for all.
    """

    game: Game
    actor: Actor
    ppo: PPO
    mate: Mate
    mates: Any = field(compare=False)
    n_partners: int
    sampler: PartnerSampler
    n_members: int = 1

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration: both seatings with every partner."""
        return self.n_partners * N_SEATS * self.ppo.n_envs * self.ppo.n_steps

    def team(self, seat: int) -> MixedTeam:
        """Return who plays where the generalist has `seat`."""
        return MixedTeam(self.actor, self.mate, seat)

    def init(self, key: Array) -> GeneralistState:
        """Return a fresh generalist."""
        n, ppo = self.n_partners, self.ppo
        actor_key, critic_key, start, pool_key, keep = jax.random.split(key, 5)
        pool = reset_pool(self.game, pool_key, ppo.n_envs)
        params, optimizer = self.actor.init(actor_key), ppo.optimizer()
        critic = critic_network(self.game.observation_size)
        value = jax.vmap(jax.vmap(critic.init))(jax.random.split(critic_key, (n, N_SEATS)))
        running = tuple(
            jax.vmap(lambda k, seat=seat: begin(self.game, self.team(seat), pool, k, ppo.n_envs))(
                jax.random.split(jax.random.fold_in(start, seat), n)
            )
            for seat in range(N_SEATS)
        )
        return GeneralistState(
            params=jax.tree.map(lambda leaf: leaf[None], params),
            optimizer=optimizer.init(params),
            mates=jax.tree.map(jnp.asarray, self.mates),
            critic=value,
            critic_optimizer=jax.vmap(jax.vmap(optimizer.init))(value),
            running=running,  # type: ignore[arg-type]
            sampler=self.sampler.start(n),
            keys=jax.random.key_data(keep),
        )

    def with_frozen(self, state: GeneralistState) -> GeneralistState:
        """Return the state with these partners: `init` is compiled once for all."""
        return state._replace(mates=jax.tree.map(jnp.asarray, self.mates))

    def iterate(self, state: GeneralistState, pool: Any) -> tuple[GeneralistState, dict[str, Array]]:
        """Let the generalist play with everybody in both seats, and learn once."""
        ppo, critic = self.ppo, critic_network(self.game.observation_size)
        key, draws, order_key = jax.random.split(jax.random.wrap_key_data(state.keys), 3)
        params = jax.tree.map(lambda leaf: leaf[0], state.params)
        running, chunks = self.collect(params, state, pool, draws)
        # Axes (partners, seatings, steps, envs, ...).
        stacked: Chunk = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *chunks)
        both = _over_teams(lambda p, chunk: advantages(critic, p, chunk, ppo))
        advantage, old = both(state.critic, stacked)
        weights = self.n_partners * self.sampler.weights(state.sampler)
        order = minibatch_order(order_key, ppo)
        batch = generalist_batch(chunks, normalized(advantage, _spread(weights, advantage)), weights)
        params, optimizer, reports = descend(self.loss, params, state.optimizer, batch, order, ppo)
        value, critic_optimizer, more = _over_teams(
            lambda p, opt, chunk, old, target: fit_critic(critic, p, opt, chunk, old, target, order, ppo)
        )(state.critic, state.critic_optimizer, stacked, old, advantage + old)
        ended = stacked.done.sum(axis=(1, 2, 3))
        returns = stacked.returns.sum(axis=(1, 2, 3)) / jnp.maximum(ended, 1)
        reports.update(
            value_loss=more["value_loss"].mean(),
            partner_return=returns.mean(),
            worst_partner_return=returns.min(),
            partner_success=(stacked.behaviours >= 0).sum() / jnp.maximum(ended.sum(), 1),
            illegal_actions=one_illegal(stacked.seats.partner_actions, self.game.n_actions, axis=(1, 2, 3)),
        )
        after = GeneralistState(
            params=jax.tree.map(lambda leaf: leaf[None], params),
            optimizer=optimizer,
            mates=state.mates,
            critic=value,
            critic_optimizer=critic_optimizer,
            running=running,
            sampler=self.sampler.update(state.sampler, returns, ended),
            keys=jax.random.key_data(key),
        )
        return after, reports

    def checked(self, scalars: Mapping[str, Array]) -> dict[str, Array]:
        """Return the scalars to report.

        Raises:
            InputError: A partner took an action that the game does not have.
        """
        kept = dict(scalars)
        for k, action in enumerate(np.asarray(kept.pop("illegal_actions"))):
            if action != LEGAL:
                raise illegal_action(f"partner {k}", self.game.n_actions, repr(int(action)))
        return kept

    def collect(
        self, params: Any, state: GeneralistState, pool: Any, key: Array
    ) -> tuple[tuple[Running, Running], tuple[Chunk, Chunk]]:
        """Play one iteration's steps with the generalist left, then right; leading axes are partners."""
        played = []
        for seat in range(N_SEATS):

            def one(mate: Any, running: Running, key: Array, seat: int = seat) -> tuple[Running, Chunk]:
                return play(self.game, self.team(seat), (params, mate), running, pool, key, self.ppo)

            keys = jax.random.split(jax.random.fold_in(key, seat), self.n_partners)
            played.append(jax.vmap(one)(state.mates, state.running[seat], keys))
        return (played[0][0], played[1][0]), (played[0][1], played[1][1])

    def loss(self, params: Any, part: Any) -> tuple[Array, dict[str, Array]]:
        """Return Lp - entropy_weight entropy of a minibatch, partners weighted, and its parts."""
        (_, actions, old, _, advantage, weights), _ = part
        logits = generalist_logits(self.actor, params, part)
        ratio = jnp.exp(log_prob(logits, actions) - old)
        surrogate = policy_loss(ratio, advantage, self.ppo.clip, weights)
        disorder = weighted_mean(entropy(logits), weights)
        total = surrogate - self.ppo.entropy_weight * disorder
        return total, {"policy_loss": surrogate, "entropy": disorder}


def _over_teams(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.vmap(jax.vmap(fn))


def _spread(weights: Array, like: Array) -> Array:
    return jnp.broadcast_to(weights.reshape((-1,) + (1,) * (like.ndim - 1)), like.shape)


def generalist_batch(chunks: tuple[Chunk, Chunk], advantage: Array, weights: Array) -> tuple[Any, Array]:
    """Return what `descend` takes: leaves (steps, envs, partners, 2, ...), [..., s] the generalist in seat s.

    Args:
        chunks: Of both seatings, leading axes (partners, steps, envs).
        advantage: Shape (partners, 2, steps, envs).
        weights: Of the partners, of mean 1, shape (partners,).
    """
    seats: list[Seats] = [chunk.seats.generalist for chunk in chunks]

    def turned(leaves: list[Array]) -> Array:
        """From two of (partners, steps, envs, ...) to (steps, envs, partners, 2, ...)."""
        return jnp.moveaxis(jnp.stack(leaves, axis=1), (2, 3), (0, 1))

    sequences = (
        turned([chunk.observations[:, :, :, seat] for seat, chunk in enumerate(chunks)]),
        turned([seat.actions for seat in seats]),
        turned([seat.log_probs for seat in seats]),
        turned([chunk.starts for chunk in chunks]),
        jnp.moveaxis(advantage, (2, 3), (0, 1)),
        jnp.moveaxis(_spread(weights, advantage), (2, 3), (0, 1)),
    )
    hidden = jnp.moveaxis(jnp.stack([seat.hidden for seat in seats], axis=1), 2, 0)
    return sequences, hidden


def generalist_logits(actor: Actor, params: Any, part: Any) -> Array:
    """Return the logits of a minibatch of `generalist_batch`, as when they were played."""
    (observations, actions, _, starts, _, _), hidden = part
    none = jnp.zeros(actions.shape, jnp.int32)
    return actor.unroll(params, observations, jnp.arange(N_SEATS), none, hidden, starts)
