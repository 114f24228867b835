"""Networks: the fast product and the fast ELU, in value and gradient, beside JAX's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metier.partners.training.networks import Network, elu, product


@pytest.mark.parametrize(("n_in", "n_out"), [(5, 3), (3, 5)])
def test_product_should_equal_matmul_in_value_and_gradient(n_in, n_out):
    """Both orders of the copy, plain and with a member axis."""
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], (2, 7, 3, n_in))
    weights = jax.random.normal(keys[1], (2, n_in, n_out))
    slope = jax.random.normal(keys[2], (2, 7, 3, n_out))

    def both(fn):
        def member(inputs, weights, slope):
            value, back = jax.vjp(fn, inputs, weights)
            return value, *back(slope)

        return jax.jit(jax.vmap(member))(inputs, weights, slope), jax.jit(member)(
            inputs[0], weights[0], slope[0]
        )

    for ours, plain in zip(jax.tree.leaves(both(product)), jax.tree.leaves(both(jnp.matmul)), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


def test_elu_should_equal_the_exact_one_in_value_and_slope():
    x = np.concatenate([np.linspace(-90.0, 5.0, 400), [-1e-4, 0.0, 1e-4]])
    exact = np.where(x > 0, x, np.expm1(np.minimum(x, 0.0)))
    np.testing.assert_allclose(elu(jnp.asarray(x, jnp.float32)), exact, atol=2e-7, rtol=2e-7)
    slopes = jax.vmap(jax.grad(elu))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(slopes, np.where(x >= 0, 1.0, np.exp(np.minimum(x, 0.0))), atol=2e-7)


@pytest.mark.parametrize("n_steps", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_unroll_should_equal_steps_in_value_and_gradient(n_steps):
    """A GRU over a chunk with cleared memories, against the same network step by step."""
    network = Network(3, 2, hidden=(4,), gru_units=5)
    params = jax.tree.map(lambda leaf: 2.0 * leaf + 0.1, jax.jit(network.init)(jax.random.key(0)))
    inputs = np.random.default_rng(1).normal(size=(n_steps, 4, 3)).astype(np.float32)
    memory = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    starts = np.random.default_rng(3).uniform(size=(n_steps, 4)) < 0.4
    assert n_steps == 1 or (starts[1:].any(axis=1).all() and not starts[1:].all())
    weigh = np.random.default_rng(4).normal(size=(n_steps, 4, 2)).astype(np.float32)

    def unrolled(params, inputs, memory):
        outputs, last = network.unroll(params, inputs, memory, starts)
        return (outputs * weigh).sum() + (last**2).sum()

    def stepped(params, inputs, memory):
        total = 0.0
        for t in range(n_steps):
            memory = jnp.where(starts[t][:, None], 0.0, memory)
            outputs, memory = network.step(params, inputs[t], memory)
            total += (outputs * weigh[t]).sum()
        return total + (memory**2).sum()

    got, want = (
        jax.jit(jax.value_and_grad(fn, argnums=(0, 1, 2)))(params, inputs, memory)
        for fn in (unrolled, stepped)
    )
    for ours, plain in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=2e-5, atol=2e-5)
