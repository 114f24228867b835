"""Pairs of members: which play an iteration, what they earn, who is closest to whom, whose data is whose."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from .collect import Chunk


class PairTable(NamedTuple):
    """The n (n - 1) / 2 pairs of n members, first < second.

    Attributes:
        first: Member that sits left in seating 0, shape (pairs,).
        second: Member that sits left in seating 1, shape (pairs,).
        of: Number of the pair of two members, shape (n, n); 0 on the diagonal.
    """

    first: NDArray[np.int32]
    second: NDArray[np.int32]
    of: NDArray[np.int32]


def pair_table(n_members: int) -> PairTable:
    """Return the pairs of `n_members` members.

    Example:
        >>> pair_table(3).of.tolist()
        [[0, 0, 1], [0, 0, 2], [1, 2, 0]]
    """
    first, second = (index.astype(np.int32) for index in np.triu_indices(n_members, 1))
    of = np.zeros((n_members, n_members), np.int32)
    of[first, second] = of[second, first] = np.arange(len(first))
    return PairTable(first, second, of)


def pick_pairs(key: Array, table: PairTable, closest: Array, n_pairs: int) -> Array:
    """Return distinct pairs to play, int32, shape (n_pairs,): every member with its closest, the rest random.

    Args:
        key: For the random ones.
        table: All pairs.
        closest: The closest other member of each, shape (n,).
        n_pairs: At least n, or all there are.
    """
    if n_pairs == len(table.first):
        return jnp.arange(n_pairs)
    must = jnp.asarray(table.of)[jnp.arange(len(closest)), closest]
    urgency = jax.random.uniform(key, (len(table.first),)).at[must].set(2.0)
    return jax.lax.top_k(urgency, n_pairs)[1]


def episode_means(chunk: Chunk, old: Array) -> Array:
    """Return the mean *return* of the episodes that ended, shape (...), or `old` where none did.

    Args:
        chunk: With leading axes (...), then (steps, envs).
        old: shape (...).
    """
    ended = chunk.done.sum(axis=(-2, -1))
    total = chunk.returns.sum(axis=(-2, -1))
    return jnp.where(ended > 0, total / jnp.maximum(ended, 1), old)


def running_success(old: Array, chunk: Chunk) -> Array:
    """Return the running share of episodes that ended with a behaviour, a tenth of it this chunk's.

    Args:
        old: The share so far, a scalar; it stays where no episode ended.
        chunk: Of one member's self-play, axes (steps, envs).
    """
    ended = chunk.done.sum()
    now = (chunk.behaviours >= 0).sum() / jnp.maximum(ended, 1)
    return jnp.where(ended > 0, 0.9 * old + 0.1 * now, old)


def cross_returns(seated: Array, table: PairTable) -> Array:
    """Return J_XP, the mean over both seatings, shape (n, n), minus infinity on the diagonal.

    Args:
        seated: Mean return of each pair in each seating, shape (pairs, 2).
        table: All pairs.
    """
    n = len(table.of)
    returns = seated.mean(axis=-1)[jnp.asarray(table.of)]
    return jnp.where(jnp.eye(n, dtype=bool), -jnp.inf, returns)


def find_closest(seated: Array, table: PairTable, played: Array) -> Array:
    """Return A+, the other member that each earns most with, among the pairs `played`; shape (n,)."""
    known = jnp.zeros(len(table.first), bool).at[played].set(True)[jnp.asarray(table.of)]
    return jnp.argmax(jnp.where(known, cross_returns(seated, table), -jnp.inf), axis=1)


def own_seat(chunk: Chunk, advantage: Array, slot: Array, is_first: Array) -> tuple[Any, Any]:
    """Return one member's data from its games with one other member: (sequences, what they start with).

    Args:
        chunk: Of pairs, leading axes (pairs played, 2 seatings); its `seats` are a pair (left, right).
        advantage: shape (pairs played, 2, steps, envs).
        slot: Which of the pairs played.
        is_first: Whether the member sits left in seating 0.

    Returns:
        Leaves of shape (steps, envs, 2, ...), (envs, 2, ...): on the axis of 2 the member's own seat, the
        games in which it sits left first.
    """
    seatings = [jnp.where(is_first, seat, 1 - seat) for seat in (0, 1)]
    observations = jnp.stack([chunk.observations[slot, s][:, :, k] for k, s in enumerate(seatings)], 2)
    seats = [_at(chunk.seats[k], slot, s) for k, s in enumerate(seatings)]
    starts = jnp.stack([chunk.starts[slot, s] for s in seatings], 2)
    gains = jnp.stack([advantage[slot, s] for s in seatings], 2)
    sequences = (
        observations,
        jnp.stack([seat.actions for seat in seats], 2),
        jnp.stack([seat.log_probs for seat in seats], 2),
        jnp.stack([seat.latents for seat in seats], 2),
        starts,
        gains,
    )
    return sequences, jnp.stack([seat.hidden for seat in seats], 1)


def _at(tree: Any, slot: Array, seating: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[slot, seating], tree)
