"""Each verdict, its order, the sample size that decides, and the sentence that says it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from metier.core import InputError, compare_paired, derive, specialize_or_fall_back, units_needed


def decide(d, **options):
    """A decision on differences with exactly this mean and shape."""
    return specialize_or_fall_back(np.zeros(len(d)), d, **options)


def exact(mean, sd, n):
    """n differences whose sample mean and standard deviation are exactly these."""
    z = derive(0, "exact", n).standard_normal(n)
    return mean + sd * (z - z.mean()) / z.std(ddof=1)


@pytest.mark.parametrize(
    ("mean", "margin", "verdict", "text"),
    [
        (
            1.0,
            0.0,
            "pays",
            r"^Specializing pays: the mean loss is lower by 1 \(90 % interval 0\.83\d* to 1\.16",
        ),
        (
            -1.0,
            0.0,
            "hurts",
            r"^Specializing hurts, so the generalist stays: the mean loss is higher by 1 \(90 %",
        ),
        (0.05, 0.0, "undecided", r"; about 2,47\d pairs would decide a gain of this size\.$"),
        (0.05, 0.5, "equivalent", r"^No difference beyond the margin of 0\.5, so the generalist stays: "),
        (0.3, 0.5, "equivalent", r"^No difference"),
        (-0.3, 0.5, "equivalent", r"^No difference"),
        (0.5, 0.5, "pays", r"^Specializing pays"),
        (-3.0, 0.2, "hurts", r"^Specializing hurts"),
        (-0.5, 0.5, "hurts", r"^Specializing hurts"),
        (0.15, 0.2, "undecided", r"^Undecided"),
        (-0.15, 0.2, "undecided", r"^Undecided"),
    ],
)
def test_each_verdict(mean, margin, verdict, text):
    decision = decide(exact(mean, 1.0, 100), margin=margin)
    assert decision.verdict == verdict
    assert decision.adopt == (verdict == "pays")
    assert re.search(text, decision.reason)
    assert decision.summary() == decision.reason


def test_identical_losses_are_equivalent_even_without_a_margin():
    decision = decide(np.zeros(5))
    assert (decision.verdict, decision.adopt, decision.p_value, decision.needed) == (
        "equivalent",
        False,
        1.0,
        math.inf,
    )
    assert decision.reason == "Identical losses on all 5 pairs, so the generalist stays."
    assert decision.non_inferior


def test_a_gain_of_exactly_zero_needs_a_margin():
    decision = decide(np.array([1.0, -1.0]))
    assert (decision.verdict, decision.needed) == ("undecided", math.inf)
    assert "needs a margin to be decided" in decision.reason


def test_non_inferior_is_the_lower_end_against_the_margin():
    d = exact(-0.1, 1.0, 100)
    assert not decide(d, margin=0.2).non_inferior
    assert decide(d, margin=0.3).non_inferior
    assert not decide(np.full(3, 0.1), margin=0.3).non_inferior, "three equal differences are no certainty"
    assert decide(d, margin=0.2).interval[0] == pytest.approx(-0.26604, abs=1e-5)


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=25),
    st.floats(0.01, 0.4),
    st.sampled_from(["independent", "time"]),
)
def test_interval_and_one_sided_test_agree(d, alpha, dependence):
    decision = decide(np.array(d), alpha=alpha, dependence=dependence)
    if decision.method == "identical" or abs(decision.p_value - alpha) < 1e-9:
        return
    assert (decision.verdict == "pays") == (decision.p_value < alpha)
    two_sided = compare_paired(np.zeros(len(d)), d, dependence=dependence, level=1 - 2 * alpha)
    assert min(decision.p_value, 1 - decision.p_value) == pytest.approx(two_sided.p_value / 2, abs=1e-12)
    assert decision.interval == two_sided.interval


@pytest.mark.parametrize(("gain", "verdict"), [(1.0, "pays"), (-1.0, "hurts")])
def test_equal_differences_should_decide_from_as_many_pairs_as_a_sign_test(gain, verdict):
    few, enough = decide(np.full(4, gain)), decide(np.full(5, gain))
    assert (few.verdict, few.adopt, few.needed, few.code) == ("undecided", False, 5, "equal values")
    assert (enough.verdict, enough.adopt) == (verdict, verdict == "pays")
    assert enough.p_value == (2.0**-5 if gain > 0 else 1.0)


def test_needed_is_the_smallest_size_with_that_power():
    from scipy.stats import nct, t

    def slow(sd_over_gain, alpha, power, m=2):
        while nct.sf(t.ppf(1 - alpha, m - 1), m - 1, math.sqrt(m) / sd_over_gain) < power:
            m += 1
        return m

    assert decide(exact(0.25, 1.0, 50)).needed == slow(4, 0.05, 0.8) == 101
    assert decide(exact(-0.25, 1.0, 50)).needed == 101
    # Beyond 60,000 pairs Student's quantiles still ask for one or two more than normal ones.
    far = slow(100, 0.05, 0.8, m=61_800)
    assert decide(exact(0.01, 1.0, 50)).needed == far
    assert far > ((1.6448536 + 0.8416212) * 100) ** 2
    assert decide(exact(1.0, 1.0, 50), alpha=0.01).needed == slow(1, 0.01, 0.8)
    comparison = compare_paired(np.zeros(50), exact(0.25, 1.0, 50))
    assert units_needed(comparison, power=0.95) == slow(4, 0.05, 0.95)


def test_needed_approaches_the_normal_formula():
    normal = ((1.6448536 + 0.8416212) * 100) ** 2
    assert decide(exact(0.01, 1.0, 50)).needed == pytest.approx(normal, rel=1e-4)
    assert decide(exact(1e-6, 1.0, 50)).needed == pytest.approx(normal * 1e8, rel=1e-6)


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=12), st.sampled_from(["independent", "time", "groups"])
)
def test_an_undecided_comparison_needs_more_than_it_has(d, dependence):
    labels = np.arange(len(d)) if dependence == "groups" else dependence
    decision = decide(np.array(d), dependence=labels)
    assert decision.verdict != "undecided" or decision.needed > decision.n


def test_needed_counts_groups_and_time_steps():
    groups = np.repeat(range(30), 4)
    decision = decide(np.repeat(exact(0.1, 1.0, 30), 4), dependence=groups)
    assert (decision.n, decision.unit, decision.needed) == (30, "groups", 620)
    assert "about 620 groups would decide" in decision.reason
    decision = decide(exact(0.05, 1.0, 80), dependence="time", se="hac")
    assert (decision.unit, decision.method) == ("time steps", "hac")
    assert "time steps would decide" in decision.reason


@pytest.mark.parametrize("d", [exact(0.1, 1.0, 20), np.zeros(4), np.array([1.0, -1.0])])
def test_decision_is_ready_for_json(d):
    decision = decide(d)
    document = json.loads(json.dumps(decision.to_dict(), allow_nan=False))
    assert set(document) == set(type(decision).__dataclass_fields__)
    assert document["needed"] == (None if math.isinf(decision.needed) else decision.needed)


def test_infinite_ends_become_null_in_json():
    decision = replace(decide(exact(0.1, 1.0, 20)), interval=(-math.inf, 0.5))
    assert decision.to_dict()["interval"] == [None, 0.5]


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_identical_is_meant_in_the_size_of_the_losses(size):
    base = size * np.array([1.0, 2.0, 3.0])
    assert specialize_or_fall_back(base, base * (1 + 1e-13)).method == "identical"
    assert specialize_or_fall_back(base, base * (1 + 1e-11)).method == "independent"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"alpha": 0.5}, r"alpha is a fraction: expected 0 < alpha < 0\.5, got 0\.5"),
        ({"alpha": 0}, r"got 0\."),
        ({"margin": -0.1}, r"margin has no negative values"),
        ({"dependence": "tme"}, r"Did you mean 'time'\?"),
    ],
)
def test_bad_options_are_refused_with_the_reason(options, text):
    with pytest.raises(InputError, match=text):
        decide(np.array([1.0, 2.0]), **options)


@pytest.mark.slow
@pytest.mark.parametrize("dependence", ["independent", "groups"])
def test_power_at_needed_is_about_eighty_percent(dependence):
    # 2,000 decisions: .80 +- .05 is 5.6 standard errors.
    needed = decide(exact(0.25, 1.0, 50)).needed
    rng, adopted = derive(3, "power", dependence), 0
    labels = np.repeat(np.arange(needed), 3) if dependence == "groups" else "independent"
    for _ in range(2000):
        d = 0.25 + rng.standard_normal(needed)
        adopted += decide(np.repeat(d, 3) if dependence == "groups" else d, dependence=labels).adopt
    assert 0.75 < adopted / 2000 < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.05, 0.0125])
def test_false_adoption_keeps_its_level(alpha):
    # 10,000 decisions on a gain of zero: 4.4 standard errors on either side.
    rng = derive(4, "level")
    adopted = sum(
        decide(rng.standard_normal(40), dependence="time", alpha=alpha).adopt for _ in range(10_000)
    )
    assert abs(adopted / 10_000 - alpha) < 4.4 * math.sqrt(alpha * (1 - alpha) / 10_000)
