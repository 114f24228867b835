"""Self-play: every member learns with itself in the other seat."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metier.core import positive_int
from metier.partners.games.game import N_SEATS, Game, reset_pool

from .actors import Actor, entropy, log_prob
from .collect import Chunk, OneActor, begin
from .loop import OnProgress, train
from .members import over_members
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
    ppo_or,
    weighted_mean,
)


class SelfPlayState(NamedTuple):
    """Everything of a training by self-play; leading axes are members.

    Attributes:
        params: Of the actors.
        optimizer: Of the actors.
        critic: Parameters of the critics.
        critic_optimizer: Theirs.
        running: The environments, a `Running`; an empty tuple where episodes start anew at each iteration.
        keys: Raw random keys.
    """

    params: Any
    optimizer: Any
    critic: Any
    critic_optimizer: Any
    running: Any
    keys: Array


@dataclass(frozen=True, slots=True)
class SelfPlay:
    """The trainer of independent teams; see `loop.Trainer`."""

    game: Game
    actor: Actor
    ppo: PPO
    n_members: int
    members: str = "auto"

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration."""
        return self.n_members * self.ppo.n_envs * self.ppo.n_steps

    def init(self, key: Array) -> SelfPlayState:
        """Return fresh members."""
        pool = reset_pool(self.game, jax.random.fold_in(key, 1), self.ppo.n_envs)
        critic = critic_network(self.game.observation_size)

        def member(key: Array) -> SelfPlayState:
            actor_key, critic_key, start, keep = jax.random.split(key, 4)
            params, value = self.actor.init(actor_key), critic.init(critic_key)
            optimizer = self.ppo.optimizer()
            running = begin(self.game, OneActor(self.actor), pool, start, self.ppo.n_envs)
            state, critic_state = optimizer.init(params), optimizer.init(value)
            return SelfPlayState(params, state, value, critic_state, running, jax.random.key_data(keep))

        return jax.vmap(member)(jax.random.split(key, self.n_members))

    def iterate(self, state: SelfPlayState, pool: Any) -> tuple[SelfPlayState, dict[str, Array]]:
        """Let all members play and learn once."""

        def member(state: SelfPlayState) -> tuple[SelfPlayState, dict[str, Array]]:
            return self_play_iteration(self.game, self.actor, self.ppo, state, pool)

        return over_members(member, self.members)(state)  # type: ignore[no-any-return]


def self_play_iteration(
    game: Game, actor: Actor, ppo: PPO, state: SelfPlayState, pool: Any
) -> tuple[SelfPlayState, dict[str, Array]]:
    """Let one member play and learn once."""
    key, draw, order_key = jax.random.split(jax.random.wrap_key_data(state.keys), 3)
    running, chunk = play(game, OneActor(actor), state.params, state.running, pool, draw, ppo)
    state = state._replace(running=running, keys=jax.random.key_data(key))
    return learn_from_own_play(game, actor, ppo, state, chunk, order_key)


def learn_from_own_play(
    game: Game, actor: Actor, ppo: PPO, state: SelfPlayState, chunk: Chunk, order_key: Array
) -> tuple[SelfPlayState, dict[str, Array]]:
    """Return one member after PPO on a chunk of its self-play, and the scalars to report."""
    critic = critic_network(game.observation_size)
    advantage, old = advantages(critic, state.critic, chunk, ppo)
    order = minibatch_order(order_key, ppo)
    batch = self_play_batch(chunk, normalized(advantage))

    def loss(params: Any, part: Any) -> tuple[Array, dict[str, Array]]:
        surrogate, disorder, _ = self_play_terms(actor, params, part, ppo)
        return surrogate - ppo.entropy_weight * disorder, {"policy_loss": surrogate, "entropy": disorder}

    params, optimizer, reports = descend(loss, state.params, state.optimizer, batch, order, ppo)
    value, critic_optimizer, more = fit_critic(
        critic, state.critic, state.critic_optimizer, chunk, old, advantage + old, order, ppo
    )
    reports["value_loss"] = more["value_loss"]
    after = state._replace(
        params=params, optimizer=optimizer, critic=value, critic_optimizer=critic_optimizer
    )
    return after, reports


def self_play_batch(chunk: Chunk, advantage: Array) -> tuple[Any, Any]:
    """Return what `descend` takes of a team's chunk: (sequences, what they start with).

    Sequences are (observations, actions, log-probabilities, latents, starts, advantages), each of shape
    (steps, envs, 2, ...) with the seats on the axis of 2.
    """
    seats = chunk.seats
    both = (*chunk.starts.shape, N_SEATS)
    starts, gains = (jnp.broadcast_to(leaf[..., None], both) for leaf in (chunk.starts, advantage))
    sequences = (chunk.observations, seats.actions, seats.log_probs, seats.latents, starts, gains)
    return sequences, seats.hidden


def replay(actor: Actor, params: Any, part: Any) -> tuple[Array, Array]:
    """Return (logits, ratios of new to old probability) of a batch such as `self_play_batch` gives."""
    (observations, actions, old, latents, starts, _), hidden = part
    logits = actor.unroll(params, observations, jnp.arange(N_SEATS), latents, hidden, starts)
    return logits, jnp.exp(log_prob(logits, actions) - old)


def self_play_terms(actor: Actor, params: Any, part: Any, ppo: PPO) -> tuple[Array, Array, Array]:
    """Return (Lp over both seats, mean entropy, ratios) of a minibatch from `self_play_batch`."""
    logits, ratio = replay(actor, params, part)
    return policy_loss(ratio, part[0][-1], ppo.clip), weighted_mean(entropy(logits)), ratio


def train_self_play(
    game: Game,
    *,
    n_members: int,
    steps: int,
    rng: int = 0,
    ppo: PPO | None = None,
    hidden: tuple[int, ...] = (64, 64),
    gru_units: int = 0,
    members: str = "auto",
    folder: str | Path | None = None,
    on_progress: OnProgress | None = None,
    reports: int = 10,
) -> Population:
    """Train teams that each play with themselves only: max J(pi^1, pi^2) for every member on its own.

    Args:
        game: The game.
        n_members: Teams, trained side by side in one compiled program.
        steps: Environment steps in all, of all members together.
        rng: Seed; the same seed gives the same bits.
        ppo: Settings of the learning; None is `PPO()`.
        hidden: Sizes of the actors' dense layers.
        gru_units: Units of the actors' GRU; 0 for memoryless partners.
        members: "vmap" (side by side), "loop" (one after the other), or "auto": "loop" on a single CPU,
            which is faster there, "vmap" elsewhere.
        folder: Where a checkpoint is kept and looked for; see `Population`.
        on_progress: Called with each report.
        reports: Reports spread over the training.

    Returns:
        The population, with its `progress`.

    Raises:
        InputError: Settings out of range, or a checkpoint of another training in the folder.

    Example:
        >>> from metier.partners.games import LeverGame
        >>> quick = PPO(n_envs=8, n_steps=4, epochs=1, minibatches=2)
        >>> population = train_self_play(
        ...     LeverGame(n_levers=2, n_stages=2), n_members=2, steps=64, ppo=quick, hidden=(8,), reports=1
        ... )
        >>> len(population)
        2

    Source: cooperative self-play with independent seeds, the baseline "SP" of the paper.
    """
    trainer = SelfPlay(
        game,
        Actor.for_game(game, hidden=hidden, gru_units=gru_units),
        ppo_or(ppo, PPO()),
        positive_int("n_members", n_members),
        members,
    )
    return train(
        trainer, steps=steps, rng=rng, folder=folder, on_progress=on_progress, reports=reports
    ).population
