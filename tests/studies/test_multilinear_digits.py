"""The study of multilinear experts on images: sizes at a budget, equal beginnings, resuming, claims."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metier.core import InputError
from metier.runs import Run, Silent
from metier_studies.multilinear_digits.arms import ARMS, BUDGETS, build, cost, size_for
from metier_studies.multilinear_digits.study import STUDY, run_study
from metier_studies.multilinear_digits.task import Training, classifier, gate_weights, prepared, train

TINY = dataclasses.replace(
    STUDY.sizes["tour"],
    images="digits",
    arms=("dense", "low_rank", "sparse", "cp-4", "cp-64", "mxd-4", "cp-1024", "cp-1024-flat"),
    rates=(1e-3, 3e-3),
    seeds=2,
    rows=400,
    steps=6,
    permutations=9,
)
SHAPE = {"dim": 64, "hidden": 128}


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", [name for name in ARMS if name != "cp-1024-flat"])
def test_every_block_should_spend_the_budget_and_no_more(name, budget):
    allowed = cost(ARMS["dense"], size=128, **SHAPE)[budget]
    size = size_for(ARMS[name], budget=budget, **SHAPE)
    assert cost(ARMS[name], size=size, **SHAPE)[budget] <= allowed
    assert cost(ARMS[name], size=size + 1, **SHAPE)[budget] > allowed


@pytest.mark.parametrize("name", ["dense", "low_rank", "sparse", "cp-64", "mxd-1024"])
def test_multiplies_should_be_what_torch_counts(name):
    from torch.utils.flop_counter import FlopCounterMode

    arm = ARMS[name]
    size = size_for(arm, budget="multiplies", **SHAPE)
    block = build(arm, size=size, rng=0, **SHAPE)
    if name == "sparse":
        block.balancer = None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block.eval()(torch.randn(16, 64))
    if name != "sparse":  # its experts are dispatched by sizes that the counter does not see
        assert counter.get_total_flops() == 2 * 16 * cost(arm, size=size, **SHAPE)["multiplies"]
    assert counter.get_total_flops() > 0


def test_one_mode_of_a_thousand_experts_should_say_why_not():
    with pytest.raises(InputError, match="must pay for the gate"):
        size_for(ARMS["cp-1024-flat"], budget="parameters", **SHAPE)


def test_replicates_should_share_stem_and_head():
    setup = TINY.setup(0)
    a, b = (
        classifier(
            Training(arm=arm, size=8, replicate=3, learning_rate=1e-3, split="test", setup=setup), 64, 10
        )
        for arm in ("dense", "cp-64")
    )
    assert torch.equal(a.stem.weight, b.stem.weight)
    assert torch.equal(a.head.weight, b.head.weight)


def test_splits_should_be_disjoint_and_standardized_by_the_training_part():
    splits, images = prepared(TINY.setup(0))
    assert sum(len(part.y) for part in splits.values()) == 400 == len(images.labels)
    assert abs(float(splits["train"].x.mean())) < 1e-5
    assert float(splits["train"].x.std()) == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("name", ["sparse", "cp-1024"])
def test_weights_of_experts_should_be_a_simplex_and_trainings_repeat(name):
    setup = TINY.setup(0)
    task = Training(arm=name, size=8, replicate=0, learning_rate=1e-3, split="test", setup=setup)
    splits, _ = prepared(setup)
    weights = gate_weights(classifier(task, 64, 10).eval(), splits["test"].x)
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-9)
    if name == "sparse":
        assert ((weights > 0).sum(1) == 2).all()
    assert train(task) == train(task)


def test_the_study_should_name_every_claim_and_resume_to_the_same_bytes(tmp_path):
    with Run.create(tmp_path / "a", study=STUDY.name, size="tour", config=TINY, seed=0) as run:
        first = run_study(TINY, run, Silent())
        again = run_study(TINY, run, Silent())
    assert first == again
    assert {claim.id for claim in first.claims} == set(STUDY.claims)
    assert "one mode" in first.notes[1]
    assert first.headline.specialized.information > 0
    assert len(first.headline.divided.load) == 64
    table = {row[0]: row for row in first.sections[0].tables[0].rows}
    assert table["cp, 64 experts"][2] <= table["dense"][2]


@pytest.mark.parametrize(
    "changes", [{"arms": ("dense", "cp-9")}, {"arms": ("dense",)}, {"budgets": ("watts",)}]
)
def test_unknown_blocks_and_budgets_should_be_refused(tmp_path, changes):
    config = dataclasses.replace(TINY, **changes)
    with (
        Run.create(tmp_path / "a", study=STUDY.name, size="tour", config=config, seed=0) as run,
        pytest.raises(InputError, match="arms name blocks"),
    ):
        run_study(config, run, Silent())
