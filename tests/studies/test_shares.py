"""Shares, means and ratios over seeds against SciPy and plain formulas."""

import numpy as np
import pytest
from scipy import stats

from metier.core import Estimate, InputError
from metier.records import Claim, Measured, estimate_of
from metier_studies.lib.claims import claim
from metier_studies.lib.shares import clopper_pearson, mean, ratio, share

SENTENCES = {
    "id": "a",
    "statement": "A.",
    "source": "ours",
    "minimum_effect": "some",
    "command": "metier list",
}


def judged(measured, **limits) -> Claim:
    return claim(measured, **limits, **SENTENCES)


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


@pytest.mark.parametrize(("values", "needed"), [([2.5], 2), ([2.5] * 2, 6), ([2.5] * 5, 6)])
def test_few_seeds_should_decide_nothing(values, needed):
    found = mean(values)
    assert (found.value, found.low, found.high, found.level) == (2.5, None, None, None)
    for measured in (found, Estimate.from_values(values, unit="seeds")):
        told = judged(measured, at_least=0.0)
        assert (told.verdict, told.needed, told.needed_unit) == ("undecided", needed, "seeds")
    assert judged(mean([2.5] * 6), at_least=0.0).verdict == "holds"


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
    found = Measured(value=(low + high) / 2, low=low, high=high, level=0.95, n=40, unit="seeds")
    assert (judged(found, at_least=0.0).verdict, judged(found, at_most=0.0).verdict) == (above, below)
    between = judged(found, at_least=low - 0.1, at_most=high + 0.1)
    assert between.verdict == "holds", "to lie between two limits is what the claim says"


def test_a_record_should_give_its_estimate_back():
    rng = np.random.default_rng(4)
    for made in (mean(rng.normal(size=9).tolist()), share([True] * 7 + [False] * 2)):
        again = estimate_of(made)
        assert again.interval == pytest.approx((made.low, made.high), abs=1e-12)
        assert (again.value, again.n, again.unit) == (made.value, made.n, made.unit)
    assert estimate_of(Measured(value=2.0)).n == 0


def test_needed_panels_should_decide_a_share_with_eight_in_ten():
    found = judged(share([True] * 16 + [False] * 4), at_least=0.6)
    assert found.verdict == "undecided"
    chances = stats.binom.pmf(np.arange(found.needed + 1), found.needed, 0.8)
    flags = [[True] * k + [False] * (found.needed - k) for k in range(found.needed + 1)]
    held = [judged(share(own), at_least=0.6).verdict == "holds" for own in flags]
    assert chances[held].sum() >= 0.8


def test_a_claim_that_this_run_cannot_decide_should_say_why():
    found = judged(mean([1.0, 1.1, 0.9]), at_least=0.0, unless="not the authors' sizes", reason="and more")
    assert (found.verdict, found.needed, found.reason) == (
        "undecided",
        None,
        "not the authors' sizes; and more",
    )


def test_needed_should_be_none_where_no_number_of_panels_decides():
    assert judged(share([True, False]), at_least=0.5).needed is None
    assert judged(mean([-1.0, 1.0, 0.0, 2.0, -2.0]), at_least=0.0).needed is None
