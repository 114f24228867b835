"""The study of exponents on miniatures: claims, predictions fixed first, resuming."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from metier.studies import REGISTRY, execute, load_study
from metier.studies.exponents.claims import onset, verdict_of
from metier.studies.exponents.half_ratio import half_ratio, limit, measured_half_ratios
from metier.studies.exponents.measures import activation_of, curve, predicted

SMALL = {
    "smooth": "abs",
    "steps": "3",
    "spectral_dimension": "30",
    "spectral_seeds": "2",
    "committee_factors": "0.5,3",
    "committee_dimension": "20",
    "committee_seeds": "2",
    "onset_dimensions": "16,20",
    "onset_factors": "1,3",
    "onset_seeds": "2",
    "student_factors": "2",
    "student_dimension": "12",
    "student_seeds": "0",
    "ladder_units": "60",
}


def test_study_should_state_its_claims_and_repeat(tmp_path):
    study = load_study("exponents")
    first = execute(study, tmp_path / "a", seed=3, overrides=SMALL)
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    ids = [claim["id"] for claim in result["claims"]]
    wanted = {
        "all-certified",
        "slope-abs",
        "slope-step3",
        "spectral-limit",
        "committee-onset",
        "committee-above",
        "committee-half",
        "committee-jump",
        "ladder",
        "loss",
    }
    assert wanted <= set(ids) <= set(study.claims)
    verdicts = {claim["id"]: claim["verdict"] for claim in result["claims"]}
    assert verdicts["all-certified"] == verdicts["slope-abs"] == verdicts["slope-step3"] == "holds"
    assert first.study == "exponents"
    headline = result["headline"]
    assert sum(headline["divided"]["load"]) == pytest.approx(1)
    assert headline["specialized"]["null_mean"] is not None
    assert headline["paid"]["gain"]["n"] == 2
    execute(study, tmp_path / "b", seed=3, overrides=SMALL)
    assert (tmp_path / "a" / "result.json").read_bytes() == (tmp_path / "b" / "result.json").read_bytes()


def test_study_should_be_in_the_tour():
    assert REGISTRY["exponents"].in_tour
    assert load_study("exponents").family == "multi_index"


def test_predictions_should_be_fixed_without_data():
    config = load_study("exponents").sizes["standard"]
    found = predicted(config)
    assert found["committee"] == pytest.approx(8.216, abs=0.01)
    assert found["committee_jump"] == pytest.approx(11.55, abs=0.02)


def test_curve_should_reach_its_exponent():
    found = curve("step3")
    assert found["slope"] == pytest.approx(3, abs=0.02)
    assert activation_of("step3").variance == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1, 2, "holds"), (-1, 2, "undecided"), (-3, -1, "does not hold")]
)
def test_verdict_should_read_the_interval(low, high, expected):
    assert verdict_of(low, high, (0, 5)) == expected


def test_onset_should_be_the_first_rung_above_rotations_with_the_rung_before():
    def rung(*values):
        return [{"excess": value} for value in values]

    trials = {"0.5": rung(-0.1, 0.1, 0.0), "1": rung(0.3, -0.2, 0.1), "2": rung(0.4, 0.41, 0.42)}
    found = onset((0.5, 1.0, 2.0), trials)
    assert (found.low, found.value, found.high, found.n) == (1.0, 2.0, 2.0, 3)
    never = onset((0.5, 1.0), trials)
    assert (never.low, never.high) == (1.0, None)


def test_half_ratio_should_pool_shares_that_fall_and_cross_between_rungs():
    seeds = np.array([[0, 1, 0, 1], [0, 0, 1, 1]])
    # Shares 0, 1/2, 1/2, 1: half is reached at the second rung.
    assert half_ratio((1.0, 2.0, 4.0, 8.0), seeds) == pytest.approx(2.0)
    falling = np.array([[0, 1, 0], [0, 1, 0], [0, 0, 1]])  # 0, 2/3, 1/3 pool to 1/2, 1/2
    assert half_ratio((1.0, 2.0, 4.0), falling) == pytest.approx(2.0)
    assert half_ratio((1.0, 4.0), np.array([[0, 1]] * 3), within=0.25) == pytest.approx(math.sqrt(2))
    assert half_ratio((1.0, 2.0), np.zeros((3, 2))) == math.inf
    assert half_ratio((1.0, 2.0), np.ones((3, 2))) == 1.0


def test_half_ratio_should_be_extrapolated_to_infinite_dimension():
    assert limit((50, 100, 200), [1.4 + 30 / d for d in (50, 100, 200)]) == pytest.approx(1.4)
    assert limit((50, 100), (2.0, math.inf)) == math.inf
    factors = (1.0, 1.5, 2.0, 3.0)

    def rungs(first):
        return {f"{f:g}": [{"excess": 0.4 if f >= first else -0.1}] * 5 for f in factors}

    at, found = measured_half_ratios({"50": rungs(3.0), "100": rungs(2.0)}, factors, seed=0)
    assert [at[d].value for d in (50, 100)] == pytest.approx([math.sqrt(6), math.sqrt(3)])
    # Equal seeds leave the width of the ladder, not a point.
    assert [at[100].low, at[100].high] == pytest.approx([1.5, 2.0], rel=0.03)
    assert found.low < 2 * math.sqrt(3) - math.sqrt(6) < found.high
    assert found.value == pytest.approx(2 * math.sqrt(3) - math.sqrt(6))
    never, unbounded = measured_half_ratios({"50": rungs(9.0), "100": rungs(2.0)}, factors, seed=0)
    assert (never[50].value, never[50].low, never[50].high) == (3.0, 3.0, None)
    assert unbounded.high is None
