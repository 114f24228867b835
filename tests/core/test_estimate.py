"""Paired comparisons against hand-written loops, and the coverage of their intervals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from metier.core import (
    Comparison,
    Estimate,
    InputError,
    compare_paired,
    derive,
    hac_variances,
    long_run_variance_hac,
)
from metier.core.long_run import bartlett_reference


def test_independent_comparison_equals_scipy():
    from scipy.stats import ttest_rel

    rng = derive(0, "pairs")
    a, b = rng.random(30), rng.random(30) + 0.1
    ours, theirs = compare_paired(a, b, level=0.9), ttest_rel(b, a)
    assert ours.gain == pytest.approx(np.mean(b - a), rel=1e-12)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-10)
    assert ours.interval == pytest.approx(theirs.confidence_interval(0.9), rel=1e-10)
    assert (ours.n, ours.unit, ours.dof, ours.method) == (30, "pairs", 29, "independent")
    assert ours.unit_sd == pytest.approx(np.std(b - a, ddof=1))


def slow_clustered_stderr(d, groups):
    names = sorted(set(groups))
    mean = sum(d) / len(d)
    total = 0.0
    for name in names:
        total += sum(d[i] - mean for i in range(len(d)) if groups[i] == name) ** 2
    G = len(names)
    return math.sqrt(G / (G - 1) * total) / len(d)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(-5, 5)), min_size=2, max_size=30))
def test_clustered_stderr_equals_the_loop(rows):
    groups, d = [row[0] for row in rows], [row[1] for row in rows]
    if len(set(groups)) < 2 or max(map(abs, d)) < 1e-6:
        return
    result = compare_paired(np.zeros(len(d)), d, dependence=groups)
    assert result.stderr == pytest.approx(slow_clustered_stderr(d, groups), abs=1e-12)
    assert result.gain == pytest.approx(np.mean(d), abs=1e-12)
    assert (result.n, result.unit, result.dof) == (len(set(groups)), "groups", len(set(groups)) - 1)


def test_groups_of_one_equal_independent_pairs():
    d = derive(0, "singletons").standard_normal(25)
    alone = compare_paired(np.zeros(25), d)
    grouped = compare_paired(np.zeros(25), d, dependence=np.arange(25))
    assert grouped.stderr == pytest.approx(alone.stderr, rel=1e-12)
    assert grouped.p_value == pytest.approx(alone.p_value, rel=1e-10)


def test_copies_within_groups_add_no_evidence():
    d = derive(0, "copies").standard_normal(20) + 0.3
    once = compare_paired(np.zeros(20), d)
    copied = compare_paired(np.zeros(100), np.repeat(d, 5), dependence=np.repeat(range(20), 5))
    assert copied.stderr == pytest.approx(once.stderr, rel=1e-12)
    assert compare_paired(np.zeros(100), np.repeat(d, 5)).stderr < 0.5 * once.stderr


def test_time_comparisons_use_the_long_run_variance():
    d = derive(0, "time").standard_normal(80)
    ewc = compare_paired(np.zeros(80), d, dependence="time")
    assert (ewc.n, ewc.unit, ewc.dof, ewc.method) == (80, "time steps", 7, "ewc")
    hac = compare_paired(np.zeros(80), d, dependence="time", se="hac")
    # 12 of 80 steps weigh in, so b = .15: the estimate keeps 1 - b + b^2 / 3 of the variance.
    assert hac.stderr == pytest.approx(math.sqrt(long_run_variance_hac(d)[0] / 0.8575 / 80))
    assert (hac.dof, hac.method) == (10.0, "hac")
    assert hac.interval[1] - hac.gain == pytest.approx(2.228139 * hac.stderr, rel=1e-6)


@pytest.mark.parametrize("n_steps", [2, 5, 20, 80])
def test_bartlett_reference_should_be_the_mean_of_its_estimate(n_steps):
    """Independent steps of variance 1: the estimate's mean over 4,000 series, within 5 standard errors."""
    variances, _ = hac_variances(derive(0, "bartlett", n_steps).standard_normal((4_000, n_steps)))
    kept, dof = bartlett_reference(n_steps)
    assert variances.mean() == pytest.approx(
        kept, abs=5 * variances.std() / math.sqrt(4_000) + 0.35 / n_steps**2
    )
    assert 1.0 <= dof <= n_steps - 1


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=20), st.sampled_from(["independent", "time"]))
def test_exchanging_the_sides_flips_the_sign(d, dependence):
    ones = np.ones(len(d))
    there = compare_paired(ones, ones + d, dependence=dependence)
    back = compare_paired(ones + d, ones, dependence=dependence)
    assert back.gain == pytest.approx(-there.gain, abs=1e-12)
    assert back.p_value == pytest.approx(there.p_value, abs=1e-9)
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]), abs=1e-9)


