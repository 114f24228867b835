"""What the gate decides from crafted losses: modes, scopes, ties (statements 8, 18, 20)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from metier.core import specialize_or_fall_back
from metier.forecast.gate.folds import FoldPlan, plan_folds
from metier.forecast.gate.heldout import HeldOut
from metier.forecast.gate.judge import Judge, describe_candidates, paper_fallback

PLAN = plan_folds(100, 200, n_blocks=4, max_lag=4, horizon=1)
NAMES = ("global", "local", "clustered", "feature", "random")
T = 80


def held_out(
    gains: dict[str, float], *, noise: float = 0.1, clusters: Any = ((0.0, 0.0),), seed: int = 0
) -> HeldOut:
    """Losses around 1 that `gains` lower; `clusters` lists (gain, noise) of each cluster's own losses."""
    rng = np.random.default_rng(seed)
    base = 1.0 + 0.3 * rng.normal(size=T)
    columns = [
        base - gains.get(name, 0.0) - (name != "global") * noise * rng.normal(size=T) for name in NAMES
    ]
    groups = np.ones((T, len(clusters), len(NAMES)))
    for k, (gain, spread) in enumerate(clusters):
        groups[:, k, NAMES.index("clustered")] -= gain + spread * rng.normal(size=T)
    return HeldOut(
        names=NAMES,
        times=np.arange(T),
        by_time=np.column_stack(columns),
        by_series=np.ones((6, len(NAMES))),
        by_group=groups,
        n_series=np.full(T, 6),
    )


def judge(gate: str = "crossfit", scope: str = "whole", *, se: str = "ewc", alpha: float = 0.05) -> Judge:
    return Judge(gate=gate, scope=scope, se=se, alpha=alpha)


CASES: list[tuple[dict[str, float], str]] = [
    ({"clustered": 0.2}, "clustered"),
    ({"local": 0.2}, "local"),
    ({"clustered": 0.2, "local": 0.3}, "local"),
    ({"clustered": 0.3, "local": 0.2}, "clustered"),
    ({"clustered": -0.2, "local": -0.2}, "global"),
    ({"feature": 0.5, "random": 0.5}, "global"),
    ({"clustered": -0.2, "local": 0.2, "feature": 0.5}, "local"),
]


@pytest.mark.parametrize("gate", ["crossfit", "mean"])
@pytest.mark.parametrize(("gains", "chosen"), CASES)
def test_the_passing_candidate_of_largest_gain_should_be_chosen(
    gate: str, gains: dict[str, float], chosen: str
) -> None:
    report = judge(gate).decide(held_out(gains), PLAN, n_clusters=2)
    assert report.chosen == chosen
    assert report.decision.adopt == (report.decision.verdict == "pays")
    assert gate == "mean" or report.decision.adopt == (chosen != "global")
    assert set(report.tests) == {"local", "clustered"}
    assert report.keep.tolist() == [True, True]
    assert (report.n_blocks, report.gap, report.flag) == (4, 5, "")
    assert report.reason
    assert gate == "mean" or report.reason == report.decision.reason


@pytest.mark.parametrize("se", ["ewc", "hac"])
def test_whole_gate_should_be_the_paired_test_at_half_alpha(se: str) -> None:
    held = held_out({"clustered": 0.02}, noise=0.1)
    report = judge(se=se).decide(held, PLAN, n_clusters=2)
    expected = specialize_or_fall_back(
        held.of("clustered"), held.of("global"), dependence="time", se=se, alpha=0.025
    )
    assert report.tests["clustered"] == expected
    assert expected.gain == pytest.approx((held.of("global") - held.of("clustered")).mean())


def test_mean_gate_should_adopt_a_gain_that_the_test_cannot_see() -> None:
    held = held_out({"clustered": 0.015, "local": -1.0}, noise=0.1)
    assert 0 < (held.of("global") - held.of("clustered")).mean() < 0.05
    strict, lenient = judge().decide(held, PLAN, n_clusters=2), judge("mean").decide(held, PLAN, n_clusters=2)
    assert (strict.chosen, lenient.chosen) == ("global", "clustered")
    assert "asks for no test" in lenient.reason
    # What it chose without asking the test is no verdict of the test.
    assert (lenient.decision.adopt, lenient.decision.verdict) == (False, "undecided")
    assert strict.decision.needed > T


def test_identical_losses_should_keep_global() -> None:
    """Statement 8, the gate."""
    for gate in ("crossfit", "mean"):
        report = judge(gate).decide(held_out({}, noise=0.0), PLAN, n_clusters=1)
        assert report.chosen == "global"
        assert report.tests["clustered"].method == "identical"
        assert not report.decision.adopt
    assert "Identical" in judge().decide(held_out({}, noise=0.0), PLAN, n_clusters=1).reason


