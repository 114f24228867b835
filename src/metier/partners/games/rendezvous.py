"""Rendezvous: two point masses meet at one of four landmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from metier.core import one_of, positive_int

from .game import Step

ACCELERATION = 5.0
DAMPING = 0.25
SECONDS = 0.1
FORCES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.float32)
LAYOUTS = ("easy", "hard")


class RendezvousState(NamedTuple):
    """Positions and velocities, each float32 of shape (2, 2) (player, axis), and the step, int32."""

    position: Array
    velocity: Array
    time: Array


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Two point masses earn 1 - |centroid - nearest landmark| - |own position - centroid| at every step.

    Actions are no force, left, right, down, up. The behaviour is the landmark nearest to the centroid at the
    end, so every episode has one.

    Args:
        layout: "easy" (starts at (±0.3, 0), four landmarks on a circle of radius 2.25) or "hard" (starts at
            (±1, 0), landmarks at (0, ±2.25) and (0, ±0.75)).
        horizon: Steps of an episode.

    Raises:
        InputError: An unknown layout.

    Example:
        >>> game = Rendezvous()
        >>> game.observe(game.reset(None)).shape
        (2, 14)

    Source: Charakorn et al., NeurIPS 2024; the dynamics are those of multi-agent particle environments.
    """

    layout: str = "easy"
    horizon: int = 50

    def __post_init__(self) -> None:
        one_of("layout", self.layout, LAYOUTS)
        positive_int("horizon", self.horizon)

    @property
    def name(self) -> str:
        """One word."""
        return "rendezvous"

    @property
    def n_actions(self) -> int:
        """Nothing and four directions."""
        return len(FORCES)

    @property
    def observation_size(self) -> int:
        """Own velocity and position, four landmarks and the partner relative to oneself."""
        return 14

    @property
    def behaviours(self) -> tuple[str, ...]:
        """The landmarks."""
        return tuple(f"landmark {index}" for index in range(4))

    @property
    def landmarks(self) -> np.ndarray:
        """Positions of the landmarks, float32, shape (4, 2)."""
        if self.layout == "hard":
            return np.array([[0, 2.25], [0, -2.25], [0, 0.75], [0, -0.75]], np.float32)
        angles = np.pi / 4 + np.pi / 2 * np.arange(4)
        return (2.25 * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)

    @property
    def starts(self) -> np.ndarray:
        """Where the players start, float32, shape (2, 2)."""
        return np.array([[-1, 0], [1, 0]], np.float32) * (1.0 if self.layout == "hard" else 0.3)

    def reset(self, key: Array | None) -> RendezvousState:
        """Return the start; `key` is not used."""
        return RendezvousState(
            jnp.asarray(self.starts, jnp.float32), jnp.zeros((2, 2), jnp.float32), jnp.array(0, jnp.int32)
        )

    def observe(self, state: RendezvousState) -> Array:
        """Return what both players see, shape (2, 14)."""
        marks = (jnp.asarray(self.landmarks)[None] - state.position[:, None]).reshape(2, 8)
        partner = state.position[::-1] - state.position
        return jnp.concatenate([state.velocity, state.position, marks, partner], axis=1)

    def step(self, state: RendezvousState, actions: Array) -> Step:
        """Let both push."""
        force = ACCELERATION * jnp.asarray(FORCES)[jnp.asarray(actions)]
        velocity = state.velocity * (1.0 - DAMPING) + force * SECONDS
        after = RendezvousState(state.position + velocity * SECONDS, velocity, state.time + 1)
        centroid = after.position.mean(axis=0)
        nearest = jnp.linalg.norm(jnp.asarray(self.landmarks) - centroid, axis=1).min()
        # Two players are equally far from their centroid, so one distance serves both.
        reward = 1.0 - nearest - jnp.linalg.norm(after.position[0] - centroid)
        return Step(after, reward.astype(jnp.float32), jnp.array(False), after.time >= self.horizon)

    def behaviour(self, state: RendezvousState) -> Array:
        """Return the landmark nearest to the centroid."""
        centroid = state.position.mean(axis=0)
        return jnp.argmin(jnp.linalg.norm(jnp.asarray(self.landmarks) - centroid, axis=1)).astype(jnp.int32)
