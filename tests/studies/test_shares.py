"""Shares, means and ratios over seeds against SciPy and plain formulas."""

import numpy as np
import pytest
from scipy import stats

from metier.core import InputError
from metier.runs import Measured
from metier_studies.lib.shares import (
    clopper_pearson,
    mean,
    ratio,
    seeds_needed,
    share,
    verdict_above,
    verdict_below,
)


@pytest.mark.parametrize(("count", "n"), [(0, 7), (3, 20), (20, 20), (1, 1), (180, 400)])
@pytest.mark.parametrize("level", [0.9, 0.99])
def test_clopper_pearson_should_equal_scipy(count, n, level):
    exact = stats.binomtest(count, n).proportion_ci(level, method="exact")
    assert clopper_pearson(count, n, level=level) == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.parametrize(("count", "n"), [(5, 4), (-1, 4), (0, 0)])
def test_impossible_counts_should_be_refused(count, n):
    with pytest.raises(InputError, match=rf"0 <= count <= n with n of at least 1, got count={count}, n={n}"):
        clopper_pearson(count, n)


def test_share_should_hold_its_exact_interval():
    found = share([True, False, False, False], level=0.9, unit="panels")
    assert found.value == 0.25
    assert (found.low, found.high) == clopper_pearson(1, 4, level=0.9)
    assert (found.n, found.unit, found.level) == (4, "panels", 0.9)


def test_mean_should_equal_the_t_interval_of_scipy():
    x = np.random.default_rng(0).normal(size=12)
    low, high = stats.t.interval(0.95, 11, loc=x.mean(), scale=stats.sem(x))
    found = mean(x.tolist())
    assert (found.value, found.low, found.high) == pytest.approx((x.mean(), low, high), abs=1e-12)


@pytest.mark.parametrize("values", [[2.5], [2.5, 2.5, 2.5, 2.5]])
def test_few_seeds_should_decide_nothing(values):
    found = mean(values)
    assert (found.value, found.low, found.high, found.level) == (2.5, None, None, None)
    assert verdict_above(found, 0.0) == "undecided"
    assert seeds_needed(found, 0.0) == 5
    assert mean([2.5] * 5).low == 2.5


def test_ratio_should_equal_the_delta_method():
    rng = np.random.default_rng(1)
    whole = rng.normal(1.0, 0.1, 30)
    part = 0.8 * whole + rng.normal(0.0, 0.05, 30)
    r = part.mean() / whole.mean()
    (v_part, both), (_, v_whole) = np.cov(part, whole)
    stderr = np.sqrt((v_part - 2 * r * both + r**2 * v_whole) / 30) / whole.mean()
    half = stats.t.ppf(0.975, 29) * stderr
    found = ratio(part.tolist(), whole.tolist())
    assert (found.value, found.low, found.high) == pytest.approx((r, r - half, r + half), abs=1e-12)


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.2, 0.4, "holds", "does not hold"),
        (-0.4, -0.2, "does not hold", "holds"),
        (-0.2, 0.2, "undecided", "undecided"),
    ],
)
def test_verdict_should_follow_the_side_of_the_interval(low, high, above, below):
    found = Measured(value=(low + high) / 2, low=low, high=high, level=0.95)
    assert (verdict_above(found, 0.0), verdict_below(found, 0.0)) == (above, below)


def test_needed_panels_should_decide_a_share():
    open_share = share([False] * 18)
    assert verdict_below(open_share, 0.1) == "undecided"
    needed = seeds_needed(open_share, 0.1)
    assert verdict_below(share([False] * needed), 0.1) == "holds"
    assert verdict_below(share([False] * int(needed / 1.1)), 0.1) == "undecided"


def test_needed_seeds_should_decide_a_mean():
    rng = np.random.default_rng(2)
    open_mean = mean((rng.normal(size=10) * 3 + 0.5).tolist())
    needed = seeds_needed(open_mean, 0.0)
    half = (open_mean.high - open_mean.low) / 2
    assert half * np.sqrt(10 / needed) <= abs(open_mean.value)
    assert half * np.sqrt(10 / (needed - 1)) > abs(open_mean.value)


def test_needed_should_be_none_where_no_number_of_panels_decides():
    assert seeds_needed(share([True, False]), 0.5) is None
    assert seeds_needed(mean([-1.0, 1.0, 0.0, 2.0, -2.0]), 0.0) is None