def test_cluster_scope_should_test_each_cluster_at_its_share_of_alpha() -> None:
    held = held_out({"clustered": 0.1}, clusters=[(0.3, 0.1), (0.0, 0.1), (-0.3, 0.1)])
    report = judge(scope="cluster").decide(held, PLAN, n_clusters=3)
    assert report.keep.tolist() == [True, False, False]
    assert report.chosen == "clustered"
    assert "1 of 3 clusters" in report.reason
    for k, decision in enumerate(report.by_cluster):
        losses = held.by_group[:, k]
        assert decision == specialize_or_fall_back(
            losses[:, 2], losses[:, 0], dependence="time", alpha=0.05 / 3
        )
    none = judge(scope="cluster").decide(held_out({}, clusters=[(-0.3, 0.1)] * 2), PLAN, n_clusters=2)
    assert (none.chosen, none.keep.tolist(), none.decision.adopt) == ("global", [False, False], False)


def test_a_cluster_without_held_out_origins_should_fall_back() -> None:
    for gate in ("crossfit", "mean", "paper"):
        held = held_out({}, clusters=[(0.3, 0.1), (0.0, 0.1)])
        held.by_group[:, 1] = np.nan
        report = judge(gate, "cluster").decide(held, PLAN, n_clusters=2)
        assert report.keep.tolist() == [True, False]
        assert len(report.by_cluster) == 2


def test_paper_gate_should_revert_clusters_that_are_strictly_worse() -> None:
    held = held_out({}, clusters=[(0.1, 0.01), (-0.1, 0.01)])
    report = judge("paper").decide(held, FoldPlan(folds=(), gap=0), n_clusters=2)
    assert (report.chosen, report.keep.tolist()) == ("clustered", [True, False])
    assert "kept" in report.by_cluster[0].reason
    assert "reverted" in report.by_cluster[1].reason
    assert report.by_cluster[0].gain == pytest.approx(0.1, abs=0.01)
    worse = held_out({}, clusters=[(-0.1, 0.01), (-0.1, 0.01)])
    assert judge("paper").decide(worse, FoldPlan(folds=(), gap=0), n_clusters=2).chosen == "global"


@given(loss=st.floats(1e-300, 1e300))
def test_paper_tie_should_stay_specialized_and_one_ulp_revert(loss: float) -> None:
    """Statement 18."""
    up, down = np.nextafter(loss, np.inf), np.nextafter(loss, -np.inf)
    assert paper_fallback([loss, up, down], [loss, loss, loss]).tolist() == [True, False, True]


def test_paper_tie_should_hold_through_the_judge() -> None:
    """Statement 18 on losses per origin: equal losses tie, one ulp on every origin does not."""
    held = held_out({}, clusters=[(0.0, 0.0), (0.0, 0.0)])
    held.by_group[:, 1, 2] = np.nextafter(1.0, 2.0)
    report = judge("paper").decide(held, FoldPlan(folds=(), gap=0), n_clusters=2)
    assert report.keep.tolist() == [True, False]
    assert report.by_cluster[0].gain == 0.0


def test_no_gate_should_use_the_clusters_whatever_they_cost() -> None:
    report = judge("none").decide(held_out({"clustered": -9.0}), FoldPlan(folds=(), gap=0), n_clusters=2)
    assert (report.chosen, report.keep.tolist(), report.decision.adopt) == ("clustered", [True, True], False)
    assert (report.code, report.decision.verdict) == ("untested", "undecided")
    assert "without a test" in report.reason


@pytest.mark.parametrize("gate", ["crossfit", "mean"])
def test_too_short_a_val_should_keep_global_with_its_reason(gate: str) -> None:
    """Statement 20."""
    short = plan_folds(100, 110, n_blocks=4, max_lag=24, horizon=1)
    for held in (None, held_out({"clustered": 0.9})):
        report = judge(gate).decide(held, short, n_clusters=2)
        assert report.chosen == "global"
        assert report.code == "val_too_short"
        assert report.decision.verdict == "undecided"


@pytest.mark.parametrize("gate", ["paper", "none"])
def test_a_panel_too_small_to_divide_should_keep_global(gate: str) -> None:
    report = judge(gate).decide(held_out({}), FoldPlan(folds=(), gap=0), n_clusters=0)
    assert report.chosen == "global"
    assert report.code == "too_few_series"


def test_flags_of_the_folds_should_reach_the_report() -> None:
    truncated = plan_folds(100, 200, n_blocks=4, max_lag=168, horizon=1)
    assert judge().decide(held_out({}), truncated, n_clusters=1).flag == "truncated_gap"


def test_candidates_should_be_described_beside_the_global_one() -> None:
    """Statement 23: the baselines are shown, whatever was chosen."""
    held = held_out({"clustered": 0.2, "feature": 0.1, "random": -0.1})
    report = judge().decide(held, PLAN, n_clusters=3)
    shown = describe_candidates(held, report, n_series=50, n_clusters=3, judged_on="held-out blocks")
    assert tuple(shown) == NAMES
    assert {name: c.n_specialists for name, c in shown.items()} == {
        "global": 1,
        "local": 50,
        "clustered": 3,
        "feature": 3,
        "random": 3,
    }
    base = held.of("global").mean()
    for name, candidate in shown.items():
        assert candidate.loss == pytest.approx(held.of(name).mean())
        assert candidate.relative_gain == pytest.approx((base - held.of(name).mean()) / base)
        assert candidate.chosen == (name == "clustered")
        assert (candidate.decision is None) == (name in ("global", "feature", "random"))
        assert candidate.to_dict()["name"] == name
