"""Diversity, specialization and information: identities, bias, coverage, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from metier.core import InputError, entropy
from metier.partners import behaviour_counts, behaviour_information, capacity_weights
from metier.partners.measures.capacity import ascend, divergences
from metier.partners.measures.sampling import curvature_variances
from metier.partners.measures.table import behaviour_table

EXACT = 1e-12


@st.composite
def populations(draw, most=5):
    n, x = draw(st.integers(1, most)), draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p = rng.dirichlet(np.full(x, draw(st.sampled_from([0.1, 1.0, 5.0]))), size=n)
    return p, rng.dirichlet(np.ones(n))


def triple(p, w=None):
    result = behaviour_information(p, weights=w)
    return np.array([result.diversity, result.specialization, result.information])


@given(populations())
def test_identity_and_bounds_should_hold(population):
    p, w = population
    d, s, i = triple(p, w)
    assert abs(d + s - i) <= EXACT
    assert -EXACT <= -s <= d + EXACT
    assert d <= np.log(p.shape[1]) + EXACT
    assert -EXACT <= i <= min(entropy(w), np.log(p.shape[1])) + EXACT


@given(populations(), st.integers(0, 2**32 - 1))
def test_copies_and_names_should_not_matter(population, seed):
    p, w = population
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(p)), rng.permutation(p.shape[1])
    np.testing.assert_allclose(triple(p[rows][:, columns], w[rows]), triple(p, w), atol=EXACT)
    np.testing.assert_allclose(triple(np.vstack([p, p]), np.r_[w, w] / 2), triple(p, w), atol=EXACT)


@given(populations())
def test_partners_that_behave_alike_should_carry_no_information(population):
    p, w = population
    d, s, i = triple(np.broadcast_to(w @ p, p.shape), w)
    np.testing.assert_allclose([d, i, s], [triple(p, w)[0], 0.0, -d], atol=EXACT)


@given(populations())
def test_merging_two_partners_should_lower_specialization_by_their_divergence(population):
    p, w = population
    if len(p) < 2 or w[:2].sum() <= 0:
        return
    share = w[:2] / w[:2].sum()
    both = share @ p[:2]
    merged = np.vstack([both, p[2:]])
    divergence = entropy(both) - share @ entropy(p[:2], axis=1)
    before, after = triple(p, w), triple(merged, np.r_[w[:2].sum(), w[2:]])
    assert abs(after[0] - before[0]) <= EXACT
    assert abs(after[1] - (before[1] - w[:2].sum() * divergence)) <= EXACT


@given(populations())
def test_coarser_behaviours_should_tell_less(population):
    p, w = population
    if p.shape[1] < 2:
        return
    coarse = np.column_stack([p[:, 0] + p[:, 1], p[:, 2:]])
    before, after = triple(p, w), triple(coarse, w)
    assert after[0] <= before[0] + EXACT
    assert after[1] >= before[1] - EXACT
    assert after[2] <= before[2] + EXACT


def test_deterministic_specialists_and_coins_should_have_closed_forms():
    np.testing.assert_allclose(triple(np.eye(5)), [np.log(5), 0, np.log(5)], atol=EXACT)
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=4)
    coin = np.kron(p, [[0.5, 0.5]])
    np.testing.assert_allclose(triple(coin) - triple(p), [np.log(2), -np.log(2), 0], atol=EXACT)


def test_product_populations_should_add():
    """D, S and I of pairs of independent partners add; I obeys the chain rule."""
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet(np.ones(3), size=2), rng.dirichlet(np.ones(4), size=3)
    np.testing.assert_allclose(triple(np.kron(p, q)), triple(p) + triple(q), atol=EXACT)
    joint = rng.dirichlet(np.ones(6), size=4).reshape(4, 2, 3)
    w = rng.dirichlet(np.ones(4))
    first = joint.sum(axis=2)
    whole, part = triple(joint.reshape(4, 6), w)[2], triple(first, w)[2]
    rest = 0.0
    for x in range(2):
        weight = w * first[:, x]
        rest += weight.sum() * triple(joint[:, x] / first[:, x, None], weight / weight.sum())[2]
    assert abs(whole - (part + rest)) <= EXACT


def test_failures_should_follow_the_identity():
    """H = h(q) + (1 - q) H(X | success)."""
    rng = np.random.default_rng(2)
    p, q = rng.dirichlet(np.ones(3), size=4), rng.uniform(size=4)
    failing = behaviour_information(p, failures=q, undefined="fail")
    own = entropy(np.column_stack([q, 1 - q]), axis=1) + (1 - q) * entropy(p, axis=1)
    assert abs(failing.specialization + own.mean()) <= EXACT
    dropped = behaviour_information(p, failures=q, undefined="drop")
    np.testing.assert_allclose(dropped.information, triple(p)[2], atol=EXACT)


def test_dropped_failures_should_not_weight_partners_by_success():
    """The paper averages partners, not episodes: a partner that rarely succeeds counts as much."""
    rare = behaviour_information(
        counts=[[100, 0], [0, 2]], failures=[0, 98], correction="none", permutations=1
    )
    assert rare.diversity == pytest.approx(np.log(2))


SIMULATED = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.15, 0.15, 0.7], [0.1, 0.6, 0.3]])


def simulated(n, replicates, seed, **options):
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n, SIMULATED, size=(replicates, len(SIMULATED)))
    return [behaviour_information(counts=c, permutations=1, **options) for c in draws]


def test_bias_should_match_its_formula():
    """1,000 replicates of 200 episodes, within 10 % and three standard errors."""
    truth = triple(SIMULATED)
    plain = simulated(200, 1_000, 3, correction="none")
    corrected = simulated(200, 1_000, 3)
    for k, name in enumerate(("diversity", "specialization", "information")):
        values = np.array([getattr(r, name) for r in plain])
        formula = np.mean([r.bias[name] for r in corrected])
        bias, se = values.mean() - truth[k], values.std(ddof=1) / np.sqrt(1_000)
        assert abs(bias - formula) <= 0.1 * abs(formula) + 3 * se
        left = np.array([getattr(r, name) for r in corrected]).mean() - truth[k]
        assert abs(left) <= 3 * se
    # The formulas are not idle: uncorrected S and I are off by many standard errors.
    assert min(r.bias["information"] for r in corrected) > 0.003


def test_intervals_should_cover():
    """I is about 0.14 nats; coverage of 92 to 98 %, 4 standard errors of 1,000 replicates."""
    truth = triple(SIMULATED)[2]
    assert truth > 0.1
    results = simulated(200, 1_000, 4)
    inside = [abs(r.information - truth) <= 1.96 * r.stderr["information"] for r in results]
    assert 0.92 <= np.mean(inside) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    "p",
    [SIMULATED, [[0.92, 0.08], [0.1, 0.9], [0.49, 0.51]], [[0.5, 0.3, 0.2]] * 3],
    ids=["apart", "even", "null"],
)
def test_no_interval_should_cover_too_little(p):
    """Also where the slope of D or I vanishes; 1,000 replicates: 91.5 % is 5 standard errors below 95."""
    p = np.array(p)
    truth = triple(p)
    results = [
        behaviour_information(counts=c, permutations=1)
        for c in np.random.default_rng(6).multinomial(200, p, size=(1_000, len(p)))
    ]
    for k, name in enumerate(("diversity", "specialization", "information")):
        inside = [abs(getattr(r, name) - truth[k]) <= 1.96 * r.stderr[name] for r in results]
        assert np.mean(inside) >= 0.915


@given(populations(), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_second_order_variances_should_equal_the_whole_matrices(population, seed):
    """tr((B C)^2) / 2 with B and C over all partners and behaviours at once."""
    p, w = population
    counts = np.random.default_rng(seed).multinomial(30, np.maximum(p, 0) / p.sum(axis=1, keepdims=True))
    table = behaviour_table(None, counts, failures=None, weights=w, undefined="drop")
    p, m = table.probabilities, table.mixture
    n, k = p.shape
    covariance, own, shared = np.zeros((3, n, k, n, k))
    inverse = lambda x: np.diag(np.divide(1.0, x, out=np.zeros(k), where=x > 0))  # noqa: E731
    for i in range(n):
        covariance[i, :, i] = (np.diag(p[i]) - np.outer(p[i], p[i])) / 30
        own[i, :, i] = w[i] * inverse(p[i])
        for j in range(n):
            shared[i, :, j] = -w[i] * w[j] * inverse(m)
    found = curvature_variances(table)
    for name, second in (("diversity", shared), ("specialization", own), ("information", own + shared)):
        product = second.reshape(n * k, -1) @ covariance.reshape(n * k, -1)
        assert abs(found[name] - np.trace(product @ product) / 2) <= 1e-12


def test_p_value_should_be_uniform_where_partners_behave_alike():
    """At most 5 % ± 3.9 standard errors of 400 populations are rejected at 5 % (error rate 1e-4)."""
    rng = np.random.default_rng(5)
    draws = rng.multinomial(50, [0.5, 0.3, 0.2], size=(400, 3))
    p = [behaviour_information(counts=c, permutations=199, rng=i).p_value for i, c in enumerate(draws)]
    assert abs(np.mean(np.array(p) <= 0.05) - 0.05) <= 3.9 * np.sqrt(0.05 * 0.95 / 400)
    apart = behaviour_information(counts=[[40, 10], [10, 40]])
    assert apart.p_value == pytest.approx(0.001)


@settings(deadline=None, max_examples=50)
@given(populations())
def test_capacity_should_bound_every_divergence(population):
    """No partner tells more than the capacity, and no weights tell more than these."""
    p, w = population
    best = capacity_weights(p, tolerance=1e-5)
    d = divergences(p, best)
    assert d.max() <= best @ d + 1e-5
    assert best @ d >= triple(p, w)[2] - 1e-5


@pytest.mark.parametrize("seed", range(5))
def test_capacity_should_equalize_divergences_on_its_support(seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(6), size=4)
    w = capacity_weights(p, tolerance=1e-9)
    d = divergences(p, w)
    np.testing.assert_allclose(d[w > 1e-2], w @ d, atol=1e-6)
    assert d.max() <= w @ d + 1e-6


def test_capacity_ascent_should_never_lose_information():
    p = np.random.default_rng(6).dirichlet(np.ones(4), size=5)
    w, last = np.full(5, 0.2), -1.0
    for _ in range(50):
        now = float(w @ divergences(p, w))
        assert now >= last - EXACT
        last = now
        w = ascend(w, divergences(p, w), 1.0)


def test_log_should_be_counted_with_its_failures():
    log = behaviour_counts(["b", "a", "a", "b", "b"], ["x", "y", None, float("nan"), "x"])
    assert log.partners == ("a", "b")
    assert log.counts.tolist() == [[0, 1], [2, 0]]
    assert log.failures.tolist() == [1, 1]
    assert log.capable(0.6).partners == ("b",)
    assert log.information(correction="none").information == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "exactly one of probabilities= and counts=, got neither"),
        ({"probabilities": [[1.0]], "counts": [[1]]}, "got both"),
        ({"probabilities": [[0.5, 0.4]]}, "sum to 1"),
        ({"probabilities": [[1.5, -0.5]]}, "probabilities"),
        ({"counts": np.zeros((0, 3))}, "at least one partner"),
        ({"counts": [[3, -1]]}, "whole numbers of at least 0, got -1 for partner 0"),
        ({"counts": [[3, 10**12], [1, 2]]}, r"at most 1,000,000,000 in all.*got 1e\+12"),
        ({"counts": [[1.5, 1]]}, "got 1.5 for partner 0"),
        ({"counts": [[1, 1], [0, 0]]}, "none for partner 1.*Leave that partner out"),
        ({"counts": [[1, 1]], "weights": [0.5, 0.5]}, "expected 1 weights, got 2"),
        ({"counts": [[1, 1]], "failures": [1, 2]}, "expected 1 entries, got 2"),
        ({"probabilities": [[1.0]], "failures": [1.5]}, "got 1.5 for partner 0"),
        ({"counts": [[1, 1]], "undefined": "ignore"}, "'drop' | 'fail'"),
        ({"counts": [[1, 1]], "correction": "jackknife"}, "miller_madow"),
    ],
)
def test_behaviour_information_should_refuse_what_is_no_table(options, match):
    with pytest.raises(InputError, match=match):
        behaviour_information(**options)
