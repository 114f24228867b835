"""The verdict: what each rule decides, its error rates at the limit, its power at `needed`, exact ties."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import binom, ttest_1samp

from metier import Estimate, compare_paired, judge
from metier.core import InputError, Reason, derive, holm_levels
from metier.core.estimate import clopper_pearson
from metier.core.power import trials_between, units_between


def at(value, *, stderr=0.1, n=20, **options):
    return Estimate.from_stderr(value, stderr, n=n, dof=n - 1.0, **options)


@pytest.mark.parametrize(
    ("value", "limits", "verdict", "reason"),
    [
        (1.0, {"at_least": 0.5}, "holds", Reason.CLEAR),
        (0.0, {"at_least": 0.5}, "does not hold", Reason.CLEAR),
        (0.6, {"at_least": 0.5}, "undecided", Reason.OPEN),
        (0.5, {"at_least": 0.5}, "undecided", Reason.AT_LIMIT),
        (0.0, {"at_most": 0.5}, "holds", Reason.CLEAR),
        (1.0, {"at_most": 0.5}, "does not hold", Reason.CLEAR),
        (0.6, {"at_most": 0.5}, "undecided", Reason.OPEN),
        (0.6, {"at_least": 0.5, "margin": 0.4}, "equivalent", Reason.INSIDE),
        (0.4, {"at_least": 0.5, "margin": 0.4}, "equivalent", Reason.INSIDE),
        (0.4, {"at_most": 0.5, "margin": 0.4}, "equivalent", Reason.INSIDE),
        (-1.0, {"at_least": 0.5, "margin": 0.4}, "does not hold", Reason.CLEAR),
        (2.0, {"at_least": 0.5, "margin": 0.4}, "holds", Reason.CLEAR),
        (0.0, {"at_least": -0.5, "at_most": 0.5}, "equivalent", Reason.INSIDE),
        (1.0, {"at_least": -0.5, "at_most": 0.5}, "does not hold", Reason.CLEAR),
        (-1.0, {"at_least": -0.5, "at_most": 0.5}, "does not hold", Reason.CLEAR),
        (0.4, {"at_least": -0.5, "at_most": 0.5}, "undecided", Reason.OPEN),
        (-0.4, {"at_least": -0.5, "at_most": 0.5}, "undecided", Reason.OPEN),
    ],
)
def test_each_rule_should_give_its_verdict(value, limits, verdict, reason):
    judged = judge(at(value), **limits)
    assert (judged.verdict, judged.reason) == (verdict, reason)
    assert judged.reason.sentence in judged.summary()
    assert (judged.verdict == "undecided") == (judged.p_value > 0.05)


def test_an_undecided_verdict_should_say_how_many_units_would_decide():
    judged = judge(at(0.6, unit="seeds"), at_least=0.5)
    assert judged.needed == units_between(0.1, math.inf, 0.1 * 20**0.5, dof=lambda m: m - 1.0, alpha=0.025)
    assert f"About {judged.needed:,} seeds would decide it." in judged.summary()
    assert judge(at(0.5), at_least=0.5).needed == math.inf


@pytest.mark.parametrize("value", [0.2, -5.0, 1e9])
@pytest.mark.parametrize("limits", [{"at_least": 0.0}, {"at_most": 0.0}, {"at_least": -1.0, "at_most": 1.0}])
def test_a_single_unit_should_be_undecided(value, limits):
    for measured in (Estimate.from_values([value]), Estimate.from_stderr(value, math.nan, n=1)):
        judged = judge(measured, **limits)
        assert (judged.verdict, judged.reason, judged.needed) == ("undecided", Reason.ONE_UNIT, 2)
    judged = judge(Estimate.from_stderr(value, 1e-6, n=1), **limits)
    assert judged.verdict == "undecided"


def test_equal_values_should_need_as_many_units_as_a_sign_test():
    for n in range(2, 12):
        judged = judge(Estimate.from_values([0.2] * n), at_least=0.1)
        decided = 2.0**-n <= 0.025
        assert (judged.verdict == "holds") == decided
        assert judged.verdict in ("holds", "undecided")
        if not decided:
            assert (judged.reason, judged.needed) == (Reason.EQUAL_VALUES, 6)
    rounding = Estimate.from_values([0.1 + 0.2, 0.3, 0.3])  # differ in the last bit
    assert judge(rounding, at_least=0.1).reason is Reason.EQUAL_VALUES


def test_equal_differences_over_time_should_count_by_their_degrees_of_freedom():
    few = judge(compare_paired(np.zeros(30), np.ones(30), dependence="time"), at_least=0.0)
    assert (few.verdict, few.reason) == ("undecided", Reason.EQUAL_VALUES)
    again = judge(
        compare_paired(np.zeros(int(few.needed)), np.ones(int(few.needed)), dependence="time"), at_least=0.0
    )
    assert again.verdict == "holds"


def test_exact_values_should_be_judged_without_units():
    for measured in (Estimate.exact(3.0), Estimate.enclosure(2.9, 3.1)):
        held, broken = judge(measured, at_least=2.0), judge(measured, at_most=2.0)
        assert (held.verdict, held.reason, held.needed, held.p_value) == ("holds", Reason.EXACT, 0, 0.0)
        assert (broken.verdict, broken.reason) == ("does not hold", Reason.EXACT)
    assert judge(Estimate.exact(3.0), at_least=3.0).verdict == "holds"
    assert judge(Estimate.exact(3.0), at_most=3.0).verdict == "holds"
    assert judge(Estimate.exact(3.0), at_least=3.0, at_most=3.0).verdict == "equivalent"
    for limit in (3.0, 3.1):
        unsure = judge(Estimate.enclosure(2.9, 3.1), at_least=limit)
        assert (unsure.verdict, unsure.reason, unsure.needed) == ("undecided", Reason.OPEN, math.inf)
    assert judge(Estimate.enclosure(2.9, 3.1), at_least=2.9).verdict == "holds"
    assert judge(Estimate.enclosure(2.9, 3.1), at_most=2.9).verdict == "undecided"


def test_identical_losses_should_be_equivalent():
    for limits in ({"at_least": 0.0}, {"at_most": 0.0}, {"at_least": 0.0, "margin": 0.1}):
        judged = judge(compare_paired([1.0, 2.0], [1.0, 2.0]), **limits)
        assert (judged.verdict, judged.reason, judged.needed) == ("equivalent", Reason.IDENTICAL, math.inf)


def test_identical_losses_beside_the_limit_should_be_an_exact_gain_of_zero():
    same = compare_paired([1.0, 2.0], [1.0, 2.0])
    assert judge(same, at_least=-0.01).verdict == "holds"
    assert judge(same, at_least=0.01).verdict == "does not hold"
    assert judge(same, at_least=-0.01, at_most=0.01).verdict == "equivalent"


@pytest.mark.parametrize(
    ("measured", "limits", "verdict"),
    [
        (Estimate.share(10, 10), {"at_least": 1.0}, "undecided"),
        (Estimate.share(0, 10), {"at_most": 0.0}, "undecided"),
        (Estimate.share(10, 10), {"at_least": 1.0, "at_most": 1.0}, "undecided"),
        (Estimate.resampled(1.0, (1.0, 1.0), n=20), {"at_least": 0.7}, "holds"),
        (Estimate.resampled(1.0, (1.0, 1.0), n=3), {"at_least": 0.7}, "undecided"),
        (Estimate.resampled(1.0, (-math.inf, 0.4), n=20), {"at_least": 0.7}, "does not hold"),
        (Estimate.enclosure(0.5, math.inf), {"at_least": 0.4}, "holds"),
        (compare_paired([1.0, 2.0], [1.0, 2.0]), {"at_least": 0.1, "margin": 0.1}, "equivalent"),
    ],
)
def test_ends_at_the_edge_should_be_read_for_what_they_show(measured, limits, verdict):
    assert judge(measured, **limits).verdict == verdict


@pytest.mark.parametrize("value", [0.1, 0.2, 0.3, 0.7, 1.1])
@pytest.mark.parametrize("n", [6, 7, 10])
def test_equal_values_at_the_limit_should_keep_it_whatever_the_rounding_of_their_mean(value, n):
    measured = Estimate.from_values([value] * n)
    assert judge(measured, at_least=value).verdict == judge(measured, at_most=value).verdict == "holds"


def test_at_the_limit_no_number_of_units_should_be_named():
    at_limit, within = at(0.5), at(0.0, stderr=1.0)
    assert "would decide" not in judge(at_limit, at_least=0.5).summary()
    judged = judge(within, at_least=0.0, margin=0.5)
    assert (judged.reason, math.isfinite(judged.needed)) == (Reason.OPEN, True)


def test_an_asymmetric_interval_that_decides_nothing_should_need_more_units_than_it_has():
    assert judge(Estimate.resampled(0.3, (-0.01, 0.35), n=40), at_least=0.0).needed > 40


def test_shares_of_many_trials_should_be_judged_at_once():
    judged = judge(Estimate.share(5_000_000, 10_000_000), at_least=0.4985)
    assert (judged.verdict, math.isfinite(judged.needed)) == ("holds", True)
    assert judge(Estimate.share(36, 36), at_least=0.9, at_most=1.0).needed == 36


def test_tiny_and_enormous_effects_should_be_answered():
    assert judge(at(1e-200, stderr=1.0, n=5), at_least=0.0).needed == math.inf
    assert judge(at(1e9, stderr=1.0, n=5), at_least=0.0).verdict == "holds"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: judge(3.0, at_least=0.0),
        lambda: judge(at(1.0, stderr=-1.0), at_least=0.0),
        lambda: Estimate.enclosure(3.0, 1.0),
    ],
)
def test_what_is_no_estimate_should_be_refused(wrong):
    with pytest.raises(InputError):
        wrong()


def test_equivalence_should_need_both_sides():
    """A value beyond the far limit is not equivalent, however small its interval."""
    for value in (-3.0, 3.0):
        for limits in ({"at_least": -0.2, "at_most": 0.2}, {"at_least": 0.0, "margin": 0.2}):
            assert judge(at(value, stderr=0.01), **limits).verdict != "equivalent"


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=12), st.floats(-2, 2), st.floats(0.5, 0.99))
def test_the_verdict_should_agree_with_the_t_test(values, limit, level):
    judged = judge(Estimate.from_values(values), at_least=limit, level=level)
    x = np.array(values)
    if x.std() <= 1e-9:
        return
    p_value = float(ttest_1samp(x, limit).pvalue)
    assert judged.p_value == pytest.approx(p_value, abs=1e-9)
    if abs(p_value - (1 - level)) > 1e-9:
        side = "holds" if x.mean() > limit else "does not hold"
        assert judged.verdict == (side if p_value < 1 - level else "undecided")


@given(st.floats(-2, 2), st.floats(0.01, 2), st.integers(2, 40), st.floats(-1, 1), st.floats(0, 0.5))
def test_mirroring_should_exchange_the_limits(value, stderr, n, limit, margin):
    up = judge(at(value, stderr=stderr, n=n), at_least=limit, margin=margin)
    down = judge(at(-value, stderr=stderr, n=n), at_most=-limit, margin=margin)
    assert (up.verdict, up.reason) == (down.verdict, down.reason)
    assert up.p_value == pytest.approx(down.p_value)
    assert up.needed == down.needed


@given(st.integers(2, 60), st.data())
def test_shares_should_be_judged_by_their_exact_interval(n, data):
    count, limit = data.draw(st.integers(0, n)), data.draw(st.floats(0.05, 0.95))
    judged = judge(Estimate.share(count, n), at_least=limit)
    above, below = binom.sf(count - 1, n, limit), binom.cdf(count, n, limit)
    assert judged.p_value == pytest.approx(min(1.0, 2 * min(above, below)), abs=1e-12)
    if min(abs(above - 0.025), abs(below - 0.025)) > 1e-9:
        expected = "holds" if above < 0.025 else "does not hold" if below < 0.025 else "undecided"
        assert judged.verdict == expected
    assert judged.verdict != "undecided" or judged.needed > n


@pytest.mark.parametrize(
    ("share", "low", "high"),
    [(1.0, 0.9, math.inf), (0.3, -math.inf, 0.5), (0.5, 0.3, 0.7), (0.0, -math.inf, 0.1), (0.97, 0.9, 0.995)],
)
def test_trials_needed_should_equal_the_full_sum(share, low, high):
    def power(n):
        ends = [clopper_pearson(count, n, level=0.95) for count in range(n + 1)]
        inside = [count for count, (start, end) in enumerate(ends) if low <= start and end <= high]
        return binom.pmf(inside, n, share).sum()

    needed = trials_between(share, low, high, level=0.95)
    assert power(needed) >= 0.8 - 1e-12
    assert all(power(n) < 0.8 for n in range(2, int(needed)))


def test_a_standard_error_without_degrees_of_freedom_should_get_those_of_its_units():
    assert Estimate.from_stderr(1.0, 0.4, n=3).interval[0] > 0  # normal quantiles would decide
    assert judge(Estimate.from_stderr(1.0, 0.4, n=3), at_least=0.0).verdict == "undecided"


def test_another_level_should_make_the_interval_again():
    wide = judge(at(0.26), at_least=0.0, level=0.99)
    assert wide.interval == pytest.approx(at(0.26, level=0.99).interval)
    assert (judge(at(0.26), at_least=0.0).verdict, wide.verdict) == ("holds", "undecided")
    resampled = Estimate.resampled(0.3, (0.1, 0.9), n=40)
    assert judge(resampled, at_least=0.05).interval == (0.1, 0.9)
    with pytest.raises(InputError, match="another level"):
        judge(resampled, at_least=0.05, level=0.99)


def test_a_value_without_an_interval_should_be_undecided():
    for measured in (Estimate.from_stderr(1.0, math.nan, n=9), Estimate.from_stderr(math.nan, 0.1, n=9)):
        judged = judge(measured, at_least=0.0)
        assert (judged.verdict, judged.reason) == ("undecided", Reason.NO_INTERVAL)


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        ({}, "needs a limit"),
        ({"at_least": math.nan}, "at_least is a limit"),
        ({"at_most": math.inf}, "at_most is a limit"),
        ({"at_least": 1.0, "at_most": 0.0}, "at_least lies below at_most"),
        ({"at_least": 0.0, "at_most": 1.0, "margin": 0.1}, "a margin goes with one limit"),
        ({"at_least": 0.0, "margin": -1.0}, "margin"),
        ({"at_least": 0.0, "level": 95}, "level"),
    ],
)
def test_wrong_questions_should_be_refused(limits, rule):
    with pytest.raises(InputError, match=rule):
        judge(at(1.0), **limits)


def test_holm_levels_should_equal_the_textbook_rule():
    # p-values .01, .02, .04 at a family level of .05: .05/3 = .0167, then .05/2 = .025, then .05.
    from metier.core import Verdict

    def with_p(p_value, n=9):
        return Verdict("holds", Reason.CLEAR, 2, at(0.0, n=n), (0, 0), 0.95, p_value, 0.0, None, 0.0)

    levels = holm_levels([with_p(0.04), with_p(0.01), with_p(0.02)])
    assert [1 - level for level in levels] == pytest.approx([0.05, 0.05 / 3, 0.025])
    stopped = holm_levels([with_p(0.01), with_p(0.03), with_p(0.04)])
    assert [1 - level for level in stopped] == pytest.approx([0.05 / 3, 0.025, 0.025])
    exact = judge(Estimate.exact(1.0), at_least=0.0)
    assert holm_levels([exact, with_p(0.04)]) == [0.95, 0.95]


def test_every_verdict_should_be_plain_json():
    for measured in (at(1.0), Estimate.exact(1.0), Estimate.share(3, 4), Estimate.from_values([1.0])):
        document = judge(measured, at_least=0.0).to_dict()
        assert json.loads(json.dumps(document, allow_nan=False)) == document


# Error rates. Each rate below is compared with its bound plus 4 standard errors of a Monte Carlo share at
# the bound, so that a test of a rule that keeps its rate fails by chance with probability below 4e-5.


def _autoregressive(rng, n, coefficient):
    x = rng.standard_normal(n)
    x[0] /= math.sqrt(1.0 - coefficient**2)
    for step in range(1, n):
        x[step] += coefficient * x[step - 1]
    return x


def _draw(kind, rng, n):
    """Differences with mean zero, and how they depend on each other."""
    if kind == "independent":
        return rng.standard_normal(n), "independent", "ewc"
    if kind == "groups":
        labels = np.repeat(np.arange(n), 4)
        return rng.standard_normal(n)[labels] + rng.standard_normal(labels.size), labels, "ewc"
    if kind == "unequal groups":
        labels = np.repeat(np.arange(n), 1 + np.arange(n) % 5)
        return rng.standard_normal(n)[labels] + rng.standard_normal(labels.size), labels, "ewc"
    return _autoregressive(rng, n, 0.3), "time", kind.removeprefix("time, ")


KINDS = ("independent", "groups", "unequal groups", "time, ewc", "time, hac")


def _holds_at_the_limit(kind, n, repeats, **limits):
    rng = derive(0, "verdict at the limit", kind, n)
    held = 0
    for _ in range(repeats):
        d, dependence, se = _draw(kind, rng, n)
        comparison = compare_paired(np.zeros(d.size), d, dependence=dependence, se=se)
        held += judge(comparison, **limits).verdict in ("holds", "equivalent")
    return held / repeats


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
def test_at_the_limit_at_most_one_in_twenty_should_hold(kind, n):
    repeats = 400
    assert _holds_at_the_limit(kind, n, repeats, at_least=0.0) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / repeats)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
def test_at_the_limit_at_most_one_in_twenty_should_hold_in_many_draws(kind, n):
    repeats = 5_000
    allowed = 0.05 + 4 * math.sqrt(0.05 * 0.95 / repeats)
    assert _holds_at_the_limit(kind, n, repeats, at_least=0.0) <= allowed
    # At one of two limits, "equivalent" is as rare, whichever it is.
    assert _holds_at_the_limit(kind, n, repeats, at_least=0.0, at_most=5.0) <= allowed
    assert _holds_at_the_limit(kind, n, repeats, at_least=-5.0, at_most=0.0) <= allowed


@pytest.mark.parametrize("limit", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("n", [2, 3, 5, 10, 50])
def test_at_the_limit_shares_should_hold_in_at_most_one_draw_of_forty(n, limit):
    chances = binom.pmf(np.arange(n + 1), n, limit)
    held = [judge(Estimate.share(count, n), at_least=limit).verdict == "holds" for count in range(n + 1)]
    assert chances[held].sum() <= 0.025 + 1e-12  # a complete enumeration


@pytest.mark.parametrize(
    ("limits", "effect"),
    [({"at_least": 0.0}, 0.6), ({"at_most": 1.0}, 0.5), ({"at_least": -0.6, "at_most": 0.7}, 0.0)],
)
def test_at_needed_eight_in_ten_should_be_decided(limits, effect):
    """80 % +- 5, with four standard errors of 1,500 draws inside of that on either side of the true power."""
    pilot = derive(1, "pilot").standard_normal(30)
    pilot = effect + (pilot - pilot.mean()) / pilot.std(ddof=1)
    needed = int(judge(Estimate.from_values(pilot), **limits).needed)
    rng = derive(2, "power", needed)
    draws = effect + rng.standard_normal((1_500, needed))
    decided = np.mean([judge(Estimate.from_values(x), **limits).verdict != "undecided" for x in draws])
    assert 0.75 <= decided <= 0.85


@pytest.mark.parametrize(
    ("kind", "method", "unit_sd"),
    [
        ("independent", "independent", 1.0),
        ("groups", "clustered", math.sqrt(1.0 + 1.0 / 4.0)),
        ("time, ewc", "ewc", 1.0 / (1.0 - 0.3)),
    ],
)
def test_at_needed_eight_in_ten_should_be_decided_under_dependence(kind, method, unit_sd):
    """80 % +- 5, from the true standard deviation per unit; four standard errors of 2,000 draws are 3.6 %."""
    effect = 0.3 * unit_sd
    known = Estimate.from_stderr(effect, unit_sd / 20, n=400, dof=399.0, method=method)
    needed = int(judge(known, at_least=0.0).needed)
    rng, held = derive(3, "power", kind), 0
    for _ in range(2_000):
        d, dependence, se = _draw(kind, rng, needed)
        comparison = compare_paired(np.zeros(d.size), effect + d, dependence=dependence, se=se)
        held += judge(comparison, at_least=0.0).verdict == "holds"
    assert 0.75 <= held / 2_000 <= 0.85
