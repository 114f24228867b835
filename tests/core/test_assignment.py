"""Identities of an assignment: breadth - indecision = information, and what relabeling and merging do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from metier.core import Assignment, InputError, entropy


def slow_entropy(p):
    return -sum(x * math.log(x) for x in p if x > 0)


@st.composite
def weight_tables(draw):
    n, K = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    cell = st.one_of(st.just(0.0), st.floats(1e-12, 1.0))
    W = np.array(draw(st.lists(st.lists(cell, min_size=K, max_size=K), min_size=n, max_size=n)))
    W[W.sum(axis=1) == 0, 0] = 1.0
    return W / W.sum(axis=1, keepdims=True)


@given(weight_tables())
def test_information_is_the_mutual_information_of_item_and_specialist(W):
    a = Assignment.from_weights(W)
    n, load = len(W), W.mean(axis=0)
    divergence = sum(
        W[i, k] / n * math.log(W[i, k] / load[k]) for i in range(n) for k in range(W.shape[1]) if W[i, k] > 0
    )
    assert a.information == pytest.approx(divergence, abs=1e-12)
    assert a.information == pytest.approx(a.breadth - a.indecision, abs=1e-12)
    assert a.breadth == pytest.approx(slow_entropy(load), abs=1e-12)
    assert a.indecision == pytest.approx(np.mean([slow_entropy(row) for row in W]), abs=1e-12)
    assert a.information >= 0.0


@given(weight_tables(), st.data())
def test_merging_never_raises_information_and_adds_loads(W, data):
    K = W.shape[1]
    raw = data.draw(st.lists(st.integers(0, K - 1), min_size=K, max_size=K))
    groups = np.unique(raw, return_inverse=True)[1]
    a = Assignment.from_weights(W)
    merged = a.merge(groups)
    assert merged.information <= a.information + 1e-12
    assert np.allclose(merged.load, np.bincount(groups, weights=a.load), rtol=0, atol=1e-15)


@given(weight_tables(), st.data())
def test_relabeling_permutes_and_changes_no_measure(W, data):
    perm = np.array(data.draw(st.permutations(range(W.shape[1]))))
    a = Assignment.from_weights(W)
    b = a.relabel(perm)
    assert np.array_equal(b.weights[:, perm], a.weights)
    assert np.array_equal(b.load[perm], a.load)
    assert b.information == pytest.approx(a.information, abs=1e-12)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.permutations(range(5)))
def test_hard_labels_agree_with_their_one_hot_weights(labels, perm):
    hard = Assignment.from_labels(labels, n_specialists=5)
    soft = Assignment.from_weights(hard.weights)
    assert np.array_equal(hard.labels, soft.labels)
    assert np.allclose(hard.load, soft.load, rtol=0, atol=1e-15)
    assert hard.indecision == soft.indecision == 0.0
    assert hard.information == hard.breadth == pytest.approx(soft.information, abs=1e-12)
    assert np.array_equal(hard.relabel(perm).labels, np.array(perm)[labels])
    assert np.array_equal(hard.relabel(perm).weights, soft.relabel(perm).weights)


def test_ties_go_to_the_lowest_index():
    assert Assignment.from_weights([[0.2, 0.4, 0.4], [0.5, 0.5, 0.0]]).labels.tolist() == [1, 0]


def test_indecision_is_summed_over_blocks(monkeypatch):
    monkeypatch.setattr("metier.core.assignment._ROWS", 7)
    W = np.random.default_rng(0).dirichlet(np.ones(4), size=50)
    expected = np.mean([slow_entropy(row) for row in W])
    assert Assignment.from_weights(W).indecision == pytest.approx(expected, abs=1e-13)


def test_arrays_are_owned_and_read_only():
    W = np.array([[0.5, 0.5]])
    a = Assignment.from_weights(W)
    W[0] = [1.0, 0.0]
    assert a.weights.tolist() == [[0.5, 0.5]]
    with pytest.raises(ValueError, match="read-only"):
        a.weights[0, 0] = 1.0
    labels = np.array([0, 1], dtype=np.int32)
    b = Assignment.from_labels(labels)
    labels[0] = 1
    assert b.labels.tolist() == [0, 1]


def test_a_million_labels_stay_compact():
    a = Assignment.from_labels(np.zeros(1_000_000, dtype=np.int64), n_specialists=1000)
    assert a.labels.nbytes == 4_000_000
    assert a.load[0] == 1.0


def test_repr_explains():
    text = repr(Assignment.from_weights([[0.5, 0.5], [1.0, 0.0]]))
    assert text == (
        "Assignment(2 items to 2 specialists, soft: breadth 0.562, indecision 0.347, information 0.216 nats)"
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: Assignment.from_labels([0, -1]),
            r"labels number the specialists from 0: .*got -1 at index 1",
        ),
        (lambda: Assignment.from_labels(["a"]), r"got values of type .*numpy\.unique"),
        (lambda: Assignment.from_labels([0.0]), r"got values of type float64"),
        (lambda: Assignment.from_labels([]), r"got shape \(0,\)"),
        (lambda: Assignment.from_labels([0, 3], 3), r"labels below n_specialists=3, got 3 for item 1"),
        (
            lambda: Assignment.from_weights([[0.5, 0.6]]),
            r"each row of the weights is a probability vector.*sum 1\.1",
        ),
        (
            lambda: Assignment.from_labels([0, 1]).relabel([0, 0]),
            r"expected each of 0\.\.1 once, got \[0, 0\]",
        ),
        (lambda: Assignment.from_labels([0, 1]).relabel([0]), r"expected 2 numbers, got 1"),
        (
            lambda: Assignment.from_labels([0, 1]).merge([0, 2]),
            r"every number 0\.\.2, got no old specialist for \[1\]",
        ),
    ],
)
def test_bad_assignments_are_refused_with_the_reason(call, text):
    with pytest.raises(InputError, match=text):
        call()


@given(weight_tables())
def test_entropy_agrees_with_the_slow_one(W):
    assert np.allclose(entropy(W), [slow_entropy(row) for row in W], rtol=0, atol=1e-13)
    assert np.allclose(entropy(W.T, axis=0), entropy(W), rtol=0, atol=1e-15)
    assert entropy(W / len(W), axis=None) == pytest.approx(slow_entropy((W / len(W)).ravel()), abs=1e-13)


def test_entropy_refuses_what_is_no_distribution():
    with pytest.raises(InputError, match=r"each row of p is a probability vector.*got sum 0\.9"):
        entropy([0.5, 0.4])
