"""The trials of the gate study against plain loops, and its findings on trials made by hand."""

import numpy as np
import pytest

from metier.data import simulate_regimes
from metier.runs import execute, read_result
from metier_studies.forecast_gate.study import STUDY, GateConfig, cases
from metier_studies.forecast_gate.trials import GATES, panel_data, run_trial, score_on_test, true_partition


@pytest.fixture(scope="module")
def fitted():
    """A fitted pipeline of a small panel, with its forecaster's search."""
    from metier.forecast import ClusterForecaster
    from metier.forecast.settings import pipeline_of

    panel = simulate_regimes("small", rng=3, n_test=40)
    past = panel.n_train + panel.n_val
    forecaster = ClusterForecaster(lags=3, n_clusters=2, val_size=panel.n_val / past, gate="none")
    pipeline = pipeline_of(forecaster, n_series=panel.n_series, seed=0, report=lambda *_: None)
    return panel, pipeline.search, pipeline.run(panel_data(panel.values[:, :past], 3))


def test_test_gains_should_equal_plain_loops(fitted):
    panel, search, result = fitted
    past = panel.n_train + panel.n_val
    true = true_partition(search, result, panel.labels)
    found = score_on_test(search, result, panel_data(panel.values, 3), {"true": true, **result.final})
    center, scale = panel.values[:, :past].mean(axis=1), panel.values[:, :past].std(axis=1)
    z = (panel.values - center[:, None]) / scale[:, None]

    def loss(model):
        theta = model.theta[0][model.labels]
        total = [
            (z[i, t] - (theta[i, :3] @ z[i, t - 3 : t][::-1] + theta[i, 3])) ** 2
            for i in range(panel.n_series)
            for t in range(past, z.shape[1])
        ]
        return np.mean(total)

    base = loss(result.final["global"])
    for name, model in {"true": true, "local": result.final["local"]}.items():
        assert found[name] == pytest.approx(1.0 - loss(model) / base, rel=1e-9)
    assert found["global"] == 0.0


def test_true_partition_should_be_one_ridge_per_regime(fitted):
    panel, search, result = fitted
    design, past = result.final_design, panel.n_train + panel.n_val
    model = true_partition(search, result, panel.labels)
    for k, regime in enumerate(np.unique(panel.labels)):
        X, y, _ = design.rows(np.flatnonzero(panel.labels == regime), 3, past)
        X, y = X.reshape(-1, 4), y.ravel()
        direct = np.linalg.solve(X.T @ X + search.penalty * np.eye(4), X.T @ y)
        np.testing.assert_allclose(model.theta[0][k], direct, rtol=1e-8, atol=1e-10)


def test_trial_should_repeat_and_agree_with_itself():
    first = run_trial("small", seed=5, lags=3, n_test=50)
    assert first == run_trial("small", seed=5, lags=3, n_test=50)
    assert set(first["chosen"]) == set(first["gain"]) == set(GATES)
    for gate in ("crossfit", "crossfit_hac", "mean"):
        used = first["chosen"][gate]
        expected = 0.0 if used == "global" else first["candidate_gain"][used]
        assert first["gain"][gate] == pytest.approx(expected, abs=1e-12)


def made_up(design, *, seed, anomalies=False, separation=None, **settings):
    """A trial with plain outcomes: adopted everywhere but by tests on panels without regimes."""
    none = "homogeneous" in design or "control" in design
    known = 0.0 if none else (separation or 1.0) / 10
    used = {gate: "global" if none and gate != "paper" else "clustered" for gate in GATES}
    gain = 0.9 * known - 0.01 * none + 1e-4 * (seed % 7) + 0.02 * (settings["assign_on"] == "both")
    return {
        "oracle": known,
        "ari": 0.1 if settings["loss"] == "huber" and "noise" in design else 0.95,
        "chosen": used,
        "gain": {gate: gain if used[gate] == "clustered" else 0.0 for gate in GATES},
        "candidate_gain": {
            "local": 0.0,
            "clustered": gain,
            "feature": gain - 0.01,
            "random": 0.0,
            "true": known + 1e-4 * (seed % 5),
        },
    }


@pytest.fixture
def plain_trials(monkeypatch):
    calls = []

    def trial(design, **settings):
        calls.append((design, settings["seed"]))
        return made_up(design, **settings)

    monkeypatch.setattr("metier_studies.forecast_gate.trials.run_trial", trial)
    return calls


OVERRIDES = {
    "homogeneous_seeds": "40",
    "power_seeds": "100",
    "both_seeds": "30",
    "recovery_seeds": "8",
    "noise_seeds": "40",
}


def test_findings_should_judge_every_claim(tmp_path, plain_trials):
    result = execute(STUDY, tmp_path / "run", size="standard", overrides=OVERRIDES)
    assert [claim.id for claim in result.claims] == list(STUDY.claims)
    assert {claim.id: claim.verdict for claim in result.claims} == dict.fromkeys(STUDY.claims, "holds")
    assert "adopts in 40 of 40 panels" in result.sections[0].text
    assert len(plain_trials) == sum(
        case.n_seeds for case in cases(GateConfig(**{key: int(text) for key, text in OVERRIDES.items()}))
    )


def test_killed_study_should_resume_to_the_same_bytes(tmp_path, plain_trials):
    overrides = {
        "homogeneous_seeds": "4",
        "power_seeds": "3",
        "both_seeds": "2",
        "recovery_seeds": "2",
        "noise_seeds": "2",
    }
    execute(STUDY, tmp_path / "whole", size="standard", overrides=overrides)
    execute(STUDY, tmp_path / "killed", size="standard", overrides=overrides)
    whole = (tmp_path / "whole" / "result.json").read_bytes()
    (tmp_path / "killed" / "result.json").unlink()
    journal = tmp_path / "killed" / "metrics.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]))
    before = len(plain_trials)
    execute(STUDY, tmp_path / "killed", size="standard", overrides=overrides, resume=True)
    assert (tmp_path / "killed" / "result.json").read_bytes() == whole
    assert len(plain_trials) - before == len(lines) - len(lines) // 2
    assert read_result(tmp_path / "killed").study == "forecast-gate"


def test_power_panels_should_share_their_seeds_across_separations(tmp_path, plain_trials):
    overrides = {**OVERRIDES, "power_seeds": "3", "both_seeds": "3", "separations": "0.1,0.4"}
    execute(STUDY, tmp_path / "run", size="standard", overrides=overrides)
    seeds = [seed for design, seed in plain_trials if design == "weak"]
    assert seeds == 4 * seeds[:3]
    assert len(set(seeds)) == 3