@pytest.mark.parametrize("dependence", ["independent", "time", [0, 0, 1, 1]])
def test_losses_equal_up_to_rounding_are_identical(dependence):
    a = np.array([1.0, 2.0, 3.0, 4.0])
    result = compare_paired(a, a * (1 + 1e-14), dependence=dependence)
    assert (result.method, result.gain, result.stderr, result.p_value) == ("identical", 0.0, 0.0, 1.0)
    assert result.interval == (0.0, 0.0)
    assert compare_paired(a, a * (1 + 1e-10), dependence=dependence).method != "identical"
    assert compare_paired(np.zeros(4), np.zeros(4), dependence=dependence).method == "identical"


def test_a_gain_without_spread_is_certain():
    result = compare_paired([1.0, 1.0], [2.0, 2.0])
    assert (result.gain, result.stderr, result.p_value, result.interval) == (1.0, 0.0, 0.0, (1.0, 1.0))


@pytest.mark.parametrize("dependence", ["independent", "time", "groups"])
def test_intervals_cover_two_sided(dependence):
    # 4,000 intervals at 90 %: 4.4 standard errors are .021; AR(.3) and group effects are really there.
    rng, hits, n = derive(5, "coverage", dependence), 0, 60
    labels = np.repeat(range(20), 3) if dependence == "groups" else dependence
    for _ in range(4000):
        d = rng.standard_normal(n)
        if dependence == "time":
            d[1:] += 0.3 * d[:-1]
        if dependence == "groups":
            d += np.repeat(rng.standard_normal(20), 3)
        low, high = compare_paired(np.zeros(n), d + 0.5, dependence=labels, level=0.9).interval
        hits += low <= 0.5 <= high
    assert abs(hits / 4000 - 0.9) < 0.021


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: compare_paired([1.0], [1.0, 2.0]), r"losses of the same items: .*got 1 and 2 losses"),
        (lambda: compare_paired([1.0, np.nan], [1.0, 2.0]), r"losses a is finite everywhere.*nan at index 1"),
        (lambda: compare_paired([1.0, 2.0], [np.inf, 2.0]), r"losses b is finite everywhere.*inf at index 0"),
        (lambda: compare_paired([1.0], [2.0]), r"expected at least 2 pairs, got 1"),
        (lambda: compare_paired([], []), r"expected at least 2 pairs, got 0"),
        (lambda: compare_paired([1.0, 2], [2.0, 2], dependence=["a", "a"]), r"at least 2 groups, got 1"),
        (lambda: compare_paired([1.0, 2], [2.0, 2], dependence=["a"]), r"expected 2 group labels, got 1"),
        (
            lambda: compare_paired([1.0, 2], [2.0, 2], dependence="times"),
            r"got 'times'\. Did you mean 'time'",
        ),
        (lambda: compare_paired([1.0, 2], [2.0, 2], dependence=None), r"dependence is one of .*got None"),
        (lambda: compare_paired([1.0, 2], [2.0, 2], se="hac"), r"expected dependence=\"time\", got"),
        (lambda: compare_paired([1.0, 2], [2.0, 2], se="nw", dependence="time"), r"se is one of .*got 'nw'"),
        (
            lambda: compare_paired([1.0, 2], [2.0, 2], level=95),
            r"level is a fraction: expected .*, got 95",
        ),
    ],
)
def test_bad_input_is_refused_with_the_reason(call, text):
    with pytest.raises(InputError, match=text):
        call()


@pytest.mark.parametrize(
    "result",
    [
        compare_paired([1.0, 2.0], [2.0, 4.0], dependence="time", se="hac"),
        Estimate.from_stderr(1.0, 0.1, n=9),
    ],
)
def test_results_are_ready_for_json(result):
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()
    fields = type(result).__dataclass_fields__
    assert set(result.to_dict()) == set(fields)


def test_estimate_interval_uses_student_where_degrees_of_freedom_are_given():
    assert Estimate.from_stderr(0.0, 1.0, n=5, dof=4.0, level=0.9).interval[1] == pytest.approx(
        2.131847, rel=1e-6
    )
    assert Estimate.from_stderr(0.0, 1.0, n=5, level=0.9).interval[1] == pytest.approx(1.644854, rel=1e-6)
    assert isinstance(compare_paired([1.0, 2.0], [2.0, 2.0]), Comparison)
