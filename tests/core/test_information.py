"""Information against slow references and scikit-learn, and its permutation null."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from metier.core import Assignment, InformationResult, InputError, derive, information
from metier.core.contingency import shuffler


def slow_information(contexts, W, given):
    """I(C; K | G) by a triple loop over soft counts."""
    n, total = len(contexts), 0.0
    for g in set(given):
        rows = [i for i in range(n) if given[i] == g]
        for c in {contexts[i] for i in rows}:
            members = [i for i in rows if contexts[i] == c]
            for k in range(W.shape[1]):
                joint = sum(W[i, k] for i in members)
                if joint > 0:
                    column = sum(W[i, k] for i in rows)
                    total += joint / n * math.log(joint * len(rows) / (len(members) * column))
    return total


@st.composite
def problems(draw):
    n, K = draw(st.integers(1, 14)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    W = rng.dirichlet(np.full(K, 0.5), size=n)
    W /= W.sum(axis=1, keepdims=True)
    return rng.integers(0, 4, n).tolist(), W, rng.integers(0, 3, n).tolist()


@given(problems())
def test_soft_conditional_information_equals_the_triple_loop(problem):
    contexts, W, strata = problem
    result = information(contexts, W, given=strata, permutations=2)
    assert result.value == pytest.approx(slow_information(contexts, W, strata), abs=1e-12)
    assert -1e-12 <= result.value <= result.ceiling + 1e-12
    assert information(contexts, W, permutations=1).value == pytest.approx(
        slow_information(contexts, W, [0] * len(contexts)), abs=1e-12
    )


@given(problems())
def test_hard_labels_equal_one_hot_weights_and_assignments_for_every_permutation(problem):
    contexts, W, strata = problem
    labels = W.argmax(axis=1)
    one_hot = np.eye(W.shape[1])[labels]
    results = [
        information([f"context {c}" for c in contexts], specialists, given=strata, permutations=5, rng=3)
        for specialists in (labels, one_hot, Assignment.from_labels(labels), Assignment.from_weights(one_hot))
    ]
    for result in results[1:]:
        for field in ("value", "null_mean", "null_sd", "p_value", "ceiling"):
            assert getattr(result, field) == pytest.approx(getattr(results[0], field), abs=1e-12)


@given(problems())
def test_information_about_the_item_itself_is_the_assignment_information(problem):
    _, W, _ = problem
    a = Assignment.from_weights(W)
    assert information(range(len(W)), a, permutations=1).value == pytest.approx(a.information, abs=1e-12)


def test_information_of_labels_equals_scikit_learn():
    from sklearn.metrics import mutual_info_score

    rng = np.random.default_rng(0)
    for _ in range(20):
        contexts, labels = rng.integers(0, 6, 200), rng.integers(0, 5, 200)
        expected = mutual_info_score(contexts, labels)
        assert information(contexts, labels, permutations=1).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("soft", [False, True])
def test_null_equals_the_mean_over_all_permutations_of_whole_groups(soft):
    rng = np.random.default_rng(1)
    groups = np.repeat(range(4), [3, 1, 2, 2])
    group_contexts = np.array([0, 0, 1, 2])
    strata = np.array([0, 0, 1, 1, 0, 0, 0, 1])  # varies within groups, so all groups are exchanged
    W = rng.dirichlet([1, 1, 1], size=8) if soft else np.eye(3)[rng.integers(0, 3, 8)]
    exact = [
        slow_information(np.array(perm)[groups].tolist(), W, strata.tolist())
        for perm in itertools.permutations(group_contexts)
    ]
    specialists = W if soft else W.argmax(axis=1)
    result = information(
        group_contexts[groups], specialists, given=strata, groups=groups, permutations=4000, rng=5
    )
    assert result.n_units == 4
    # Two-sided at 4.4 standard errors: fails by chance once in 100,000 seeds.
    assert abs(result.null_mean - np.mean(exact)) < 4.4 * np.std(exact) / math.sqrt(4000)
    assert result.null_sd == pytest.approx(np.std(exact), rel=0.1)
    share = np.mean(np.array(exact) >= result.value - 1e-12)
    assert abs(result.p_value - share) < 4.4 * math.sqrt(share * (1 - share) / 4000) + 1 / 4000


def test_groups_with_one_stratum_each_are_permuted_within_strata():
    # Each stratum holds one context only: nothing can move, so the null equals the value.
    groups = np.repeat(range(6), 3)
    strata, contexts = groups // 3, groups // 3
    labels = np.random.default_rng(0).integers(0, 3, 18)
    result = information(contexts, labels, given=strata, groups=groups, permutations=9)
    assert result.p_value == 1.0
    assert result.null_sd == pytest.approx(0.0, abs=1e-12)
    # Two contexts among the three groups of a stratum can move.
    moving = information(groups % 2, labels, given=strata, groups=groups, permutations=50)
    assert moving.null_sd > 0.01


@pytest.mark.parametrize("n_strata", [1, 3, 200])
def test_shuffling_stays_within_strata_and_is_uniform(n_strata):
    stratum = np.tile(np.arange(n_strata), 4)
    code = np.arange(stratum.size)
    shuffle, rng = shuffler(code, stratum), np.random.default_rng(0)
    draws = np.stack([shuffle(rng) for _ in range(3000 // n_strata + 20)])
    assert (np.sort(draws, axis=1) == code).all()
    assert (stratum[draws] == stratum).all()
    # Each position keeps its own code one time in four (in each stratum of 4): two-sided at 4.4 sd.
    kept = (draws == code).mean()
    assert abs(kept - 0.25) < 4.4 * math.sqrt(0.25 / (draws.shape[0] * n_strata))


def test_strong_dependence_is_found_and_independence_is_not():
    rng = np.random.default_rng(0)
    contexts = rng.integers(0, 3, 300)
    told = information(contexts, (contexts + (rng.random(300) < 0.2)) % 3)
    assert told.p_value == 1 / 200
    assert told.excess > 0.3
    untold = information(contexts, rng.integers(0, 3, 300))
    assert untold.p_value > 0.05
    assert untold.value > 0.0  # the plug-in is biased upward: only the null shows that it says nothing


def test_ceiling_is_the_smaller_conditional_entropy():
    result = information(["a", "a", "b", "b"], [0, 1, 2, 3], permutations=1)
    assert result.ceiling == pytest.approx(math.log(2))
    conditional = information(["a", "a", "b", "b"], [0, 1, 2, 2], given=["a", "a", "b", "b"], permutations=1)
    assert conditional.ceiling == conditional.value == 0.0


def test_spread_of_the_null_is_that_of_its_permutations():
    """Means over 1, 2 and 3 permutations of one stream give the values; n - 1 in the denominator."""
    rng = np.random.default_rng(3)
    contexts, labels = rng.integers(0, 3, 40), rng.integers(0, 4, 40)
    results = [information(contexts, labels, permutations=p, rng=7) for p in (1, 2, 3)]
    means = [result.null_mean for result in results]
    values = [means[0], 2 * means[1] - means[0], 3 * means[2] - 2 * means[1]]
    assert results[0].null_sd == 0.0
    for p in (2, 3):
        center = sum(values[:p]) / p
        sd = math.sqrt(sum((v - center) ** 2 for v in values[:p]) / (p - 1))
        assert results[p - 1].null_sd == pytest.approx(sd, rel=1e-9)


def test_result_is_ready_for_json_and_repeats():
    first = information([0, 1, 0, 1], [0, 1, 1, 1], rng=np.random.default_rng(2))
    assert first == information([0, 1, 0, 1], [0, 1, 1, 1], rng=2)
    assert isinstance(first, InformationResult)
    assert list(first.to_dict()) == [
        "value", "null_mean", "null_sd", "excess", "p_value", "ceiling", "permutations", "n", "n_units",
    ]  # fmt: skip
    assert all(type(value) in (int, float) for value in first.to_dict().values())


def test_float32_weights_are_counted_in_double_precision():
    W = np.random.default_rng(0).dirichlet(np.ones(4), size=5000).astype(np.float32)
    contexts = np.arange(5000) % 2
    exact = information(contexts, Assignment.from_weights(W), permutations=1).value
    W64 = W.astype(np.float64)
    assert exact == pytest.approx(slow_information(contexts.tolist(), W64, [0] * 5000), abs=1e-12)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: information([0, 1], [0]),
            r"specialists and contexts .*expected 2 rows in specialists, got 1",
        ),
        (lambda: information([0, 1], [0, 1], given=[0]), r"expected 2 rows in given, got 1"),
        (lambda: information([0, 1], [0, 1], groups=[0]), r"expected 2 rows in groups, got 1"),
        (
            lambda: information([0, 1, 1], [0, 1, 1], groups=["doc 1", "doc 7", "doc 1"]),
            r"one context per group, got several contexts in group 'doc 1'",
        ),
        (lambda: information([0, None], [0, 1]), r"contexts has no missing labels"),
        (lambda: information([0, 1], [0, 1], permutations=0), r"permutations is a whole number.*got 0"),
        (
            lambda: information([0, 1], [[0.5, 0.4], [0.5, 0.5]]),
            r"each row of specialists",
        ),
    ],
)
def test_bad_input_is_refused_with_the_reason(call, text):
    with pytest.raises(InputError, match=text):
        call()


@pytest.mark.slow
@pytest.mark.parametrize("design", ["items", "strata", "groups"])
def test_p_values_are_uniform_under_the_null(design):
    # 19 permutations give p in {1/20, ..., 1}; 2,000 seeds; chi-square on 19 degrees of freedom.
    # Ties only make p larger, so labels are many. Upper point 0.001 is 43.8, lower point 0.001 is 5.4.
    counts = np.zeros(20)
    for seed in range(2000):
        rng = derive(seed, "information null", design)
        W = rng.dirichlet(np.ones(3), size=60)
        options, contexts = {}, rng.integers(0, 3, 60)
        if design == "strata":
            options["given"] = strata = rng.integers(0, 4, 60)
            W = 0.5 * W + 0.5 * np.eye(3)[strata % 3]
            contexts = np.where(rng.random(60) < 0.5, strata % 3, contexts)
        if design == "groups":
            options["groups"] = groups = np.repeat(range(20), 3)
            contexts, W = contexts[:20][groups], np.repeat(W[:20], 3, axis=0)
        p = information(contexts, W, permutations=19, rng=derive(seed, "permutations"), **options).p_value
        counts[round(20 * p) - 1] += 1
    statistic = ((counts - 100) ** 2 / 100).sum()
    assert 5.4 < statistic < 43.8
