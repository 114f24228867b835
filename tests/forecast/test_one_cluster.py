"""A partition that ends with one cluster is the global model, whatever the folds found."""

from __future__ import annotations

import numpy as np
import pytest

from metier.forecast.gate.folds import Fold, FoldPlan
from metier.forecast.gate.heldout import HeldOut
from metier.forecast.gate.judge import Judge

PLAN = FoldPlan(folds=(Fold(block=(0, 20), keep=()), Fold(block=(20, 40), keep=())), gap=2)


def held_with(gain: float, local: float, n_clusters: int) -> HeldOut:
    rng = np.random.default_rng(3)
    base = 1.0 + 0.01 * rng.normal(size=40)
    losses = np.stack([base, base - local, base - gain], axis=1) + 1e-3 * rng.normal(size=(40, 3))
    return HeldOut(
        names=("global", "local", "clustered"),
        times=np.arange(40),
        by_time=losses,
        by_series=np.ones((6, 3)),
        by_group=np.repeat(losses[:, None], n_clusters, axis=1),
        n_series=np.full(40, 6),
    )


def judge(gate: str, scope: str) -> Judge:
    return Judge(gate=gate, scope=scope, se="ewc", alpha=0.05)


@pytest.mark.parametrize("gate", ["crossfit", "mean"])
@pytest.mark.parametrize("scope", ["whole", "cluster"])
def test_a_lone_cluster_should_not_be_adopted(gate: str, scope: str) -> None:
    report = judge(gate, scope).decide(held_with(0.1, -0.1, 1), PLAN, n_clusters=1)
    assert report.chosen == "global"
    assert not report.decision.adopt
    assert report.tests["clustered"].verdict == "equivalent"
    assert report.tests["clustered"].code == "one_cluster"
    two = judge(gate, scope).decide(held_with(0.1, -0.1, 2), PLAN, n_clusters=2)
    assert two.chosen == "clustered"
    assert two.decision.adopt == (two.decision.verdict == "pays")
    assert gate == "mean" or two.decision.adopt


@pytest.mark.parametrize("gate", ["crossfit", "mean"])
def test_local_models_should_still_be_adopted_beside_a_lone_cluster(gate: str) -> None:
    report = judge(gate, "whole").decide(held_with(0.2, 0.1, 1), PLAN, n_clusters=1)
    assert report.chosen == "local"
    assert report.decision.adopt
