"""Networks as plain pytrees: an MLP, or a GRU behind a dense layer, with orthogonal weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metier.core import positive_int


@dataclass(frozen=True, slots=True)
class Network:
    """The shape of a network; its parameters live apart, in a dict of arrays.

    ELU layers of the sizes `hidden`, then, if `gru_units` is not 0, a gated recurrent unit, then a linear
    head. Inputs and memories take any leading dimensions.

    Args:
        n_inputs: Floats that come in.
        n_outputs: Floats that go out.
        hidden: Sizes of the dense layers.
        gru_units: Units of the GRU between the dense layers and the head; 0 for no memory.
        head_scale: Gain of the head's orthogonal weights: 0.01 for actors, 1 for critics.

    Example:
        >>> network = Network(3, 2, hidden=(4,), gru_units=5)
        >>> params = network.init(jax.random.key(0))
        >>> outputs, memory = network.step(params, jnp.ones((7, 3)), network.initial_memory(7))
        >>> outputs.shape, memory.shape
        ((7, 2), (7, 5))
    """

    n_inputs: int
    n_outputs: int
    hidden: tuple[int, ...] = (64, 64)
    gru_units: int = 0
    head_scale: float = 0.01

    def __post_init__(self) -> None:
        for name, size in (("n_inputs", self.n_inputs), ("n_outputs", self.n_outputs)):
            positive_int(name, size)
        for size in self.hidden:
            positive_int("hidden", size)
        positive_int("gru_units", self.gru_units, minimum=0)

    @property
    def is_recurrent(self) -> bool:
        """Whether there is a memory."""
        return self.gru_units > 0

    def init(self, key: Array) -> dict[str, Any]:
        """Return fresh parameters: orthogonal weights (gain sqrt 2 in hidden layers), zero biases."""
        keys = iter(jax.random.split(key, len(self.hidden) + 3))
        params: dict[str, Any] = {}
        size = self.n_inputs
        for index, width in enumerate(self.hidden):
            params[f"dense{index}"] = _linear(next(keys), size, width, np.sqrt(2.0))
            size = width
        if self.is_recurrent:
            units = self.gru_units
            params["gru_input"] = _linear(next(keys), size, 3 * units, 1.0)
            # Each gate's own matrix is orthogonal, as is usual.
            gates = jax.vmap(lambda k: _orthogonal(k, units, units, 1.0))(jax.random.split(next(keys), 3))
            params["gru_memory"] = {"w": jnp.concatenate(list(gates), axis=1), "b": jnp.zeros(3 * units)}
            size = units
        params["head"] = _linear(next(keys), size, self.n_outputs, self.head_scale)
        return params

    def initial_memory(self, *shape: int) -> Array:
        """Return cleared memories, zeros of shape (*shape, gru_units)."""
        return jnp.zeros((*shape, self.gru_units))

    def step(self, params: dict[str, Any], inputs: Array, memory: Array) -> tuple[Array, Array]:
        """Return (outputs, next memory) of one step.

        Args:
            params: Parameters from `init`.
            inputs: float32, shape (..., n_inputs).
            memory: float32, shape (..., gru_units).
        """
        features = self._embed(params, inputs)
        if self.is_recurrent:
            memory = _gru(params, _apply(params["gru_input"], features), memory)
            features = memory
        return _apply(params["head"], features), memory

    def unroll(
        self, params: dict[str, Any], inputs: Array, memory: Array, starts: Array
    ) -> tuple[Array, Array]:
        """Return (outputs of all steps, last memory): what `step` gives, step after step.

        Args:
            params: Parameters from `init`.
            inputs: float32, shape (steps, ..., n_inputs).
            memory: The memory before the first step, shape (..., gru_units).
            starts: bool, shape (steps, ...) or broadcast to it: the memory is cleared *before* these steps.
        """
        features = self._embed(params, inputs)
        if self.is_recurrent:
            gates = _apply(params["gru_input"], features)
            clears = jnp.broadcast_to(starts, gates.shape[:-1])[..., None]

            def one(memory: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
                gate, clear = step
                memory = _gru(params, gate, jnp.where(clear, 0.0, memory))
                return memory, memory

            memory, features = jax.lax.scan(one, memory, (gates, clears))
        return _apply(params["head"], features), memory

    def _embed(self, params: dict[str, Any], inputs: Array) -> Array:
        for index in range(len(self.hidden)):
            inputs = jax.nn.elu(_apply(params[f"dense{index}"], inputs))
        return inputs


def _gru(params: dict[str, Any], gates: Array, memory: Array) -> Array:
    from_memory = _apply(params["gru_memory"], memory)
    reset_in, update_in, new_in = jnp.split(gates, 3, axis=-1)
    reset_memory, update_memory, new_memory = jnp.split(from_memory, 3, axis=-1)
    reset = jax.nn.sigmoid(reset_in + reset_memory)
    update = jax.nn.sigmoid(update_in + update_memory)
    return (1.0 - update) * jnp.tanh(new_in + reset * new_memory) + update * memory


def _apply(layer: dict[str, Array], inputs: Array) -> Array:
    return inputs @ layer["w"] + layer["b"]


def _linear(key: Array, n_in: int, n_out: int, gain: float) -> dict[str, Array]:
    return {"w": _orthogonal(key, n_in, n_out, gain), "b": jnp.zeros(n_out)}


def _orthogonal(key: Array, n_in: int, n_out: int, gain: float) -> Array:
    return jax.nn.initializers.orthogonal(gain)(key, (n_in, n_out), jnp.float32)
