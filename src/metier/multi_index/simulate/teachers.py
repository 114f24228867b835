"""Data with a planted answer: one direction, a committee, a hierarchy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import ensure, non_negative, positive_int
from metier.multi_index.activations import Activation

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Teacher:
    """y = sum_k strength_k sigma(<w_k, x>) + sqrt(noise) xi with x ~ N(0, I), |w_k| = 1 nearly.

    Args:
        activation: sigma.
        directions: (n_units, dimension), rows drawn N(0, I/dimension).
        strengths: (n_units,): 1 for one direction, n_units^-1/2 in a committee, k^-decay in a hierarchy.
        noise: variance of the additive noise.
    """

    activation: Activation
    directions: Floats
    strengths: Floats
    noise: float

    @property
    def n_units(self) -> int:
        """Number of planted directions."""
        return int(self.directions.shape[0])

    @property
    def dimension(self) -> int:
        """Dimension of the inputs."""
        return int(self.directions.shape[1])

    def signal(self, inputs: Floats) -> Floats:
        """Return the outputs without noise for inputs (n, dimension)."""
        return np.asarray(self.activation(inputs @ self.directions.T) @ self.strengths)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return n inputs (n, dimension) and outputs (n,)."""
        inputs, noise = rng.standard_normal((n, self.dimension)), rng.standard_normal(n)
        return inputs, self.signal(inputs) + np.sqrt(self.noise) * noise


def plant(
    activation: Activation,
    rng: np.random.Generator,
    *,
    dimension: int,
    n_units: int = 1,
    decay: float | None = None,
    noise: float = 1.0,
) -> Teacher:
    """Draw a teacher: a committee of `n_units`, or a hierarchy k^-decay if `decay` is given.

    Example:
        >>> from metier.multi_index import as_activation
        >>> teacher = plant(as_activation("abs"), np.random.default_rng(0), dimension=50, n_units=4)
        >>> teacher.directions.shape, teacher.strengths.tolist()
        ((4, 50), [0.5, 0.5, 0.5, 0.5])
    """
    size = positive_int("dimension", dimension)
    units = positive_int("n_units", n_units)
    ensure(
        units <= size,
        "a teacher has at most as many units as inputs",
        expected=f"at most {size} units",
        got=f"n_units={units}",
        next_step="Raise dimension.",
    )
    strengths = np.full(units, units**-0.5)
    if decay is not None:
        strengths = np.arange(1, units + 1, dtype=np.float64) ** -non_negative("decay", decay)
    directions = rng.standard_normal((units, size)) / np.sqrt(size)
    return Teacher(
        activation=activation, directions=directions, strengths=strengths, noise=non_negative("noise", noise)
    )
