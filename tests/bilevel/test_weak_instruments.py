import math

import numpy as np
import pytest
from scipy import stats

from metier.bilevel.estimators.moments import Moments, over_identification, two_stage_least_squares
from metier.bilevel.estimators.weak_instruments import anderson_rubin_set, anderson_rubin_test
from metier.core import InputError


def draw(seed=0, n=300, k=3, strength=0.4, beta=1.5, clusters=None, d=1):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k))
    u = rng.normal(size=n)
    t = strength * z @ rng.normal(size=(k, d)) + u[:, None] + rng.normal(size=(n, d))
    y = t.sum(axis=1) * beta + u + rng.normal(size=n) * (1 + 0.5 * np.abs(z[:, 0]))
    groups = None if clusters is None else np.arange(n) % clusters
    columns = (y - y.mean(), t - t.mean(axis=0), z - z.mean(axis=0))
    weights = rng.uniform(0.5, 1.5, size=n)
    return Moments(*columns, weights / weights.mean(), groups)


def slow_statistic(m, b):
    """Sum of z e over rows or clusters, written as loops."""
    k, n = m.z.shape[1], len(m.y)
    labels = np.arange(n) if m.groups is None else m.groups
    sums = [np.zeros(k) for _ in range(labels.max() + 1)]
    for i in range(n):
        sums[labels[i]] += m.weights[i] * m.z[i] * (m.y[i] - b * m.t[i, 0])
    v = sum(np.outer(s, s) for s in sums)
    v = v if m.groups is None else len(sums) / (len(sums) - 1) * v
    g = sum(sums)
    return g @ np.linalg.inv(v) @ g


@pytest.mark.parametrize("clusters", [None, 40])
@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("strength", [0.0, 0.05, 0.5])
def test_the_exact_set_should_agree_with_a_grid(clusters, k, strength):
    m = draw(seed=k, k=k, strength=strength, clusters=clusters)
    found = anderson_rubin_set(m, level=0.9)
    critical = stats.chi2.ppf(0.9, k)
    fit = two_stage_least_squares(m)
    grid = fit.coef[0] + fit.stderr[0] * np.concatenate([np.linspace(-8, 8, 161), [-300.0, 300.0]])
    assert [found.contains(b) for b in grid] == [slow_statistic(m, b) <= critical for b in grid]


def test_the_sets_ends_should_be_where_the_test_changes_its_mind():
    m = draw(seed=3, k=4, strength=0.5, n=500)
    ((low, high),) = anderson_rubin_set(m, level=0.95).intervals
    for end in (low, high):
        assert anderson_rubin_test(m, [end]).p_value == pytest.approx(0.05, abs=1e-8)


def test_useless_instruments_should_leave_the_set_unbounded():
    bounded = [anderson_rubin_set(draw(seed=s, k=1, strength=0.0)).is_bounded for s in range(40)]
    # Dufour (1997): a set of level 0.95 must be unbounded with probability 0.95 where nothing is identified.
    # P(more than 6 of 40 bounded) = 0.003.
    assert sum(bounded) <= 6


def test_the_set_should_cover_whatever_the_strength():
    hits = [
        anderson_rubin_set(draw(seed=s, k=2, strength=0.08, beta=1.5), level=0.9).contains(1.5)
        for s in range(600)
    ]
    # Exact 99.9 % binomial band around 0.90 for 600 draws, widened by 0.01 for the finite-sample chi-squared.
    assert 0.85 <= np.mean(hits) <= 0.95


def test_set_should_say_in_words_what_it_is():
    strong = anderson_rubin_set(draw(strength=1.0, n=2000)).summary()
    assert strong.startswith("[1.")
    weak = [anderson_rubin_set(draw(seed=s, k=1, strength=0.0)) for s in range(40)]
    words = {found.summary().split(":")[0] for found in weak if found.intervals == ((-math.inf, math.inf),)}
    assert words == {"the whole line"}
    rays = [found for found in weak if len(found.intervals) == 2]
    assert all(" or " in found.summary() and not found.is_bounded for found in rays)
    assert rays
    assert rays[0].to_dict()["intervals"][0][0] is None


def test_instruments_that_disagree_badly_should_leave_nothing():
    m = draw(seed=1, k=3, strength=1.0, n=4000)
    wrong = Moments(m.y + 3.0 * m.z[:, 0] - 3.0 * m.z[:, 1], m.t, m.z, m.weights)
    assert anderson_rubin_set(wrong).intervals == ()
    assert anderson_rubin_set(wrong).summary().startswith("empty")
    assert over_identification(wrong).p_value < 1e-10


def test_several_coefficients_should_be_tested_jointly():
    m = draw(seed=5, k=4, d=2, n=4000, strength=1.0)
    with pytest.raises(InputError, match="one coefficient: expected one feature"):
        anderson_rubin_set(m)
    with pytest.raises(InputError, match="one entry per feature"):
        anderson_rubin_test(m, [1.0])
    assert anderson_rubin_test(m, [1.5, 1.5]).p_value > 0.001
    assert anderson_rubin_test(m, [0.0, 3.0]).p_value < 0.001


def test_j_should_be_none_without_an_instrument_to_spare():
    assert over_identification(draw(k=1)) is None


def test_j_should_have_its_size():
    rejected = [over_identification(draw(seed=s, k=3, strength=0.6)).p_value < 0.1 for s in range(500)]
    # Exact 99.9 % binomial band around 0.10 for 500 draws: 0.058 to 0.148.
    assert 0.055 <= np.mean(rejected) <= 0.15


@pytest.mark.parametrize("unit", [1e-9, 1e-4, 1e6, 1e12])
@pytest.mark.parametrize("k", [1, 4])
def test_the_set_should_not_depend_on_units(unit, k):
    m = draw(seed=3, k=k, strength=0.5, n=500)
    ((low, high),) = anderson_rubin_set(m).intervals
    of_outcome = anderson_rubin_set(Moments(m.y * unit, m.t, m.z, m.weights))
    of_treatment = anderson_rubin_set(Moments(m.y, m.t * unit, m.z / unit, m.weights))
    np.testing.assert_allclose(np.array(of_outcome.intervals[0]) / unit, [low, high], rtol=1e-6)
    np.testing.assert_allclose(np.array(of_treatment.intervals[0]) * unit, [low, high], rtol=1e-6)
