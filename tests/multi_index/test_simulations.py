"""Simulations agree with their theory, to their finite-size spread, and repeat from a seed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from solved import thresholds

from metier.core import InputError
from metier.multi_index import as_activation, simulate, step_activation
from metier.multi_index.simulate.gamp import posterior_moments


@pytest.mark.slow
def test_gamp_should_land_on_state_evolution():
    # Two-sided: the mean over 8 seeds at d = 1000 moves by 0.022/sqrt(8); 0.03 is 3.9 standard errors.
    above = simulate.gamp("abs", snr=2.0, sample_ratio=4.0, dimension=1000, n_seeds=8, rng=17)
    assert above.theory == pytest.approx(0.761, abs=2e-3)
    assert above.spread.mean == pytest.approx(0.761, abs=0.03)
    assert above.excess_risk.mean() == pytest.approx(above.excess_risk_theory.mean(), rel=0.05)
    below = simulate.gamp("abs", snr=2.0, sample_ratio=0.6, dimension=1000, n_seeds=8, rng=17)
    assert below.theory == 0.0
    assert below.spread.mean < 0.02


def test_small_gamp_should_recover():
    run = simulate.gamp("abs", snr=2.0, sample_ratio=6.0, dimension=120, n_seeds=2, rng=1)
    assert abs(run.spread.mean - run.theory) < 0.15


def test_posterior_moments_should_equal_the_gaussian_closed_form():
    sigma, snr, variance = as_activation("linear"), 3.0, 0.4
    y, omega = np.array([0.3, -2.0, 1.1]), np.array([0.1, -0.5, 2.0])
    mean, spread = posterior_moments(sigma, snr, y, omega, variance)
    expected = 1 / (1 / variance + snr)
    np.testing.assert_allclose(spread, expected, rtol=1e-8)
    np.testing.assert_allclose(mean, expected * (omega / variance + math.sqrt(snr) * y), rtol=1e-8)


@pytest.mark.parametrize(("name", "q"), [("square", 0.3), ("He3", 0.6), ("tanh", 0.8)])
def test_unexplained_risk_should_equal_a_direct_integral(name, q):
    sigma = as_activation(name)
    u, p = np.polynomial.hermite_e.hermegauss(120)
    p = p / p.sum()
    z = math.sqrt(q) * u[:, None] + math.sqrt(1 - q) * u
    conditional = sigma(z) @ p
    direct = sigma.second_moment - float(p @ conditional**2)
    assert simulate.unexplained(sigma, q) == pytest.approx(direct, rel=1e-6)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_unexplained_risk_of_abs_should_equal_its_closed_form(q):
    # E|a||b| for correlation q is (2/pi)(sqrt(1-q^2) + q asin q).
    expected = 1 - 2 / math.pi * (math.sqrt(1 - q * q) + q * math.asin(q))
    assert simulate.unexplained(as_activation("abs"), q) == pytest.approx(expected, rel=1e-4)


def test_spectral_start_should_follow_its_limit():
    run = simulate.spectral("abs", snr=2.0, sample_ratios=[0.5, 3.0, 6.0], dimension=600, n_seeds=3)
    assert run.theory[0] == 0.0
    np.testing.assert_allclose(run.overlaps.mean(axis=1), run.theory, atol=0.09)
    sigma = as_activation("abs")
    onset = thresholds(sigma, snr=2.0).weak_recovery
    assert simulate.spectral_overlap(sigma, 2.0, 0.97 * onset) == 0.0
    assert 0.0 < simulate.spectral_overlap(sigma, 2.0, 1.05 * onset) < 0.05
    with pytest.raises(InputError, match="without a linear part"):
        simulate.spectral("tanh", snr=1.0, sample_ratios=[1.0], dimension=50)


@pytest.mark.parametrize(
    "run",
    [
        lambda rng: simulate.spectral("abs", snr=2.0, sample_ratios=[2.0], dimension=40, n_seeds=2, rng=rng),
        lambda rng: simulate.online_sgd(
            "tanh", snr=2.0, sample_ratio=2, reuse=0.1, dimension=30, n_seeds=2, rng=rng
        ),
        lambda rng: simulate.committee_amp(
            "abs", noise=0.5, sample_ratio=2, dimension=30, n_seeds=2, max_iterations=4, rng=rng
        ),
        lambda rng: simulate.gamp(
            "abs", snr=2.0, sample_ratio=2, dimension=40, n_seeds=2, max_iterations=9, rng=rng
        ),
        lambda rng: simulate.gamp(
            "abs",
            snr=2.0,
            sample_ratio=2,
            dimension=40,
            n_seeds=2,
            start="spectral",
            max_iterations=9,
            rng=rng,
        ),
        lambda rng: simulate.train_student(
            "abs", n_units=2, decay=1.0, noise=0.1, sample_ratio=2, dimension=20, n_seeds=2, steps=9, rng=rng
        ),
    ],
    ids=["spectral", "sgd", "committee", "gamp", "gamp-spectral", "hierarchy-student"],
)
def test_every_simulation_should_repeat_from_its_seed(run):
    found = run(3)
    assert found.to_dict() == run(3).to_dict() != run(4).to_dict()
    assert found.status in ("derived", "heuristic")


def test_gamp_should_keep_its_spectral_start():
    # From the top eigenvector alone the first steps lose what it knows.
    run = simulate.gamp("abs", snr=2.0, sample_ratio=5.0, dimension=200, n_seeds=2, start="spectral", rng=1)
    assert run.overlaps.min() > 0.5
    assert run.trajectory[0].min() > 0.3


def test_hierarchies_should_weigh_units_by_rank():
    teacher = simulate.plant(
        as_activation("abs"), np.random.default_rng(0), dimension=9, n_units=3, decay=1.0
    )
    assert teacher.strengths.tolist() == [1.0, 0.5, 1 / 3]
    with pytest.raises(InputError, match="decay"):
        simulate.train_student("abs", n_units=2, noise=0.1, sample_ratio=1, decay=-1.0)


def test_online_sgd_should_follow_its_equation():
    # Spread of the cosine is O(d^-1/2); the limit starts from each seed's own start.
    run = simulate.online_sgd(
        "tanh", snr=4.0, sample_ratio=10, dimension=400, n_seeds=3, start=0.2, normalize=True
    )
    assert np.abs(run.overlaps.mean(axis=1) - run.theory.mean(axis=1)).max() < 0.08
    assert run.overlaps[0] == pytest.approx(0.04)
    assert run.overlaps[-1].min() > 0.7


def test_reuse_should_change_the_limit_and_zero_should_be_one_pass():
    setting = {
        "snr": 4.0,
        "sample_ratio": 2,
        "dimension": 100,
        "n_seeds": 1,
        "normalize": True,
        "start": 0.3,
    }
    plain = simulate.online_sgd("tanh", **setting)
    twice = simulate.online_sgd("tanh", reuse=0.3, **setting)
    assert plain.overlaps.tolist() == simulate.online_sgd("tanh", reuse=0.0, **setting).overlaps.tolist()
    assert abs(plain.theory[-1, 0] - twice.theory[-1, 0]) > 1e-3


@pytest.mark.parametrize("m", [0.3, 0.9])
def test_sgd_drift_of_abs_should_equal_its_closed_form(m):
    # h = y sign(s): E[sign s | t] and E[|s| | t] are known, which leaves one integral over t.
    from scipy.special import ndtr

    from metier.multi_index.simulate.sgd import _drift, _Gradient, slope_of

    sigma, eta, snr = as_activation("abs"), 0.1, 4.0
    t = np.linspace(-9, 9, 4001)
    rest = math.sqrt(1 - m * m)
    sign = 2 * ndtr(m * t / rest) - 1
    size = rest * math.sqrt(2 / math.pi) * np.exp(-((m * t / rest) ** 2) / 2) + m * t * sign
    mass = np.exp(-t * t / 2) / math.sqrt(2 * math.pi) * (t[1] - t[0])
    first = math.sqrt(snr) * float(mass @ (np.abs(t) * (t * sign - m * size)))
    expected = eta * first - 0.5 * eta**2 * m * (snr + 1)
    found = _drift(_Gradient(sigma, slope_of(sigma), snr, 0.0), m, eta)
    assert found == pytest.approx(expected, rel=1e-4)


def test_sgd_should_refuse_steps_and_stiff_settings():
    with pytest.raises(InputError, match="constant between its jumps"):
        simulate.online_sgd(step_activation(3), snr=1.0, sample_ratio=1)
    with pytest.raises(InputError, match="constant between its jumps"):
        simulate.online_sgd("sign", snr=1.0, sample_ratio=1)
    with pytest.raises(InputError, match="small enough"):
        simulate.online_sgd(
            "He4", snr=50.0, sample_ratio=50, dimension=10, n_seeds=1, learning_rate=1, reuse=1
        )
    with pytest.raises(InputError, match="start is a cosine"):
        simulate.online_sgd("tanh", snr=1.0, sample_ratio=1, start=2.0)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_specialization_should_not_see_order_and_sign(seed):
    rng = np.random.default_rng(seed)
    student, teacher = rng.standard_normal((3, 12)), rng.standard_normal((3, 12))
    base = simulate.specialization(student, teacher)
    flipped = student[rng.permutation(3)] * rng.choice([-1.0, 2.5], size=(3, 1))
    moved = simulate.specialization(flipped, teacher[rng.permutation(3)] * -1)
    assert moved.index == pytest.approx(base.index, abs=1e-12)
    assert moved.subspace_error == pytest.approx(base.subspace_error, abs=1e-12)


def test_independent_student_should_equal_the_baseline():
    # 400 draws against 400 others; 3 standard errors of the difference, two-sided, p < 0.003.
    rng = np.random.default_rng(18)
    values = np.array(
        [
            simulate.specialization(rng.standard_normal((4, 100)), rng.standard_normal((4, 100))).index
            for _ in range(400)
        ]
    )
    baseline = simulate.random_baseline(4, 4, dimension=100, draws=400, rng=5)
    error = math.sqrt(values.var(ddof=1) / 400 + baseline.sd**2 / 400)
    assert abs(values.mean() - baseline.mean) < 3 * error


def test_specialization_should_tell_units_from_subspace():
    teacher = np.eye(2, 30)
    mixed = np.array([[1.0, 1.0], [1.0, -1.0]]) @ teacher
    found = simulate.specialization(mixed, teacher)
    assert found.index == pytest.approx(0.0, abs=1e-12)
    assert found.subspace_error == pytest.approx(0.0, abs=1e-12)
    perfect = simulate.specialization(teacher[::-1], teacher)
    assert (perfect.index, perfect.matched) == (1.0, ((0, 1), (1, 0)))
    assert perfect.assignment.labels.tolist() == [1, 0]
    assert perfect.assignment.information == pytest.approx(math.log(2))


def test_rotations_of_two_units_should_have_their_known_index():
    # cos t - sin t, t uniform on [0, pi/4], has mean (4/pi)(sqrt 2 - 1).
    found = simulate.specialization(np.eye(2, 9), np.eye(2, 9))
    assert found.rotated.mean == pytest.approx(4 / math.pi * (math.sqrt(2) - 1), abs=0.06)
    assert found.rotated_information.max() < found.assignment.information
    assert found.rotated == simulate.specialization(np.eye(2, 9)[::-1], np.eye(2, 9)).rotated


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (np.zeros((2, 3)), np.eye(2, 3), "student unit has a direction"),
        (np.eye(2, 4), np.eye(2, 3), "see the same inputs"),
        (np.eye(2, 3) * np.nan, np.eye(2, 3), "finite"),
    ],
)
def test_bad_weights_should_be_refused(student, teacher, message):
    with pytest.raises(InputError, match=message):
        simulate.specialization(student, teacher)


def test_two_layer_student_should_specialize_with_enough_data():
    setting = {"n_units": 2, "noise": 0.1, "dimension": 40, "n_seeds": 1, "steps": 500, "rng": 3}
    much = simulate.train_student("abs", sample_ratio=20, **setting)
    little = simulate.train_student("abs", sample_ratio=0.5, **setting)
    assert much.index[0] > 0.6
    assert little.index[0] < 0.4
    assert much.excess_risk[0] < 0.3 * much.null_risk
    with pytest.raises(InputError, match="constant between its jumps"):
        simulate.train_student("sign", sample_ratio=1, **setting)


@pytest.mark.parametrize(
    "text", ["gelu(x) - x**3/4", "abs(x)*exp(-x**2/2)", "softplus(x) + pi", "sqrt(1+x**2)"]
)
def test_torch_function_should_equal_the_array_function(text):
    import torch

    from metier.multi_index.expression.reading import parse
    from metier.multi_index.simulate.students import torch_function

    z = np.linspace(-3, 3, 41) + 0.01
    expected = as_activation(text)(z)
    found = torch_function(parse(text))(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate.gamp("abs", snr=0.0, sample_ratio=1.0), "snr"),
        (lambda: simulate.gamp("abs", snr=1.0, sample_ratio=-1.0), "sample_ratio"),
        (lambda: simulate.gamp("abs", snr=1e9, sample_ratio=1.0, dimension=20), "resolves the noise"),
        (lambda: simulate.committee_amp("abs", noise=1e-9, sample_ratio=1.0), "resolves the noise"),
        (lambda: simulate.committee_amp("abs", noise=0.1, sample_ratio=1.0, start="warm"), "start is one of"),
        (lambda: simulate.gamp("abs", snr=1.0, sample_ratio=1.0, start="warm"), "start is one of"),
        (lambda: simulate.gamp("abs", snr=1.0, sample_ratio=1.0, step=0.0), "step is positive"),
        (lambda: simulate.gamp("abs", snr=1.0, sample_ratio=1.0, step=2.0), "share of the way"),
        (lambda: simulate.spectral("abs", snr=1.0, sample_ratios=["a"]), "sample_ratios are positive"),
        (lambda: simulate.spectral("abs", snr=1.0, sample_ratios=None), "sample_ratios are positive"),
        (lambda: simulate.spectral("abs", snr=1.0, sample_ratios=[]), "got no entries"),
        (
            lambda: simulate.plant(as_activation("abs"), np.random.default_rng(0), dimension=3, n_units=4),
            "as inputs",
        ),
        (lambda: simulate.train_student("abs", n_units=2, noise=-1.0, sample_ratio=1.0), "noise"),
    ],
)
def test_bad_settings_of_simulations_should_be_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_gamp_should_stay_at_the_fixed_point_of_a_steep_activation():
    """Undamped iterations ended at a mean overlap of 0.1 here, having passed the theory's 0.78."""
    run = simulate.gamp("He3", snr=0.5, sample_ratio=8.0, dimension=120, n_seeds=4, normalize=True, rng=3)
    assert run.status == "derived"
    assert run.spread.mean == pytest.approx(run.theory, abs=0.15)


def test_seeds_that_still_move_should_be_said():
    run = simulate.gamp("abs", snr=2.0, sample_ratio=4.0, dimension=30, n_seeds=2, max_iterations=2)
    assert run.settled.tolist() == [False, False] == run.to_dict()["settled"]
    assert run.summary().endswith("2 of 2 seeds still moved")


@pytest.mark.slow
def test_small_steps_should_lead_a_random_start_to_the_informed_fixed_point():
    """He4's few samples far out make steps of 0.4 oscillate: they wait near overlap 0, and say so."""
    he4 = {"snr": 0.1, "sample_ratio": 20.0, "dimension": 100, "n_seeds": 2, "normalize": True}
    informed = simulate.gamp("He4", **he4, start="informed", max_iterations=400)
    coarse = simulate.gamp("He4", **he4, max_iterations=400)
    small = simulate.gamp("He4", **he4, step=0.15, max_iterations=400)
    assert informed.settled.tolist() == [True, True]
    assert coarse.settled.tolist() == [False, False]
    assert coarse.overlaps.max() < 0.1 < 0.3 < informed.overlaps.min()
    np.testing.assert_allclose(small.overlaps, informed.overlaps, atol=0.02)
