"""Trajectory diversity (TrajeDi): members that earn, and whose trajectories tell them apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from metier.core import InputError, non_negative, positive_int
from metier.partners.games.game import Game

from .actors import Actor, entropy, log_prob
from .collect import Chunk
from .diversity import cross_log_probs, cross_logits, divergences, first_episode, whole_episodes
from .loop import OnProgress, train
from .mep import play_anew
from .population import Population
from .ppo import PPO, advantages, critic_network, fit_critic, minibatch_order, policy_loss
from .self_play import SelfPlay, SelfPlayState


@dataclass(frozen=True, slots=True)
class TrajectoryDiversity:
    """The trainer of trajectory diversity; see `loop.Trainer` and `train_trajedi`."""

    game: Game
    actor: Actor
    ppo: PPO
    n_members: int
    diversity_weight: float
    kernel_gamma: float
    members: str = "auto"

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration."""
        return self.n_members * self.ppo.n_envs * self.ppo.n_steps

    def init(self, key: Array) -> SelfPlayState:
        """Return fresh members; they have no environments, because episodes start anew at each iteration."""
        return SelfPlay(self.game, self.actor, self.ppo, self.n_members).init(key)._replace(running=())

    def iterate(self, state: SelfPlayState, pool: Any) -> tuple[SelfPlayState, dict[str, Array]]:
        """Let all members play, compare their trajectories, and learn together."""
        ppo, critic = self.ppo, critic_network(self.game.observation_size)
        state, chunk, keys = play_anew(self, state, pool)
        gain, old = jax.vmap(lambda p, one: advantages(critic, p, one, ppo))(state.critic, chunk)
        batch, scale, told = together(self, state.params, chunk, gain)
        # One order for all: a minibatch holds the same environments of every member.
        order = minibatch_order(keys[0], ppo)
        params, optimizer, reports = self.descend(state.params, state.optimizer, batch, scale, order)
        value, critic_optimizer, more = jax.vmap(
            lambda p, opt, one, old, target: fit_critic(critic, p, opt, one, old, target, order, ppo)
        )(state.critic, state.critic_optimizer, chunk, old, gain + old)
        state = SelfPlayState(params, optimizer, value, critic_optimizer, (), state.keys)
        return state, {**reports, "value_loss": more["value_loss"], "trajectory_divergence": told.mean()}

    def descend(
        self, params: Any, optimizer_state: Any, batch: Any, scale: Array, order: Array
    ) -> tuple[Any, Any, dict[str, Array]]:
        """Take one step of all members per minibatch; each member's gradient is clipped on its own."""
        optimizer = self.ppo.optimizer()

        def one(carry: tuple[Any, Any], picks: Array) -> tuple[tuple[Any, Any], dict[str, Array]]:
            params, state = carry
            part = jax.tree.map(lambda leaf: jnp.take(leaf, picks, axis=1), batch)
            gradient, report = jax.grad(together_loss, argnums=1, has_aux=True)(self, params, part, scale)
            updates, state = jax.vmap(optimizer.update)(gradient, state)
            norms = jax.vmap(optax.tree.norm)(gradient)
            return (optax.apply_updates(params, updates), state), {**report, "gradient_norm": norms.mean()}

        (params, optimizer_state), reports = jax.lax.scan(one, (params, optimizer_state), order)
        return params, optimizer_state, jax.tree.map(jnp.mean, reports)


def together(
    trainer: TrajectoryDiversity, params: Any, chunk: Chunk, gain: Array
) -> tuple[Any, Array, Array]:
    r"""Return (the batch of all members, the weight of f's own gradient, f of every first episode).

    The gradient of (1/n) sum_i E_{tau ~ pi_i}[f_i(tau)] has two parts: f times the score of the trajectory,
    which goes into the advantages of all its steps, and f's own gradient, which `together_loss` takes. Both
    are scaled like PPO's sums: advantages have one standard deviation for the whole population, and first
    episodes stand for all episodes of the chunk.

    Args:
        trainer: Shapes and settings.
        params: Of the members that played.
        chunk: A leading member axis, begun with new episodes.
        gain: Advantages of the task, shape (members, steps, envs).
    """
    valid = first_episode(chunk.done)
    logs = cross_log_probs(trainer.actor, params, chunk).sum(axis=-1)
    told = divergences(logs, valid, trainer.kernel_gamma)
    episodes = chunk.starts.sum() / told.size
    surprise = trainer.diversity_weight * episodes * (told - told.mean(axis=1, keepdims=True))
    gain = gain + jnp.where(valid, surprise[:, None], 0.0)
    centered = gain - gain.mean(axis=(1, 2), keepdims=True)
    spread = jnp.sqrt((centered**2).mean()) + 1e-8
    leaves = (
        chunk.observations,
        chunk.seats.actions,
        chunk.seats.log_probs,
        chunk.starts,
        centered / spread,
        valid,
    )
    batch = tuple(jnp.moveaxis(leaf, 0, 2) for leaf in leaves)
    return batch, trainer.diversity_weight * episodes / spread, told


