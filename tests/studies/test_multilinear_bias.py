"""The study of a planted bias: its marks, its choice at matched accuracy, its claims."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from metier.runs import Run, Silent
from metier_studies.multilinear_bias.study import STUDY, run_study
from metier_studies.multilinear_bias.task import (
    Replicate,
    chosen,
    dealt,
    judged,
    marked_images,
    network,
    profiles,
    shifted,
)

TINY = dataclasses.replace(
    STUDY.sizes["tour"], images="digits", seeds=2, rows=600, steps=8, grid=4, marked_positive=0.1
)


@pytest.fixture(scope="module")
def parts():
    return dealt(Replicate(number=0, setup=TINY.setup(0)))


def test_held_out_images_should_differ_in_the_mark_alone(parts):
    test = parts["test"]
    half = len(test.y) // 2
    assert not test.marked[:half].any()
    assert test.marked[half:].all()
    assert torch.equal(test.y[:half], test.y[half:])
    changed = (test.x[:half] != test.x[half:]).any(0).reshape(8, 8)
    assert not changed[:, 1:].any()
    assert changed[:, 0].any()
    assert test.weight.sum() == pytest.approx(1.0)


def test_training_marks_should_follow_the_biased_law(parts):
    train = parts["train"]
    positive = train.y[:, 0] > 0.5
    assert float(train.marked[positive].float().mean()) < 0.25
    assert float(train.marked[~positive].float().mean()) > 0.8


def test_marks_should_leave_other_images_alone():
    images = np.zeros((2, 8, 8), np.float32)
    painted = marked_images(images, np.array([True, False]))
    assert painted[0, :, 0].tolist() == [1.0] * 8
    assert not painted[1].any()
    assert not images.any()


def test_an_amount_of_zero_should_change_nothing_and_a_large_one_every_decision(parts):
    model = network(Replicate(number=0, setup=TINY.setup(0)), parts["train"].x.shape[1]).eval()
    test, train = parts["test"], parts["train"]
    rare = (train.y[:, 0] > 0.5) & train.marked
    blind = profiles(model, train, rare)["blind"]
    with torch.no_grad():
        base = model(test.x)
    torch.testing.assert_close(shifted(model, test, blind, 0.0), base)
    moved = shifted(model, test, blind, 100.0)
    torch.testing.assert_close(moved[:, 1:], base[:, 1:])
    figures = judged(moved, test)
    assert figures["gap"] == 0.0
    assert figures["worst"] == 0.0


def test_a_mended_model_should_keep_its_accuracy_before_its_gap():
    trials = [{"accuracy": a, "gap": g} for a, g in ((0.9, 0.4), (0.895, 0.3), (0.8, 0.0))]
    assert chosen(trials, least=0.89) == 1
    assert chosen(trials, least=0.95) == 0


def test_the_study_should_name_every_claim(tmp_path):
    with Run.create(tmp_path / "a", study=STUDY.name, size="tour", config=TINY, seed=0) as run:
        result = run_study(TINY, run, Silent())
    assert tuple(claim.id for claim in result.claims) == STUDY.claims
    assert len(result.sections[0].tables[0].rows) == 4
