"""The cooperative matrix game: many conventions, each a block of actions that fit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from metier.core import InputError

from .game import UNDEFINED, Step


class MatrixState(NamedTuple):
    """Both actions, int32 of shape (2,); -1 before they are played."""

    actions: Array


@dataclass(frozen=True, slots=True)
class MatrixGame:
    """One simultaneous move; the reward is 1 where both actions lie in the same block, 0 elsewhere.

    Args:
        blocks: Actions in each block. The default is CMG-S: 32 blocks of 8 actions; `MatrixGame.uneven()` is
            CMG-H with blocks of 32, 31, ..., 1 actions. The behaviour is the block.

    Raises:
        InputError: No block, or a block without actions.

    Example:
        >>> game = MatrixGame(blocks=(2, 1))
        >>> step = game.step(game.reset(None), jnp.array([0, 1]))
        >>> float(step.reward), int(game.behaviour(step.state))
        (1.0, 0)

    Source: Charakorn et al., NeurIPS 2024, and the one-step games of LIPO.
    """

    blocks: tuple[int, ...] = (8,) * 32

    def __post_init__(self) -> None:
        if not self.blocks or min(self.blocks) < 1:
            raise InputError(
                "a matrix game has blocks of actions",
                expected="at least one block, each with at least one action",
                got=repr(self.blocks),
                next_step="Pass for example blocks=(8,) * 32.",
            )

    @classmethod
    def uneven(cls, n_blocks: int = 32) -> MatrixGame:
        """Return CMG-H: blocks of n_blocks, n_blocks - 1, ..., 1 actions."""
        return cls(blocks=tuple(range(n_blocks, 0, -1)))

    @property
    def name(self) -> str:
        """One word."""
        return "matrix"

    @property
    def n_actions(self) -> int:
        """Actions per player."""
        return sum(self.blocks)

    @property
    def observation_size(self) -> int:
        """Nothing is seen: one constant."""
        return 1

    @property
    def horizon(self) -> int:
        """One move."""
        return 1

    @property
    def behaviours(self) -> tuple[str, ...]:
        """The blocks."""
        return tuple(f"block {index}" for index in range(len(self.blocks)))

    @property
    def block_of(self) -> np.ndarray:
        """The block of each action, int32, shape (n_actions,)."""
        return np.repeat(np.arange(len(self.blocks), dtype=np.int32), self.blocks)

    def reset(self, key: Array | None) -> MatrixState:
        """Return the state before the move; `key` is not used."""
        return MatrixState(jnp.full(2, -1, jnp.int32))

    def observe(self, state: MatrixState) -> Array:
        """Return the constant observation, shape (2, 1)."""
        return jnp.ones((2, 1), jnp.float32)

    def step(self, state: MatrixState, actions: Array) -> Step:
        """Play the move."""
        played = MatrixState(jnp.asarray(actions, jnp.int32))
        reward = (self.behaviour(played) >= 0).astype(jnp.float32)
        return Step(played, reward, jnp.array(True), jnp.array(False))

    def behaviour(self, state: MatrixState) -> Array:
        """Return the common block, -1 where the players missed each other."""
        block = jnp.asarray(self.block_of)[state.actions]
        return jnp.where((block[0] == block[1]) & (state.actions[0] >= 0), block[0], UNDEFINED)

    def exact_behaviours(self, first: Array, second: Array) -> Array:
        """Return P(X = block), shape (blocks,), of two action distributions, each of shape (n_actions,).

        Differentiable; its sum is the expected return J.
        """
        member = jnp.asarray(np.eye(len(self.blocks), dtype=np.float32)[self.block_of])
        return (first @ member) * (second @ member)
