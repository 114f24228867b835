"""The study of exponents on miniatures: claims, predictions fixed first, resuming."""

from __future__ import annotations

import json
import math
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from metier.core.registry import load_study, registry
from metier.runs import execute
from metier_studies.exponents import measures
from metier_studies.exponents.claims import onset
from metier_studies.exponents.half_ratio import half_ratio, limit, measured_half_ratios
from metier_studies.exponents.measures import activation_of, curve

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
    "onset_seeds": "1",
    "student_factors": "2",
    "student_dimension": "12",
    "student_seeds": "0",
    "ladder_units": "12",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run of the miniature; the jump, six seconds of refinement, is given (the slow test computes it)."""
    folder = tmp_path_factory.mktemp("exponents") / "run"
    with pytest.MonkeyPatch.context() as patch:
        given = SimpleNamespace(strong_recovery=11.55)
        patch.setattr(measures, "committee_thresholds", lambda *_, **__: given)
        return execute(load_study("exponents"), folder, seed=3, overrides=SMALL), folder


def test_study_should_state_its_claims(finished):
    first, folder = finished
    result = json.loads((folder / "result.json").read_text())
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
    assert wanted <= set(ids) <= set(load_study("exponents").claims)
    verdicts = {claim["id"]: claim["verdict"] for claim in result["claims"]}
    assert verdicts["all-certified"] == verdicts["slope-abs"] == verdicts["slope-step3"] == "holds"
    assert first.study == "exponents"
    headline = result["headline"]
    assert sum(headline["divided"]["load"]) == pytest.approx(1)
    assert headline["specialized"]["null_mean"] is not None
    assert headline["paid"]["gain"]["n"] == 2


def test_simulated_cells_should_repeat_to_the_same_bytes(finished, tmp_path):
    """One cell of each kind of simulation is taken from the journal and drawn again."""
    _, folder = finished
    again = shutil.copytree(folder, tmp_path / "again")
    (again / "result.json").unlink()
    journal = again / "metrics.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    drawn = [
        line for line in lines if re.search(r'"(spectral-1|committee-3/seed-1|onset-20-3/seed-0)"', line)
    ]
    assert len(drawn) == 3
    journal.write_text("".join(line for line in lines if line not in drawn))
    execute(load_study("exponents"), again, seed=3, overrides=SMALL, resume=True)
    assert (again / "result.json").read_bytes() == (folder / "result.json").read_bytes()


def test_study_should_be_in_the_tour():
    assert registry()["exponents"].in_tour
    assert load_study("exponents").family == "multi_index"


@pytest.mark.slow
def test_predictions_should_be_fixed_without_data():
    config = load_study("exponents").sizes["standard"]
    found = measures.predicted(config)
    assert found["committee"] == pytest.approx(8.216, abs=0.01)
    assert found["committee_jump"] == pytest.approx(11.55, abs=0.02)


def test_curve_should_reach_its_exponent():
    found = curve("step3")
    assert found["slope"] == pytest.approx(3, abs=0.02)
    assert activation_of("step3").variance == pytest.approx(1, rel=1e-9)


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