def together_loss(
    trainer: TrajectoryDiversity, params: Any, part: Any, scale: Array
) -> tuple[Array, dict[str, Array]]:
    """Return the sum of the members' losses on a minibatch of whole episodes, and the terms' means.

    Args:
        trainer: Shapes and settings.
        params: Stacked, of all members.
        part: From `together`, leaves (steps, envs, members, ...).
        scale: From `together`.
    """
    observations, actions, old, starts, gain, valid = part
    logits = cross_logits(trainer.actor, params, observations, starts)
    # The last axis becomes the member that both asked and played.
    own = jnp.moveaxis(jnp.diagonal(logits, axis1=0, axis2=3), -1, 2)
    ratio = jnp.exp(log_prob(own, actions) - old)
    both = jnp.broadcast_to(gain[..., None], ratio.shape)
    surrogate = jax.vmap(lambda r, a: policy_loss(r, a, trainer.ppo.clip), in_axes=2)(ratio, both)
    disorder = entropy(own).mean(axis=(0, 1, 3))
    logs = log_prob(logits, jnp.broadcast_to(actions, logits.shape[:-1])).sum(axis=-1)
    told = divergences(jnp.moveaxis(logs, 3, 0), jnp.moveaxis(valid, 2, 0), trainer.kernel_gamma)
    # PPO's means are over steps and seats; a sum over episodes divided by as many weighs alike.
    direct = told.sum() / ratio[:, :, 0].size
    loss = (surrogate - trainer.ppo.entropy_weight * disorder).sum() - scale * direct
    return loss, {"policy_loss": surrogate.mean(), "entropy": disorder.mean()}


def train_trajedi(
    game: Game,
    *,
    n_members: int,
    steps: int,
    diversity_weight: float = 5.0,
    kernel_gamma: float = 0.5,
    rng: int = 0,
    ppo: PPO | None = None,
    hidden: tuple[int, ...] = (64, 64),
    gru_units: int = 0,
    members: str = "auto",
    folder: str | Path | None = None,
    on_progress: OnProgress | None = None,
    reports: int = 10,
) -> Population:
    r"""Train members by trajectory diversity (TrajeDi): self-play, and trajectories that tell members apart.

    Maximizes sum_i J_SP(pi_i) + n * diversity_weight * JSD, JSD the Jensen-Shannon divergence of the members'
    self-play trajectories, of actions (what the game does cancels), with a kernel along time:
    JSD = (1/n) sum_i E_{tau ~ pi_i} (1/T) sum_t log(d_{i,t}(tau) / mean_j d_{j,t}(tau)),
    log d_{j,t}(tau) = sum_{t'} kernel_gamma^{|t-t'|} log pi_j(a_{t'} | h_{t'}).

    Args:
        game: The game.
        n_members: Members, at least 2.
        steps: Environment steps in all.
        diversity_weight: Weight of the divergence; 5 is the cooking setting of later work.
        kernel_gamma: From 0 (every step on its own) to 1 (whole trajectories).
        rng: Seed; the same seed gives the same bits.
        ppo: Settings of the learning; `n_steps` is at least the game's horizon, as episodes start anew at
            each iteration. None is `PPO()` with as many steps.
        hidden: Sizes of the actors' dense layers.
        gru_units: Units of the actors' GRU; 0 for memoryless partners.
        members: "auto", "vmap" or "loop", of the play; the learning is one program, because every member's
            gradient needs all members.
        folder: Where a checkpoint is kept and looked for.
        on_progress: Called with each report; "trajectory_divergence" is JSD in nats, sampled.
        reports: Reports spread over the training.

    Returns:
        The population, with its `progress`.

    Raises:
        InputError: Settings out of range, or a checkpoint of another training in the folder.

    Example:
        >>> from metier.partners.games import LeverGame
        >>> quick = {"ppo": PPO(n_envs=8, n_steps=4, epochs=1, minibatches=2), "hidden": (8,), "reports": 1}
        >>> len(train_trajedi(LeverGame(n_levers=2, n_stages=2), n_members=2, steps=64, **quick))
        2

    Source: Lupu et al., "Trajectory Diversity for Zero-Shot Coordination", ICML 2021. Theirs learns a common
        best response in the same run; ours is `train_generalist` afterwards.
    """
    if not non_negative("kernel_gamma", kernel_gamma) <= 1.0:
        raise InputError(
            "kernel_gamma is at most 1",
            expected="a number from 0 to 1",
            got=repr(kernel_gamma),
            next_step="Pass kernel_gamma=1.0 to compare whole trajectories.",
        )
    trainer = TrajectoryDiversity(
        game,
        Actor.for_game(game, hidden=hidden, gru_units=gru_units),
        whole_episodes(game, ppo),
        positive_int("n_members", n_members, minimum=2),
        non_negative("diversity_weight", diversity_weight),
        float(kernel_gamma),
        members,
    )
    return train(
        trainer,
        steps=steps,
        rng=rng,
        folder=folder,
        on_progress=on_progress,
        reports=reports,
        settings={name: getattr(trainer, name) for name in ("diversity_weight", "kernel_gamma")},
    ).population
