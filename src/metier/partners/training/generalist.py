"""A generalist: one recurrent policy that learns to cooperate with every partner of a population."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metier.core import InputError
from metier.partners.games.game import N_SEATS, Game
from metier.partners.policies import Pure
from metier.partners.samplers import PartnerSampler, UniformSampler

from .actors import Actor, ActorPolicy, Memory, entropy, log_prob
from .collect import Chunk, Running, Seats, begin
from .loop import OnProgress, train
from .mates import Mate, fingerprint, stacked_mates
from .population import Population
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
from .progress import Progress


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
        return jnp.stack(pair, axis=1).astype(jnp.int32), (after, mate), (action, logs, memory.latent)

    def record(self, recorded: Any, memories: tuple[Memory, Any]) -> Seats:
        """Return the generalist's record."""
        return Seats._make((*recorded, memories[0].hidden))


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
        pool = jax.vmap(self.game.reset)(jax.random.split(pool_key, ppo.n_envs))
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
    seats: list[Seats] = [chunk.seats for chunk in chunks]

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


@dataclass(frozen=True, slots=True)
class Generalist(Pure):
    """A trained generalist: a `Policy` and a `PurePolicy` that can be saved.

    Args:
        game: Name of the game it was trained for.
        actor: Its shape.
        params: Its parameters.
        progress: What was reported while it was trained.
    """

    game: str
    actor: Actor
    params: Any
    progress: Progress = field(default_factory=Progress)

    def initial_state(self) -> Any:
        """Return the memory at the start of an episode."""
        return self.policy.initial_state()

    def pure_act(self, observation: Array, state: Any, key: Array) -> tuple[Array, Any]:
        """Draw an action."""
        return self.policy.pure_act(observation, state, key)

    @property
    def policy(self) -> ActorPolicy:
        """The bare policy."""
        return ActorPolicy(self.params, self.actor)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as one safetensors file; `Generalist.load` reads it."""
        params = jax.tree.map(lambda leaf: leaf[None], self.params)
        Population(self.game, self.actor, params, ("generalist",), self.progress).save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], game: Game | None = None) -> Generalist:
        """Read a generalist; with `game`, refuse one of another game.

        Raises:
            InputError: A missing or damaged file, one of another game, or one that holds several policies.
        """
        population = Population.load(path, game)
        if len(population) != 1:
            raise InputError(
                "the file holds one generalist",
                expected="1 policy",
                got=f"a population of {len(population)}",
                next_step="Read it with Population.load.",
            )
        return cls(population.game, population.actor, population[0].params, population.progress)


# The progress is for people; under `jit` only the parameters and the shape matter.
jax.tree_util.register_pytree_node(
    Generalist,
    lambda g: ((g.params,), (g.game, g.actor)),
    lambda kept, leaves: Generalist(kept[0], kept[1], leaves[0]),
)


def train_generalist(
    population: Any,
    game: Game,
    *,
    steps: int,
    rng: int = 0,
    gru_units: int = 64,
    hidden: tuple[int, ...] = (64,),
    sampler: PartnerSampler | None = None,
    ppo: PPO | None = None,
    folder: str | Path | None = None,
    on_progress: OnProgress | None = None,
    reports: int = 10,
) -> Generalist:
    r"""Train one policy with memory to cooperate with every partner, in either seat.

    max_G sum_B w_B (J(G, B) + J(B, G)) / 2: the generalist G -> the result, the frozen partners B ->
    `population`, the draw weights w -> `sampler`. Every partner plays equally many steps in either seat; the
    weights weigh its part of the loss, which is drawing partners by them with less noise.

    Args:
        population: A `Population`, or a list of JAX policies of one class, such as scripted specialists
            (the generalist is then an oracle).
        game: The game they play.
        steps: Environment steps in all, of both seatings with all partners.
        rng: Seed.
        gru_units: Units of its memory; 0 for none.
        hidden: Sizes of its dense layers.
        sampler: `UniformSampler()` (the paper's, the default), `BanditSampler()`, `CapacitySampler(...)`.
        ppo: Settings of the learning; `n_envs` counts per partner and seating. None is 16 environments.
        folder: Where a checkpoint is kept and looked for.
        on_progress: Called with each report: "partner_return", "worst_partner_return", "partner_success".
        reports: Reports spread over the training.

    Returns:
        The generalist, a policy.

    Raises:
        InputError: No partners, partners of another game or that are no JAX policies, settings out of range,
            or a checkpoint of another training.

    Example:
        >>> from metier.partners.games import LeverGame
        >>> from metier.partners.policies import ConstantPolicy
        >>> quick = PPO(n_envs=4, n_steps=4, epochs=1, minibatches=1)
        >>> specialists = [ConstantPolicy(0), ConstantPolicy(1)]
        >>> generalist = train_generalist(specialists, LeverGame(n_levers=2), steps=128, ppo=quick, reports=1)
        >>> generalist.game
        'lever'

    Source: Charakorn et al., NeurIPS 2024, after RL^2. Ours: one GRU layer on the observation alone (theirs:
        two, with the previous reward and action), and a critic per partner and seating.
    """
    mate, mates, n_partners = stacked_mates(population, game)
    trainer = GeneralistTraining(
        game,
        Actor.for_game(game, hidden=hidden, gru_units=gru_units),
        ppo or PPO(n_envs=16),
        mate,
        mates,
        n_partners,
        sampler or UniformSampler(),
    )
    trained = train(
        trainer,
        steps=steps,
        rng=rng,
        folder=folder,
        on_progress=on_progress,
        reports=reports,
        settings={"partners": fingerprint(mates), "sampler": repr(trainer.sampler)},
    ).population
    return Generalist(game.name, trainer.actor, trained[0].params, trained.progress)
