"""How different members are as distributions: of trajectories (TrajeDi), and of actions on average (MEP)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from metier.core import InputError
from metier.partners.games.game import N_SEATS, Game, whole_game

from .actors import Actor, log_prob
from .collect import Chunk
from .ppo import PPO, ppo_or


def cross_logits(actor: Actor, params: Any, observations: Array, starts: Array) -> Array:
    """Return every member's logits on every member's histories.

    Args:
        actor: The members' shape, without a latent.
        params: Stacked, of all members.
        observations: Shape (steps, envs, members, 2, observation_size), from the first step of an episode on:
            memories are clear before it.
        starts: bool, shape (steps, envs, members): first steps of episodes.

    Returns:
        Shape (members, steps, envs, members, 2, n_actions): first who is asked, later who played.
    """
    shape = observations.shape[:-1]
    both = jnp.broadcast_to(starts[..., None], shape)
    none, memory = jnp.zeros(shape, jnp.int32), actor.network.initial_memory(*shape[1:])
    logits: Array = jax.vmap(
        lambda one: actor.unroll(one, observations, jnp.arange(N_SEATS), none, memory, both)
    )(params)
    return logits


def cross_log_probs(actor: Actor, params: Any, chunk: Chunk) -> Array:
    """Return log pi_j(a_t | h_t) of what member i did, shape (members i, members j, steps, envs, 2).

    Args:
        actor: The members' shape.
        params: Stacked, of all members.
        chunk: Of self-play of all members, a leading member axis, begun with new episodes.
    """
    observations, starts, actions = (
        jnp.moveaxis(leaf, 0, 2) for leaf in (chunk.observations, chunk.starts, chunk.seats.actions)
    )
    logits = cross_logits(actor, params, observations, starts)
    return jnp.moveaxis(log_prob(logits, jnp.broadcast_to(actions, logits.shape[:-1])), 3, 0)


def mean_policy_bonus(logs: Array) -> Array:
    r"""Return -log mean_j pi_j(a_t | h_t), both seats averaged, shape (members i, steps, envs).

    Its mean over members at one observation, a drawn by each, is the entropy of the mean policy:
    (1/n) sum_i E_{a ~ pi_i}[-log pibar(a)] = H(pibar), pibar = (1/n) sum_j pi_j.

    Args:
        logs: From `cross_log_probs`.
    """
    mean = jax.nn.logsumexp(logs, axis=1) - jnp.log(logs.shape[1])
    return -mean.mean(axis=-1)


def divergences(logs: Array, valid: Array, kernel_gamma: float) -> Array:
    r"""Return f_i(tau), whose mean over members and their trajectories is the trajectory JSD.

    f_i(tau) = (1/T) sum_t log(d_{i,t}(tau) / mean_j d_{j,t}(tau)),
    log d_{j,t}(tau) = sum_{t'} kernel_gamma^{|t - t'|} log pi_j(a_{t'} | h_{t'}).

    With kernel_gamma = 1 this is log(pi_i(tau) / mean_j pi_j(tau)), so that the mean is the Jensen-Shannon
    divergence of the trajectory distributions; with 0 each step counts on its own.

    Args:
        logs: log pi_j of both seats together, shape (members i, members j, steps, episodes).
        valid: bool, shape (members i, steps, episodes): the steps of the episode.
        kernel_gamma: How far along the trajectory a difference counts, from 0 to 1.

    Returns:
        Shape (members, episodes).

    Source: Lupu et al., "Trajectory Diversity for Zero-Shot Coordination", ICML 2021, equations 6 to 8.
    """
    times = jnp.arange(logs.shape[2])
    kernel = jnp.power(kernel_gamma, jnp.abs(times[:, None] - times).astype(logs.dtype))
    reached = jnp.einsum("ts,ijse->ijte", kernel, jnp.where(valid[:, None], logs, 0.0))
    own = jnp.moveaxis(jnp.diagonal(reached), -1, 0)
    mean = jax.nn.logsumexp(reached, axis=1) - jnp.log(logs.shape[1])
    length = jnp.maximum(valid.sum(axis=1), 1)
    return jnp.where(valid, own - mean, 0.0).sum(axis=1) / length


def first_episode(done: Array) -> Array:
    """Return which steps belong to the first episode, bool; `done` has shape (..., steps, envs)."""
    ends = done.astype(jnp.int32)
    return jnp.cumsum(ends, axis=-2) - ends == 0


def whole_episodes(game: Game, ppo: PPO | None) -> PPO:
    """Return settings whose chunks hold a whole episode of the game.

    Raises:
        InputError: `n_steps` is shorter than an episode can be.
    """
    ppo = ppo_or(ppo, PPO(n_steps=max(PPO().n_steps, whole_game(game).horizon)))
    if ppo.n_steps < game.horizon:
        raise InputError(
            "trajectories are compared from the first step to the last",
            expected=f"ppo.n_steps of at least the game's horizon, {game.horizon}",
            got=f"n_steps={ppo.n_steps}",
            next_step=f"Pass PPO(n_steps={game.horizon}, ...); episodes start anew at each iteration.",
        )
    return ppo
