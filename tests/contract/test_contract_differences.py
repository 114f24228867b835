"""The comparison itself: what counts as the same, and what does not."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from contract_differences import TOLERANCES, differences, tolerance
from contract_names import locate
from contract_summary import summary


def paths(before, after, rtol=1e-6, **options):
    """Return the paths of the differences between two values, summarized."""
    return [one.path for one in differences(summary(before), summary(after), rtol, **options)]


LONG = np.arange(1.0, 101.0)


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        (1.0, 1.00001, ""),
        (1, 2, ""),
        (1, True, ""),
        (0.0, 1e-8, ""),
        ("holds", "undecided", ""),
        (math.nan, 0.0, ""),
        ([1, 2], [1, 2, 3], "length"),
        ({"a": 1}, {"b": 1}, "a"),
        ({"a": 1}, {"a": 1, "b": 2}, "b"),
        ({"a": {"b": [1.0, 2.0]}}, {"a": {"b": [1.0, 2.1]}}, "a.b[1]"),
        (LONG, LONG.astype(np.float32), "dtype"),
        (LONG, LONG[:, None], "shape"),
        (LONG, LONG + np.eye(1, 100, 50)[0], "sum"),
        (LONG, np.where(LONG == 50, 51, np.where(LONG == 51, 50 - 1e-2, LONG)), "sum"),
        (np.arange(9), np.arange(9) + (np.arange(9) == 1), "first[1]"),
        (LONG, np.where(LONG == 50, np.nan, LONG), "finite"),
        (np.array(["a"] * 20), np.array(["a"] * 10 + ["b"] + ["a"] * 9), "crc"),
    ],
)
def test_differences_should_be_found_where_they_are(before, after, path):
    assert path in paths(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1.0, 1.0 + 1e-7),
        ("one text", "another text"),
        ({"unit": "seeds"}, {"unit": "draws"}),
        (LONG, LONG * (1 + 1e-7)),
        # Entries are as exact as their array is large.
        (np.append(LONG, 1e-12), np.append(LONG, -1e-12)),
    ],
)
def test_rounding_and_wording_should_pass(before, after):
    assert paths(before, after) == []


def test_objects_may_get_fields_and_lose_none():
    small, large = (dataclasses.make_dataclass("R", [(n, float) for n in names]) for names in ("a", "ab"))
    assert paths(small(1.0), large(1.0, 2.0)) == []
    assert paths(large(1.0, 2.0), small(1.0)) == ["b"]


def test_documents_may_get_keys():
    assert paths({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, grows=True) == []
    assert paths({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, grows=True) == ["a.c"]


def test_tolerances_should_be_given_by_the_longest_beginning_and_reasoned():
    assert (
        tolerance("metier.multi_index.simulate.gamp", strict=False)
        == TOLERANCES["metier.multi_index.simulate"][0]
    )
    assert tolerance("metier.moe.audit", strict=True) == 1e-10
    assert all(0 < rtol < 0.01 and reason for rtol, reason in TOLERANCES.values())


def test_a_name_that_is_gone_should_be_told_from_one_that_fails_to_import():
    with pytest.raises(LookupError, match="is gone"):
        locate("metier.core.nothing")
