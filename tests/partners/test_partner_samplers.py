"""Whom to train with: every sampler keeps one contract; the bandit follows returns, capacity behaviour."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from metier.core import InputError
from metier.partners import BanditSampler, CapacitySampler, PartnerSampler, UniformSampler
from metier.partners.measures.capacity import divergences

COUNTS = [[50, 0, 0], [48, 2, 0], [0, 50, 0], [0, 0, 50]]
SAMPLERS = [
    UniformSampler(),
    BanditSampler(),
    BanditSampler(seek="high"),
    CapacitySampler.from_counts(COUNTS),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
@given(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4), st.integers(0, 15))
@settings(max_examples=25, deadline=None)
def test_weights_should_stay_on_the_simplex(sampler, returns, played):
    assert isinstance(sampler, PartnerSampler)
    assert hash(sampler) == hash(sampler)
    episodes = jnp.array([(played >> k) & 1 for k in range(4)])
    state = sampler.update(sampler.start(4), jnp.array(returns, jnp.float32), episodes)
    weights = np.asarray(sampler.weights(state))
    assert weights.min() >= 0.0
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)


def test_samplers_should_run_under_jit():
    sampler = BanditSampler()

    @jax.jit
    def five(state):
        for _ in range(5):
            state = sampler.update(state, jnp.array([3.0, 1.0, 2.0]), jnp.array([4, 4, 4]))
        return sampler.weights(state)

    weights = np.asarray(five(sampler.start(3)))
    assert weights[1] > weights[2] > weights[0]


def test_bandit_should_seek_what_it_is_told():
    state = BanditSampler().update(BanditSampler().start(2), jnp.array([0.0, 5.0]), jnp.array([9, 9]))
    low, high = (np.asarray(BanditSampler(seek=seek).weights(state)) for seek in ("low", "high"))
    np.testing.assert_allclose(low, high[::-1], atol=1e-6)
    assert low[0] > 0.7
    # softmax of standardized means (-1, 1) mixed with a fifth of the uniform weights
    assert low[0] == pytest.approx(0.8 / (1 + np.exp(-2.0)) + 0.1, abs=1e-6)


def test_bandit_should_want_whom_it_never_met():
    sampler = BanditSampler()
    state = sampler.update(sampler.start(3), jnp.array([1.0, 2.0, jnp.nan]), jnp.array([8, 8, 0]))
    weights = np.asarray(sampler.weights(state))
    assert weights[2] == pytest.approx(weights[0])
    assert weights[2] > weights[1]


def test_bandit_should_forget_at_its_rate():
    sampler = BanditSampler(memory=0.5)
    state = sampler.start(2)
    for returns in (jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])):
        state = sampler.update(state, returns, jnp.array([1, 1]))
    np.testing.assert_allclose(state.total / state.episodes, [2 / 3, 1 / 3], atol=1e-6)


def test_capacity_should_share_one_weight_among_copies():
    """Equal divergence wherever there is weight, copies together weigh as one."""
    sampler = CapacitySampler.from_counts([[40, 0, 0], [40, 0, 0], [0, 40, 0], [0, 0, 40]])
    np.testing.assert_allclose(sampler.weights(sampler.start(4)), [1 / 6, 1 / 6, 1 / 3, 1 / 3], atol=1e-3)
    p = np.array(COUNTS) / 50.0
    w = np.array(CapacitySampler.from_counts(COUNTS).fixed)
    kl = divergences(p, w)
    np.testing.assert_allclose(kl[w > 1e-3], kl.max(), atol=1e-3)
    kept = CapacitySampler.from_counts(COUNTS, smallest=0.5)
    assert min(kept.fixed) >= 0.125


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: BanditSampler(seek="worst"), "seek is one of.*got 'worst'"),
        (lambda: BanditSampler(temperature=0.0), "temperature of a bandit.*got 0.0"),
        (lambda: BanditSampler(exploration=float("nan")), "exploration of a bandit.*got nan"),
        (lambda: CapacitySampler((0.5, 0.6)), "lie on the simplex.*got \\(0.5, 0.6\\)"),
        (lambda: CapacitySampler((0.5, 0.5)).start(3), "expected 2 partners, got 3"),
        (lambda: UniformSampler().start(0), "n_partners is a whole number"),
    ],
)
def test_bad_settings_should_be_refused(make, match):
    with pytest.raises(InputError, match=match):
        make()
