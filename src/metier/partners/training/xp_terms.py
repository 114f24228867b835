"""The terms of cross-play minimization's loss: their advantages, weights and signs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metier.partners.games.game import N_SEATS

from .actors import entropy
from .ppo import normalized, policy_loss
from .self_play import replay

if TYPE_CHECKING:
    from .xp_trainer import XPMin


class Weights(NamedTuple):
    """Weights of the terms: of cross-play and of mixed play, relative to self-play's 1."""

    cross: Array
    mixed: Array


def scale_advantages(
    gains: list[Array], masks: list[Array | None], starts: list[Array], trainer: XPMin, cross: Array
) -> tuple[list[Array], Weights]:
    r"""Return the advantages as the losses take them, and the weights of the terms.

    "separate": each kind of play is normalized on its own (as in the code this goes back to), so the weights
    weigh gradients of unit variance, not returns. "shared": one scale for all, and weights that make the
    gradient proportional to that of J_SP - xp_weight J_XP + mixed_play_weight J_MP. Means are over steps and
    seats, self-play has two learning seats per episode and cross-play one, and episodes of different lengths
    have different numbers of steps; that is what the weights undo.

    Args:
        gains: Of self-play, cross-play and, if any, mixed play, each of shape (steps, envs, 2).
        masks: Which steps count, or None for all.
        starts: First steps of episodes, each of shape (steps, envs, 2).
        trainer: Its `mixed_play_weight` and `adv_norm`.
        cross: The member's lambda_X, a scalar.
    """
    mixed = jnp.asarray(trainer.mixed_play_weight)
    if trainer.adv_norm == "separate":
        return [normalized(gain, mask) for gain, mask in zip(gains, masks, strict=True)], Weights(
            cross, mixed
        )
    centered = [gain - _mean(gain, mask) for gain, mask in zip(gains, masks, strict=True)]
    spread = jnp.sqrt(_mean(centered[0] ** 2, None)) + 1e-8
    steps = [
        (gain.size if mask is None else mask.sum()) / jnp.maximum(start.sum(), 1)
        for gain, mask, start in zip(gains, masks, starts, strict=True)
    ]
    weights = Weights(
        cross * 0.5 * steps[1] / steps[0], mixed * (steps[2] / steps[0] if len(steps) > 2 else 0.0)
    )
    return [gain / spread for gain in centered], weights


def _mean(values: Array, mask: Array | None) -> Array:
    if mask is None:
        return values.mean()
    return (values * mask).sum() / jnp.maximum(mask.sum(), 1.0)


def xp_min_loss(trainer: XPMin, learned: Any, part: Any, weights: Weights) -> tuple[Array, dict[str, Array]]:
    """Return one member's loss on a minibatch, and its terms.

    loss = Lp(sp, A) + lX Lp(xp, -A) + lMP Lp(mp, A) + lMI CE(z) - ent Entropy. The cross-play advantage is
    negated before the clipping; entropy and CE count once, over the union of self-play and cross-play.

    Args:
        trainer: Shapes and settings.
        learned: {"actor", "classifier"} of the member.
        part: From the batch: kinds of play, each (observations, actions, old, latents, starts, advantages,
            mask), and their memories.
        weights: lX and lMP.
    """
    sequences, hidden = part
    both = [
        jnp.concatenate([a, b], axis=1) for a, b in zip(sequences[0][:-1], sequences[1][:-1], strict=True)
    ]
    logits, ratio = replay(
        trainer.actor, learned["actor"], (tuple(both), jnp.concatenate(hidden[:2], axis=0))
    )
    n, clip = sequences[0][0].shape[1], trainer.ppo.clip
    own = policy_loss(ratio[:, :n], sequences[0][-2], clip)
    cross = policy_loss(ratio[:, n:], -sequences[1][-2], clip)
    disorder = entropy(logits).mean()
    loss = own + weights.cross * cross - trainer.ppo.entropy_weight * disorder
    terms = {"policy_loss": own, "cross_loss": cross, "entropy": disorder}
    if trainer.actor.n_latents:
        terms["latent_loss"] = latent_loss(trainer, learned["classifier"], both[0], logits, both[3])
        loss = loss + trainer.mi_weight * terms["latent_loss"]
    if len(sequences) > 2:
        _, mixed_ratio = replay(trainer.actor, learned["actor"], (sequences[2][:-1], hidden[2]))
        terms["mixed_loss"] = policy_loss(mixed_ratio, sequences[2][-2], clip, sequences[2][-1])
        loss = loss + weights.mixed * terms["mixed_loss"]
    return loss, terms


def latent_loss(trainer: XPMin, classifier: Any, observations: Array, logits: Array, latents: Array) -> Array:
    """Return the mean of -log q(z | o, seat, pi(. | o, z)), through which the policy is moved as well."""
    seats = jnp.broadcast_to(jnp.eye(N_SEATS), (*observations.shape[:-1], N_SEATS))
    inputs = jnp.concatenate([observations, seats, jax.nn.softmax(logits)], axis=-1)
    network = trainer.classifier
    guesses, _ = network.step(classifier, inputs, network.initial_memory(*inputs.shape[:-1]))
    chosen = latents[..., None] == jnp.arange(trainer.actor.n_latents)
    return -(jax.nn.log_softmax(guesses) * chosen).sum(axis=-1).mean()
