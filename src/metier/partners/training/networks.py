"""Networks as plain pytrees: an MLP, or a GRU behind a dense layer, with orthogonal weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metier.core import InputError, positive_int


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
        if isinstance(self.hidden, list):
            object.__setattr__(self, "hidden", tuple(self.hidden))
        if not isinstance(self.hidden, tuple):
            raise InputError(
                "hidden has one size per dense layer",
                expected="a tuple such as (64, 64)",
                got=repr(self.hidden),
                next_step="Pass hidden=(64,) for one layer.",
            )
        for size in self.hidden:
            positive_int("hidden", size)
        positive_int("gru_units", self.gru_units, minimum=0)

    @property
    def is_recurrent(self) -> bool:
        """Whether there is a memory."""
        return self.gru_units > 0

    def init(self, key: Array) -> dict[str, Any]:
        """Return fresh parameters: orthogonal weights (gain sqrt 2 in hidden layers), zero biases."""
        units, sizes = self.gru_units, (self.n_inputs, *self.hidden)
        shapes = list(itertools.pairwise(sizes))
        if self.is_recurrent:
            # Each gate's own matrix is orthogonal, as is usual.
            shapes += [(sizes[-1], 3 * units), *[(units, units)] * 3]
        shapes.append((units or sizes[-1], self.n_outputs))
        # One draw for all: every further one costs compilation time.
        draws = jax.random.normal(key, (sum(a * b for a, b in shapes),))
        ends = np.cumsum([a * b for a, b in shapes])[:-1]
        weights = [
            _orthogonal(part, *shape) for part, shape in zip(jnp.split(draws, ends), shapes, strict=True)
        ]
        n = len(self.hidden)
        params = {f"dense{k}": _layer(weights[k] * np.sqrt(2.0)) for k in range(n)}
        if self.is_recurrent:
            params["gru_input"] = _layer(weights[n])
            params["gru_memory"] = _layer(jnp.concatenate(weights[n + 1 : n + 4], axis=1))
        params["head"] = _layer(weights[-1] * self.head_scale)
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
            inputs = elu(_apply(params[f"dense{index}"], inputs))
        return inputs


def _gru(params: dict[str, Any], gates: Array, memory: Array) -> Array:
    from_memory = _apply(params["gru_memory"], memory)
    reset_in, update_in, new_in = jnp.split(gates, 3, axis=-1)
    reset_memory, update_memory, new_memory = jnp.split(from_memory, 3, axis=-1)
    reset = jax.nn.sigmoid(reset_in + reset_memory)
    update = jax.nn.sigmoid(update_in + update_memory)
    return (1.0 - update) * jnp.tanh(new_in + reset * new_memory) + update * memory


def elu(inputs: Array) -> Array:
    """Return x where x > 0 and exp(x) - 1 elsewhere, to 6e-8: `jax.nn.elu`'s expm1 takes twice the time."""
    return jnp.maximum(inputs, 0.0) + (jnp.exp(jnp.minimum(inputs, 0.0)) - 1.0)


def _apply(layer: dict[str, Array], inputs: Array) -> Array:
    return product(inputs, layer["w"]) + layer["b"]


@jax.custom_vjp
def product(inputs: Array, weights: Array) -> Array:
    """Return inputs @ weights, shape (..., n_out), with a gradient that is fast on CPU.

    Its gradient for the weights copies the transposed inputs. XLA's own contraction over the rows was seen
    to reach 22 GFlop/s where this reaches 75 (docs/lab_log.md).

    Args:
        inputs: float32, shape (..., n_in).
        weights: float32, shape (n_in, n_out).
    """
    return inputs @ weights


def _product_forward(inputs: Array, weights: Array) -> tuple[Array, tuple[Array, Array]]:
    return inputs @ weights, (inputs, weights)


def _product_backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    inputs, weights = kept
    rows, slopes = inputs.reshape(-1, inputs.shape[-1]), slope.reshape(-1, slope.shape[-1])
    # The narrower side is the cheaper one to copy; without the barriers XLA folds the copy back in.
    keep: Callable[[Array], Array] = jax.lax.optimization_barrier
    if slopes.shape[1] <= rows.shape[1]:
        return slope @ weights.T, keep(keep(slopes.T) @ rows).T
    return slope @ weights.T, keep(rows.T) @ slopes


product.defvjp(_product_forward, _product_backward)


def _layer(weights: Array) -> dict[str, Array]:
    return {"w": weights, "b": jnp.zeros(weights.shape[1])}


def _orthogonal(draws: Array, n_in: int, n_out: int) -> Array:
    """Return a matrix with orthonormal rows or columns, uniform among them, from normal draws.

    The orthogonal polar factor of a normal matrix, by Newton's iteration. A QR decomposition would do as
    well, but a stack of them under `vmap` was seen to wait for ever on CPU.
    """
    tall = draws.reshape(max(n_in, n_out), min(n_in, n_out))

    def newton(_: int, x: Array) -> Array:
        return 1.5 * x - 0.5 * x @ (x.T @ x)

    q: Array = jax.lax.fori_loop(0, 60, newton, tall / jnp.linalg.norm(tall))
    return q if n_in >= n_out else q.T
