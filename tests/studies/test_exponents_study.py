"""The study of exponents on miniatures: claims, predictions fixed first, resuming."""

from __future__ import annotations

import json

import pytest

from metier.studies import REGISTRY, execute, load_study
from metier.studies.exponents.claims import onset, verdict_of
from metier.studies.exponents.measures import activation_of, curve, predicted

SMALL = {
    "smooth": "abs",
    "steps": "3",
    "spectral_dimension": "30",
    "spectral_seeds": "2",
    "committee_factors": "0.5,3",
    "committee_dimension": "20",
    "committee_seeds": "2",
    "student_factors": "2",
    "student_dimension": "12",
    "student_seeds": "0",
    "ladder_units": "60",
}


@pytest.mark.timeout(200)
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
    assert predicted(config) == predicted(config)
    assert predicted(config)["committee"] == pytest.approx(8.216, abs=0.01)


@pytest.mark.timeout(60)
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
