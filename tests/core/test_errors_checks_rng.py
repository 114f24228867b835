"""Errors say rule, expected, got and next step; checks name the culprit; streams derive from labels."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, strategies as st

from metier.core import (
    InputError,
    MetierError,
    MissingExtraError,
    as_generator,
    derive,
    derive_seed,
    finite_array,
    label_codes,
    non_negative,
    one_of,
    open_fraction,
    positive_int,
    require,
    simplex_rows,
)
from metier.core.checks import ensure


def test_input_error_is_one_line_with_its_parts():
    error = InputError("a\nrule", expected=3, got=[1, 2], next_step="Do  this.")
    assert str(error) == "a rule: expected 3, got [1, 2]. Do this."
    assert (error.rule, error.expected, error.got, error.next_step) == ("a rule", "3", "[1, 2]", "Do this.")
    assert isinstance(error, ValueError)
    assert isinstance(error, MetierError)


@pytest.mark.parametrize(
    "error", [InputError("r", expected="e", got="g", next_step="n"), MissingExtraError("ray")]
)
def test_errors_survive_pickling(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)


def test_require_passes_on_an_error_inside_an_installed_package(tmp_path, monkeypatch):
    (tmp_path / "halfway_installed.py").write_text("import a_missing_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="a_missing_dependency") as info:
        require("halfway_installed")
    assert not isinstance(info.value, MissingExtraError)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: one_of("gate", "crosfit", ("crossfit", "mean")),
            r"gate .*got 'crosfit'\. Did you mean 'crossfit'\?",
        ),
        (
            lambda: one_of("gate", 3, ("crossfit", "mean")),
            r"expected 'crossfit' \| 'mean', got 3\. Try gate='crossfit'",
        ),
        (
            lambda: positive_int("lags", 0),
            r"lags is a whole number: expected an integer of at least 1, got 0",
        ),
        (lambda: positive_int("lags", True), r"got True"),
        (lambda: positive_int("lags", 2.0), r"got 2\.0"),
        (lambda: open_fraction("alpha", 5), r"alpha is a fraction: expected 0 < alpha < 1, got 5"),
        (lambda: open_fraction("alpha", float("nan")), r"got nan"),
        (lambda: non_negative("margin", -1), r"margin has no negative values.*got -1"),
        (lambda: non_negative("margin", float("inf")), r"got inf"),
        (
            lambda: finite_array("y", [[1.0, 2.0], [np.nan, 4.0]]),
            r"y is finite.*got nan at index \(1, 0\) \(1 such",
        ),
        (lambda: finite_array("y", [1.0, -np.inf, np.nan]), r"got -inf at index 1 \(2 such values\)"),
        (lambda: finite_array("y", ["a"]), r"y holds numbers"),
        (lambda: finite_array("y", [[1.0]], ndim=1), r"y has 1 dimension: .*got shape \(1, 1\)"),
        (
            lambda: simplex_rows("W", [[0.5, 0.5], [0.5, 0.6]]),
            r"row of W .*got sum 1\.1 .*in row 1 \(1 such rows\)",
        ),
        (lambda: simplex_rows("W", [[1.5, -0.5]]), r"smallest entry -0\.5 in row 0"),
        (lambda: simplex_rows("W", np.array([[np.nan, 1.0]])), r"got sum nan"),
        (lambda: simplex_rows("W", np.ones(3)), r"items x specialists.*got shape \(3,\)"),
        (lambda: label_codes("groups", ["a", None]), r"groups has no missing labels.*index 1"),
        (lambda: label_codes("groups", np.array([1.0, np.nan])), r"missing label at index 1"),
        (lambda: label_codes("groups", []), r"groups holds one label per item"),
        (lambda: label_codes("groups", [[1], [2]]), r"got list at index 0"),
        (lambda: as_generator(None), r"rng decides every random draw.*got None"),
        (lambda: as_generator(-1), r"got -1"),
        (
            lambda: derive(1.5, "a"),
            r"seed decides every random draw: expected a non-negative integer, got 1\.5",
        ),
        (lambda: derive(0, 1.5), r"stream labels are strings or integers.*got 1\.5"),
        (lambda: derive(0, True), r"got True"),
    ],
)
def test_checks_refuse_with_the_reason(call, text):
    with pytest.raises(InputError, match=text):
        call()


def test_simplex_rows_keep_float32_and_do_not_copy():
    W = np.full((3, 4), 0.25, dtype=np.float32)
    assert simplex_rows("W", W) is W


@given(
    st.lists(
        st.one_of(st.integers(-3, 3), st.sampled_from(["a", "b", "1", ""]), st.none().map(lambda _: (1, 2)))
    )
)
def test_label_codes_are_a_bijection(labels):
    if not labels:
        return
    codes, levels = label_codes("groups", labels)
    assert [levels[code] for code in codes] == labels
    assert len(set(levels)) == len(levels) == codes.max() + 1


def test_label_codes_tell_numbers_from_strings_and_sort_what_can_be_sorted():
    assert label_codes("g", [1, "1"])[0].tolist() == [0, 1]
    assert label_codes("g", np.array(["b", "a"], dtype=object))[1] == ["a", "b"]


def test_derive_does_not_depend_on_earlier_draws_and_is_pinned():
    first = derive(3, "noise", 1).random(4)
    derive(3, "other").random(100)
    assert np.array_equal(first, derive(np.int64(3), "noise", np.int32(1)).random(4))
    assert derive_seed(0, "study", "replicate", 3) == 3_385_522_853_744_500_903


@given(
    st.lists(st.one_of(st.integers(), st.text()), max_size=4),
    st.lists(st.one_of(st.integers(), st.text()), max_size=4),
)
def test_different_labels_give_different_seeds(a, b):
    assert (derive_seed(0, *a) == derive_seed(0, *b)) == (a == b)
    assert 0 <= derive_seed(0, *a) < 2**63


def test_derived_streams_look_independent():
    # Correlation of 2 x 20,000 draws: |r| < 4.4 / sqrt(20,000) fails by chance once in 100,000.
    a, b = derive(0, "a").standard_normal(20_000), derive(0, "b").standard_normal(20_000)
    assert abs(np.corrcoef(a, b)[0, 1]) < 4.4 / np.sqrt(20_000)


def test_a_generator_is_passed_through():
    generator = np.random.default_rng(0)
    assert as_generator(generator) is generator


def test_ensure_should_ask_what_was_got_only_on_failure():
    asked = []

    def rows():
        asked.append("rows")
        return f"{len(asked)} rows"

    ensure(np.True_, "there are rows", expected="some", got=rows, next_step="Add some.")
    assert asked == []
    with pytest.raises(InputError, match=r"^there are rows: expected some, got 1 rows\. Add some\.$"):
        ensure(np.False_, "there are rows", expected="some", got=rows, next_step="Add some.")
    with pytest.raises(InputError, match="got 0"):
        ensure(False, "there are rows", expected="some", got=0, next_step="Add some.")
