"""The public names and their keywords, as other programs call them: fixed, free to grow."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import metier
from metier.forecast import ClusterForecaster

REQUIRED = inspect.Parameter.empty

SIGNATURES = {
    "Assignment.from_labels": (("labels", REQUIRED), ("n_specialists", None)),
    "Assignment.from_weights": (("W", REQUIRED),),
    "Assignment.relabel": (("perm", REQUIRED),),
    "Assignment.merge": (("groups", REQUIRED),),
    "information": (
        ("contexts", REQUIRED),
        ("specialists", REQUIRED),
        "*",
        ("given", None),
        ("groups", None),
        ("permutations", 199),
        ("rng", 0),
    ),
    "compare_paired": (
        ("a", REQUIRED),
        ("b", REQUIRED),
        "*",
        ("dependence", "independent"),
        ("level", 0.95),
    ),
    "specialize_or_fall_back": (
        ("loss_specialists", REQUIRED),
        ("loss_generalist", REQUIRED),
        "*",
        ("dependence", "independent"),
        ("alpha", 0.05),
        ("margin", 0.0),
    ),
    "bilevel.FittedBellman": (
        "*",
        ("discount", REQUIRED),
        ("estimator", "obigrad"),
        ("folds", 5),
        ("rng", 0),
    ),
    "bilevel.SourceReweighting": ("*", ("loss", "squared"), ("learner", None), ("folds", 5), ("rng", 0)),
    "bilevel.IVBilevel": (
        "*",
        ("features", "linear"),
        ("learner", None),
        ("estimator", "obigrad"),
        ("folds", 5),
        ("repeats", 1),
        ("rng", 0),
    ),
    "bilevel.IVBilevel.fit": (
        ("y", REQUIRED),
        ("t", REQUIRED),
        ("z", REQUIRED),
        "*",
        ("controls", None),
        ("weights", None),
        ("groups", None),
    ),
    "bilevel.IVBilevel.hypergradient": (("w", REQUIRED),),
    "forecast.ClusterForecaster": (
        "*",
        ("model", "ridge"),
        ("n_clusters", "auto"),
        ("lags", 24),
        ("season_length", None),
        ("horizon", 1),
        ("strategy", "recursive"),
        ("loss", "squared"),
        ("quantiles", (0.1, 0.5, 0.9)),
        ("gate", "crossfit"),
        ("se", "ewc"),
        ("alpha", 0.05),
        ("scope", "whole"),
        ("assign_on", "val"),
        ("val_size", 0.2),
        ("shrinkage", "auto"),
        ("freq", None),
        ("id_col", "unique_id"),
        ("time_col", "ds"),
        ("target_col", "y"),
        ("backend", "serial"),
        ("rng", 0),
    ),
    "forecast.ClusterForecaster.fit": (("df", REQUIRED),),
    "forecast.ClusterForecaster.predict": (("h", None), "*", ("level", None), ("future", None)),
    "forecast.ClusterForecaster.cross_validation": (
        ("df", REQUIRED),
        "*",
        ("h", None),
        ("n_windows", 1),
        ("step_size", None),
    ),
    "forecast.ClusterForecaster.assign": (("df", REQUIRED),),
    "forecast.ClusterForecaster.save": (("folder", REQUIRED),),
    "forecast.ClusterForecaster.load": (("folder", REQUIRED),),
    "moe.balancer": (
        ("name", REQUIRED),
        "*",
        ("strength", None),
        ("half_life_tokens", None),
        ("potential", "shannon"),
    ),
    "moe.routing_metrics": (("counts", REQUIRED),),
    "moe.SparseMoE": (
        ("dim", REQUIRED),
        ("hidden_dim", REQUIRED),
        "*",
        ("n_experts", REQUIRED),
        ("top_k", REQUIRED),
        ("balancer", None),
        ("dispatch", "auto"),
    ),
    "bilevel.BilevelProblem": (("inner_loss", REQUIRED), ("outer_loss", REQUIRED)),
    "bilevel.OBiGrad": (
        ("problem", REQUIRED),
        "*",
        ("learner", None),
        ("estimator", "obigrad"),
        ("folds", 5),
        ("repeats", 1),
        ("rng", 0),
    ),
    "bilevel.OBiGrad.hypergradient": (("w", REQUIRED),),
    "bilevel.OBiGrad.objective": (("w", REQUIRED),),
    "bilevel.OBiGrad.solve": (("w0", None), "*", ("method", "newton")),
    "bilevel.HypergradientEstimate.interval": (("level", 0.95),),
    "moe.attach": (("model", REQUIRED), ("balancer", REQUIRED), "*", ("tokens_per_step", None)),
    "moe.audit": (("model", REQUIRED), ("batches", REQUIRED), "*", ("labels", None)),
    "moe.Attachment.step": (("group", None),),
    "moe.Attachment.metrics": (),
    "moe.Attachment.state_dict": (),
    "moe.Attachment.load_state_dict": (("state", REQUIRED),),
    "moe.Attachment.detach": (("bake_bias", False),),
    "moe.MultilinearMoE": (
        ("in_features", REQUIRED),
        ("out_features", REQUIRED),
        "*",
        ("n_experts", REQUIRED),
        ("form", "cp"),
        ("rank", None),
        ("gate", "entmax15"),
        ("norm", "layer"),
        ("bias", True),
    ),
    "moe.MultilinearMoE.from_linear": (("linear", REQUIRED), "*", ("n_experts", REQUIRED)),
    "moe.MultilinearMoE.expert_weight": (("n", REQUIRED),),
    "moe.MultilinearMoE.expert_bias": (("n", REQUIRED),),
    "moe.MultilinearMoE.ablated": (("experts", REQUIRED),),
    "moe.MultilinearMoE.gate_values": (("x", REQUIRED),),
    "moe.MultilinearMoE.save_pretrained": (("folder", REQUIRED),),
    "moe.MultilinearMoE.from_pretrained": (("folder", REQUIRED),),
    "moe.rank_for_budget": (
        ("in_features", REQUIRED),
        ("out_features", REQUIRED),
        "*",
        ("n_experts", REQUIRED),
        ("form", "cp"),
        ("parameters", None),
        ("ring_ranks", (4, 4)),
        ("rounding", "floor"),
    ),
    "moe.entmax15": (("x", REQUIRED), ("dim", -1)),
    "moe.decay_groups": (("model", REQUIRED),),
    "moe.replace": (("model", REQUIRED), ("pattern", REQUIRED), "*", ("n_experts", REQUIRED)),
    "partners.train_self_play": (
        ("game", REQUIRED),
        "*",
        ("n_members", REQUIRED),
        ("steps", REQUIRED),
        ("rng", 0),
    ),
    "partners.train_xp_min": (
        ("game", REQUIRED),
        "*",
        ("n_members", REQUIRED),
        ("steps", REQUIRED),
        ("xp_weight", 0.3),
        ("mi_weight", 0.0),
        ("mixed_play_weight", 0.0),
        ("rng", 0),
    ),
    "partners.cross_play": (
        ("policies", REQUIRED),
        ("game", REQUIRED),
        "*",
        ("episodes", REQUIRED),
        ("rng", 0),
    ),
    "partners.evaluate": (
        ("generalist", REQUIRED),
        ("policies", REQUIRED),
        ("game", REQUIRED),
        "*",
        ("episodes", REQUIRED),
        ("rng", 0),
    ),
    "partners.distill": (
        ("population", REQUIRED),
        ("game", REQUIRED),
        "*",
        ("method", "spectrl_dagger"),
        ("dagger_weight", 0.1),
        ("steps", REQUIRED),
        ("rng", 0),
    ),
    "partners.train_generalist": (
        ("population", REQUIRED),
        ("game", REQUIRED),
        "*",
        ("steps", REQUIRED),
        ("rng", 0),
    ),
    "partners.behaviour_information": (
        ("probabilities", None),
        "*",
        ("counts", None),
        ("weights", None),
        ("undefined", "drop"),
        ("correction", "miller_madow"),
    ),
    "partners.trajectory_information": (("log_probs", REQUIRED), "*", ("weights", None)),
    "partners.overfitness": (
        ("successes", REQUIRED),
        ("episodes", REQUIRED),
        "*",
        ("smoothing", 0.5),
    ),
    "multi_index.exponents": (("activation", REQUIRED), "*", ("certify", True)),
    "multi_index.nse_table": (),
    "multi_index.thresholds": (("activation", REQUIRED), "*", ("snr", REQUIRED), ("normalize", False)),
    "multi_index.asymptotics": (("activation", REQUIRED), "*", ("normalize", False)),
    "multi_index.phase_diagram": (
        ("activation", REQUIRED),
        "*",
        ("sample_ratios", REQUIRED),
        ("snrs", REQUIRED),
    ),
    "multi_index.committee": (("activation", REQUIRED), "*", ("n_units", REQUIRED), ("noise", REQUIRED)),
    "multi_index.hierarchical": (
        ("activation", REQUIRED),
        "*",
        ("decay", REQUIRED),
        ("noise", REQUIRED),
        ("n_units", REQUIRED),
    ),
    "multi_index.local_exponent": (("x", REQUIRED), ("y", REQUIRED)),
    "multi_index.step_activation": (("noise_sensitivity", 3),),
    "multi_index.Exponents.coefficient": (("power", REQUIRED), ("degree", REQUIRED)),
}

CHOICES = {
    "strategy": ("recursive", "direct"),
    "loss": ("squared", "huber", "pinball"),
    "gate": ("crossfit", "mean", "paper", "none"),
    "se": ("ewc", "hac"),
    "scope": ("whole", "cluster"),
    "assign_on": ("val", "train", "both"),
    "backend": ("serial", "joblib", "dask", "ray"),
}

BILEVEL_ESTIMATORS = ("obigrad", "plugin", "adjoint_instrument", "kbo", "oracle")


def find(dotted):
    found = metier
    for name in dotted.split("."):
        found = getattr(found, name)
    return found


def parameters_of(dotted):
    return {name: p for name, p in inspect.signature(find(dotted)).parameters.items() if name != "self"}


@pytest.mark.parametrize("dotted", SIGNATURES)
def test_signature_should_keep_its_promise(dotted):
    parameters, keyword_only = parameters_of(dotted), False
    for entry in SIGNATURES[dotted]:
        if entry == "*":
            keyword_only = True
            continue
        name, default = entry
        assert name in parameters, f"{dotted} lost {name}"
        assert parameters[name].default == default, f"{dotted}({name}=...) changed its default"
        assert (parameters[name].kind is inspect.Parameter.KEYWORD_ONLY) == keyword_only, name


@pytest.mark.parametrize("dotted", SIGNATURES)
def test_additions_should_be_optional(dotted):
    promised = {entry[0] for entry in SIGNATURES[dotted] if entry != "*"}
    added = {name: p for name, p in parameters_of(dotted).items() if name not in promised}
    open_ended = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    required = [name for name, p in added.items() if p.default is REQUIRED and p.kind not in open_ended]
    assert required == []


def test_top_level_names_should_be_there():
    promised = {"Assignment", "information", "compare_paired", "specialize_or_fall_back", "forecast", "data"}
    assert promised <= set(metier.__all__)
    assert all(getattr(metier, name) is not None for name in metier.__all__)
    assert set(metier.__all__) <= set(dir(metier))


def test_an_unknown_name_should_say_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'assignment'; it has Assignment, .*forecast"):
        metier.assignment  # noqa: B018


def test_assignment_should_have_its_attributes():
    a = metier.Assignment.from_weights([[0.5, 0.5], [1.0, 0.0]])
    assert a.weights.shape == (2, 2)
    assert a.labels.tolist() == [0, 0]
    assert a.load.tolist() == [0.75, 0.25]
    assert a.information == pytest.approx(a.breadth - a.indecision)


def test_information_should_have_its_attributes():
    result = metier.information([0, 0, 1, 1] * 5, [0, 0, 1, 1] * 5)
    assert result.value == pytest.approx(np.log(2))
    assert result.value == pytest.approx(result.ceiling)
    assert result.null_mean < result.value
    assert result.null_sd > 0
    assert result.p_value == 1 / 200


def test_exponents_should_have_their_attributes():
    e = metier.multi_index.exponents("x**4 - 6*x**2 + 3")
    assert (e.information, e.generative, e.leap, e.noise_sensitivity, e.strong_recovery) == (4, 2, 4, 2, 2)
    c = e.coefficient(2, 2)
    assert (c.mid, c.rad, c.state) == (192.0, 0.0, "certified nonzero")
    assert str(e.certificate).startswith("certified")
    assert 0 < e.onset_snr < 1e-3
    assert isinstance(metier.multi_index.exponents("sign").noise_sensitivity, float)


def test_comparison_and_decision_should_have_their_attributes():
    a, b = [1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 4.0, 4.0]
    c = metier.compare_paired(a, b)
    assert (c.gain, c.n) == (0.5, 4)
    assert c.interval[0] < c.gain < c.interval[1]
    assert c.stderr > 0
    d = metier.specialize_or_fall_back(a, b)
    assert d.verdict in ("pays", "hurts", "equivalent", "undecided")
    assert d.adopt is (d.verdict == "pays")
    assert d.needed == 6
    assert d.gain == c.gain
    assert str(d.n) in d.reason
    assert 0 < d.p_value < 1
    assert d.interval[0] < d.gain < d.interval[1]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in CHOICES for value in CHOICES[name]])
def test_every_promised_choice_should_be_accepted(name, value):
    from metier.forecast.settings import pipeline_of

    forecaster = ClusterForecaster(**{name: value})
    assert pipeline_of(forecaster, n_series=40, seed=0, report=lambda *_: None) is not None


def test_thresholds_and_constants_should_have_their_attributes():
    t = metier.multi_index.thresholds("abs", snr=0.1)
    names = ("weak_recovery", "strong_recovery", "spinodal", "it_detection", "it_strong", "gap", "strong_gap")
    assert all(isinstance(getattr(t, name), float) for name in names)
    assert t.gap == 1.0
    assert t.reasons["spinodal"]
    a = metier.multi_index.asymptotics("abs")
    assert a.weak_recovery == pytest.approx(np.pi / 2)
    assert a.it_detection == pytest.approx(np.pi / 2)
    assert a.spinodal == pytest.approx(np.pi / 2)


def test_forecaster_should_have_its_attributes():
    promised = {"assignment_", "decision_", "loss_matrix_", "candidates_"}
    methods = {"fit", "predict", "cross_validation", "assign", "save", "load"}
    assert promised | methods <= set(dir(ClusterForecaster))
    assert set(ClusterForecaster().get_params()) >= {
        entry[0] for entry in SIGNATURES["forecast.ClusterForecaster"] if entry != "*"
    }


@pytest.mark.parametrize("estimator", BILEVEL_ESTIMATORS)
def test_every_promised_estimator_should_be_accepted(estimator):
    bilevel = metier.bilevel
    problem = bilevel.BilevelProblem(bilevel.Squared(bilevel.AffineTarget(None, "T")), bilevel.Squared("Y"))
    assert bilevel.OBiGrad(problem, estimator=estimator).estimator == estimator


def test_hypergradients_should_have_their_attributes():
    promised = {"value", "stderr", "covariance", "plugin", "correction", "scores", "diagnostics", "warnings"}
    assert promised | {"interval", "summary", "to_dict"} <= set(dir(metier.bilevel.HypergradientEstimate))
    assert {"w", "covariance", "interval", "trace", "warnings"} <= set(dir(metier.bilevel.Solution))
