"""Proximal policy optimization: settings, advantages, clipped losses, minibatches over whole sequences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from metier.core import InputError, non_negative, one_of, open_fraction, positive_int
from metier.partners.games.game import Game

from .collect import Chunk, Running, Team, collect
from .networks import Network

Loss = Callable[[Any, Any], tuple[Array, dict[str, Array]]]


@dataclass(frozen=True, slots=True)
class PPO:
    """Settings of proximal policy optimization.

    Args:
        n_envs: Environments per member, and per seating of a pair.
        n_steps: Steps per environment and iteration; recurrent networks learn through these many.
        epochs: Passes over an iteration's data.
        minibatches: Minibatches per pass; each holds whole sequences of some environments.
        learning_rate: Of Adam.
        discount: gamma.
        trace_decay: lambda of generalized advantage estimation.
        clip: How far the ratio (and, in the critic, the value) may go while it still earns.
        entropy_weight: Weight of the policy's entropy.
        max_grad_norm: Largest norm of a gradient step's gradient.
        time_limit: "terminal": nothing follows the horizon (the paper's code); "bootstrap": the critic's
            value of the state reached there does.

    Raises:
        InputError: A value out of its range, or environments that do not divide into minibatches.

    Example:
        >>> PPO(n_envs=8, minibatches=2).n_steps
        128
    """

    n_envs: int = 64
    n_steps: int = 128
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 5e-4
    discount: float = 0.99
    trace_decay: float = 0.95
    clip: float = 0.3
    entropy_weight: float = 0.03
    max_grad_norm: float = 0.5
    time_limit: str = "terminal"

    def __post_init__(self) -> None:
        for name in ("n_envs", "n_steps", "epochs", "minibatches"):
            positive_int(name, getattr(self, name))
        for name in ("learning_rate", "discount", "trace_decay", "entropy_weight"):
            non_negative(name, getattr(self, name))
        open_fraction("clip", self.clip)
        one_of("time_limit", self.time_limit, ("terminal", "bootstrap"))
        for name in ("discount", "trace_decay"):
            if getattr(self, name) > 1.0:
                raise InputError(
                    f"{name} is at most 1",
                    expected="a number from 0 to 1",
                    got=repr(getattr(self, name)),
                    next_step=f"Pass {name}=1.0 for none.",
                )
        if not non_negative("max_grad_norm", self.max_grad_norm) > 0.0:
            raise InputError(
                "max_grad_norm is above 0",
                expected="a positive number",
                got=repr(self.max_grad_norm),
                next_step="Pass a large number for no limit.",
            )
        if self.n_envs % self.minibatches:
            raise InputError(
                "environments divide into minibatches of whole sequences",
                expected=f"n_envs a multiple of minibatches={self.minibatches}",
                got=f"n_envs={self.n_envs}",
                next_step=f"Pass n_envs={self.minibatches * (self.n_envs // self.minibatches + 1)}.",
            )

    def optimizer(self) -> Any:
        """Return Adam behind the clipping of the gradient's norm."""
        return optax.chain(
            optax.clip_by_global_norm(self.max_grad_norm), optax.adam(self.learning_rate, eps=1e-5)
        )


def ppo_or(ppo: Any, default: PPO) -> PPO:
    """Return the settings, or `default` for None.

    Raises:
        InputError: Something else.
    """
    if ppo is None:
        return default
    if isinstance(ppo, PPO):
        return ppo
    raise InputError(
        "ppo holds the settings of the learning",
        expected="a partners.PPO, or None for the default",
        got=repr(ppo),
        next_step="Pass for example ppo=partners.PPO(n_envs=32).",
    )


def play(
    game: Game, team: Team, params: Any, running: Running, pool: Any, key: Array, ppo: PPO
) -> tuple[Running, Chunk]:
    """Play one iteration's steps of one team, keeping what its advantages need; see `collect`."""
    successors = ppo.time_limit == "bootstrap"
    return collect(game, team, params, running, pool, key, n_steps=ppo.n_steps, successors=successors)


def joint(observations: Array) -> Array:
    """Return both seats' observations side by side: what critics see."""
    return observations.reshape(*observations.shape[:-2], -1)


def critic_network(observation_size: int, *, hidden: tuple[int, ...] = (64, 64)) -> Network:
    """Return the critic of one team: the joint observation in, one value out."""
    return Network(2 * observation_size, 1, hidden=hidden, head_scale=1.0)


def values(critic: Network, params: Any, observations: Array) -> Array:
    """Return V of joint states, shape (...), for observations of shape (..., 2, observation_size)."""
    inputs = joint(observations)
    return critic.step(params, inputs, critic.initial_memory(*inputs.shape[:-1]))[0][..., 0]


def advantages(critic: Network, params: Any, chunk: Chunk, ppo: PPO) -> tuple[Array, Array]:
    """Return (advantages, values), each of shape (steps, envs), of one team's chunk.

    Generalized advantage estimation; nothing flows across the end of an episode. With
    `time_limit="bootstrap"` a truncated step is followed by the value of the state it led to.
    """
    now = values(critic, params, chunk.observations)
    last = values(critic, params, chunk.final)
    rewards = chunk.rewards
    if ppo.time_limit == "bootstrap":
        beyond = values(critic, params, chunk.successors)  # type: ignore[arg-type]
        rewards = rewards + ppo.discount * jnp.where(chunk.truncated, beyond, 0.0)
    after = jnp.concatenate([now[1:], last[None]])
    return gae(rewards, now, after, chunk.done, ppo.discount, ppo.trace_decay), now


def gae(rewards: Array, now: Array, after: Array, done: Array, discount: float, trace_decay: float) -> Array:
    """Return generalized advantage estimates, shape (steps, ...).

    delta_t = r_t + discount (1 - done_t) V(s_{t+1}) - V(s_t);
    A_t = delta_t + discount trace_decay (1 - done_t) A_{t+1}, all arguments of shape (steps, ...).
    """
    goes_on = 1.0 - done.astype(rewards.dtype)
    delta = rewards + discount * goes_on * after - now

    def one(carry: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        error, flag = step
        carry = error + discount * trace_decay * flag * carry
        return carry, carry

    return jax.lax.scan(one, jnp.zeros_like(delta[0]), (delta, goes_on), reverse=True)[1]


def normalized(advantage: Array, weights: Array | None = None) -> Array:
    """Return advantages of mean 0 and standard deviation 1 over everything that has weight."""
    w = jnp.ones_like(advantage) if weights is None else weights
    n = jnp.maximum(w.sum(), 1.0)
    centered = advantage - (w * advantage).sum() / n
    return centered / (jnp.sqrt((w * centered**2).sum() / n) + 1e-8)


def weighted_mean(values: Array, weights: Array | None = None) -> Array:
    """Return the mean over what has weight; 0 where nothing has."""
    if weights is None:
        return values.mean()
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1.0)


def policy_loss(ratio: Array, advantage: Array, clip: float, weights: Array | None = None) -> Array:
    """Return Lp = -mean min(r A, clip(r, 1 - eps, 1 + eps) A); pass -A to drive a return *down*.

    Clipping a negated loss instead (as the code this family goes back to did) leaves the minimizing direction
    without any limit.
    """
    bounded = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    return -weighted_mean(jnp.minimum(ratio * advantage, bounded * advantage), weights)


def value_loss(
    predicted: Array, old: Array, targets: Array, clip: float, weights: Array | None = None
) -> Array:
    """Return half the mean of the larger squared error: of the value, or of it clipped around `old`."""
    bounded = old + jnp.clip(predicted - old, -clip, clip)
    return 0.5 * weighted_mean(jnp.maximum((predicted - targets) ** 2, (bounded - targets) ** 2), weights)


def minibatch_order(key: Array, ppo: PPO) -> Array:
    """Return which environments form each minibatch, int32, shape (epochs x minibatches, envs per one)."""
    orders = jax.vmap(lambda k: jax.random.permutation(k, ppo.n_envs))(jax.random.split(key, ppo.epochs))
    return orders.reshape(ppo.epochs * ppo.minibatches, -1)


def descend(
    loss: Loss, params: Any, optimizer_state: Any, batch: Any, order: Array, ppo: PPO
) -> tuple[Any, Any, dict[str, Array]]:
    """Take one optimizer step per minibatch.

    Args:
        loss: (params, minibatch) -> (loss, dict of scalars to report).
        params: What is learned, of one member; `vmap` over members.
        optimizer_state: Of `ppo.optimizer()`.
        batch: A pair of pytrees (sequences, starts): leaves of the first have axes (steps, envs, ...), leaves
            of the second (envs, ...).
        order: From `minibatch_order`.
        ppo: The settings.

    Returns:
        New parameters, new optimizer state, and the scalars' means over minibatches, with the norm of the
        gradient before its clipping as "gradient_norm".
    """
    optimizer = ppo.optimizer()
    sequences, initial = batch

    def one(carry: tuple[Any, Any], picks: Array) -> tuple[tuple[Any, Any], dict[str, Array]]:
        params, state = carry
        part = (
            jax.tree.map(lambda leaf: jnp.take(leaf, picks, axis=1), sequences),
            jax.tree.map(lambda leaf: jnp.take(leaf, picks, axis=0), initial),
        )
        gradient, report = jax.grad(loss, has_aux=True)(params, part)
        updates, state = optimizer.update(gradient, state)
        norm = optax.tree.norm(gradient)
        return (optax.apply_updates(params, updates), state), {**report, "gradient_norm": norm}

    (params, optimizer_state), reports = jax.lax.scan(one, (params, optimizer_state), order)
    return params, optimizer_state, jax.tree.map(jnp.mean, reports)


def fit_critic(
    critic: Network,
    params: Any,
    optimizer_state: Any,
    chunk: Chunk,
    old_values: Array,
    targets: Array,
    order: Array,
    ppo: PPO,
    *,
    weights: Array | None = None,
) -> tuple[Any, Any, dict[str, Array]]:
    """Fit one team's critic to `targets` (advantages + old values), with clipped steps; `vmap` over teams.

    `weights`, of shape (steps, envs), leaves steps out; None keeps all.
    """

    def loss(params: Any, part: Any) -> tuple[Array, dict[str, Array]]:
        (observations, old, target, weight), _ = part
        value = value_loss(values(critic, params, observations), old, target, ppo.clip, weight)
        return value, {"value_loss": value}

    sequences = (chunk.observations, old_values, targets, weights)
    return descend(loss, params, optimizer_state, (sequences, ()), order, ppo)
