import html
import json

import numpy as np
import pytest

from metier.core import InputError
from metier.runs import read_result
from metier_studies import execute, load_study
from metier_studies.bilevel_iv.cases import CASES
from metier_studies.bilevel_iv.work import rival_estimates
from metier_studies.bilevel_paper.bellman import DESIGNS, basis, bellman_replicate, draw, true_gradient
from metier_studies.bilevel_sources.designs import WEIGHTS_AT, log_odds, true_gradient as sources_gradient

SMALL = {
    "iv": {"cases": "labsup,card", "repeats": "1", "plugin_seeds": "6", "weak_seeds": "6"},
    "bilevel-paper": {
        "replicates": "5",
        "sizes_1": "200",
        "sizes_4": "100",
        "kernel_replicates": "2",
        "kernel_sizes": "100",
        "penalties": "0.01",
        "bellman_replicates": "5",
        "bellman_sizes": "200",
    },
    "bilevel-lasso": {"sizes": "100,200", "seeds": "5", "folds": "2"},
    "bilevel-warnings": {
        "shapes": "linear,sine",
        "sizes": "200",
        "strengths": "0.1,0.8",
        "cells": "6",
        "seeds": "4",
        "workers": "1",
    },
    "bilevel-sources": {
        "gradient_sizes": "300",
        "gradient_seeds": "5",
        "weight_n": "150",
        "weight_seeds": "1",
        "n_airports": "12",
        "n_clusters": "2",
        "n_weeks": "4",
    },
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n == "bilevel-sources" else []) for n in SMALL]
)
def test_study_should_run_resume_and_report(name, tmp_path):
    from metier.report import write_report

    study = load_study(name)
    result = execute(study, tmp_path / "run", overrides=SMALL[name], seed=1)
    assert {claim.id for claim in result.claims} == set(study.claims)
    first = (tmp_path / "run/result.json").read_bytes()
    (tmp_path / "run/result.json").unlink()
    execute(study, tmp_path / "run", overrides=SMALL[name], seed=1, resume=True)
    assert (tmp_path / "run/result.json").read_bytes() == first
    page = write_report([tmp_path / "run"], tmp_path / "report.html")
    assert result.title in html.unescape(page.read_text(encoding="utf-8"))
    assert read_result(tmp_path / "run").command.startswith(f"metier run {name} --size tour --seed 1")


@pytest.mark.parametrize("name", ["B1", "B2", "B3"])
def test_true_gradient_of_a_bellman_design_should_be_a_large_samples_mean(name):
    design = DESIGNS[name]
    at = design.w_star + 0.3
    X, Z = draw(design, 400_000, np.random.default_rng(0))
    from dataclasses import replace

    from metier_studies.bilevel_paper.bellman import mean_next

    j = mean_next(X[:, 0], X[:, 1], design)
    sample = j * (Z["R"] + Z["slope"] @ at - Z["Y"])[:, None]
    truth = true_gradient(replace(design, w=at))
    # Two-sided 4 standard errors on each coordinate: below 0.03 % in all.
    assert (np.abs(sample.mean(axis=0) - truth) < 4 * sample.std(axis=0) / np.sqrt(400_000)).all()
    assert basis(X[:10]).shape == (10, 37)


def test_bellman_replicate_should_report_every_estimator():
    found = bellman_replicate("B3", 300, 0)
    assert set(found) == {f"{k}{s}" for k in ("plugin", "obigrad", "oracle") for s in ("", "_covered")}
    assert json.dumps(found)


def test_gradient_of_the_sources_should_be_the_difference_of_its_loss():
    from scipy.special import expit

    grid = (np.arange(401) + 0.5) / 401 * 4.0 - 2.0
    x = np.column_stack([a.ravel() for a in np.meshgrid(grid, grid)])
    p = np.stack([expit(log_odds(x, s)) for s in range(3)])

    def loss(w):
        c = np.array([1.0, *np.exp(w)])
        mixed = c @ p / c.sum()
        return -np.mean(p[0] * np.log(mixed) + (1 - p[0]) * np.log(1 - mixed))

    steps = np.eye(2) * 1e-5
    differences = [(loss(WEIGHTS_AT + h) - loss(WEIGHTS_AT - h)) / 2e-5 for h in steps]
    np.testing.assert_allclose(sources_gradient(WEIGHTS_AT), differences, atol=1e-9)


@pytest.mark.slow
def test_rivals_should_be_measured_or_said_not_to_be(tmp_path, monkeypatch):
    own = tmp_path / "own.py"
    own.write_text("def estimate(y, t, z, x):\n    return y.mean(), 1.5\n")
    found = rival_estimates("card", seed=0, path=str(own))
    assert found["rival"] == [pytest.approx(CASES["card"]().y.mean()), 1.5]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    without = rival_estimates("card", seed=0, path=None)
    assert set(without.values()) == {None}
    with pytest.raises(InputError, match="a rival is a Python file"):
        rival_estimates("card", seed=0, path=str(tmp_path / "none.py"))
