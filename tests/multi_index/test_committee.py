"""Committees: exact width beside the single unit, the large-width law, sampling, and what is told apart."""

import math

import numpy as np
import pytest
from solved import committee, hierarchical, thresholds

from metier import multi_index
from metier.core import InputError
from metier.multi_index import as_activation, asymptotics, exponents, phase_diagram, recovery_curve
from metier.multi_index.asymptotics import sensitivity_in_floats


@pytest.mark.parametrize(
    ("name", "noise"),
    [
        *((name, 0.1) for name in ("abs", "square", "cos", "door")),
        ("He4", 1.0),
        *(pytest.param(name, 1.0, marks=pytest.mark.slow) for name in ("abs", "square", "cos", "door")),
        pytest.param("He4", 0.1, marks=pytest.mark.slow),
    ],
)
def test_one_unit_should_be_the_single_index_model(name, noise):
    """P = 1 equals weak_recovery at snr 1/noise to 1e-6."""
    normalize = name != "abs"
    c = committee(name, n_units=1, noise=noise, normalize=normalize)
    single = recovery_curve(name, snrs=[0.5 / noise, 1 / noise, 2 / noise], normalize=normalize)
    assert c.subspace_recovery == pytest.approx(single.weak_recovery[1], rel=1e-6)


@pytest.mark.parametrize(("name", "normalize"), [("abs", False), ("square", True)])
def test_wide_committees_should_obey_the_law(name, normalize):
    """P = 512, noise 0.1 within 0.1 % of the formula."""
    c = committee(name, n_units=512, noise=0.1, normalize=normalize)
    assert c.subspace_recovery == pytest.approx(c.law, rel=1e-3)
    assert c.error < 1e-8


def test_absolute_value_should_have_its_ratios():
    """Exact over formula 0.83 (p = 1) and 0.987 (p = 16)."""
    for width, ratio in ((1, 0.83), (16, 0.987)):
        c = committee("abs", n_units=width, noise=0.1)
        assert c.subspace_recovery / c.law == pytest.approx(ratio, abs=6e-3)


def test_committee_information_should_tend_to_the_single_unit_value():
    """He3's G at noise 100: it_detection/(p (v + noise)) within 0.5 % of the single-index one."""
    c = committee("He3", n_units=64, noise=100.0, normalize=True)
    a = asymptotics("He3", normalize=True)
    assert c.it_detection / 64 / 101 == pytest.approx(a.it_detection, rel=5e-3)


@pytest.mark.parametrize(
    ("n", "bins"), [(500_000, 250), pytest.param(2_000_000, 400, marks=pytest.mark.slow)]
)
def test_finite_width_should_match_sampling(n, bins):
    """E[c(y)^2], c(y) = E[z_1^2 - 1 | y], by seeded sampling and bins of y; two-sided, 4 standard errors."""
    width, noise = 3, 0.5
    rng = np.random.default_rng(5)
    z = rng.standard_normal((n, width))
    y = np.abs(z).sum(axis=1) / math.sqrt(width) + math.sqrt(noise) * rng.standard_normal(n)
    order = np.argsort(y)
    w = (z[order] ** 2 - 1).mean(axis=1)  # any unit's moment, averaged: same mean, less noise
    means = w.reshape(bins, -1).mean(axis=1)
    within = w.reshape(bins, -1).var(axis=1, ddof=1) / (n // bins)
    value = np.mean(means**2 - within)
    stderr = 2 * np.sqrt(np.mean(means**2 * within) / bins)
    exact = 1 / committee("abs", n_units=width, noise=noise).subspace_recovery
    assert abs(value - exact) < 4 * stderr + 1e-3 * exact


def test_squares_should_never_specialize():
    c = committee("square", n_units=4, noise=0.1)
    assert c.specialization == math.inf
    assert math.isfinite(c.subspace_recovery)
    assert "rotation" in c.reasons["specialization"]


def test_a_second_hermite_part_should_leave_specialization_open():
    c = committee("abs", n_units=4, noise=0.1)
    assert math.isnan(c.specialization)
    assert "subspace" in c.reasons["specialization"]
    assert c.status == "derived"


def test_fourth_hermite_should_specialize_at_width_squared():
    c = committee("He4", n_units=512, noise=0.1, normalize=True)
    assert c.exponent == 2
    assert c.specialization == c.subspace_recovery
    assert c.law == pytest.approx(2 * (1.1 * 512) ** 2 / 64, rel=1e-9)
    assert c.gap > 10


def test_a_linear_part_should_be_learnt_first():
    c = committee("tanh", n_units=16, noise=0.1)
    assert c.mean_direction == 0.0
    assert c.status == "heuristic"
    assert c.exponent == 2
    sigma = as_activation("tanh").without_linear_part()
    assert sigma.moment(2, 2) == pytest.approx(0.0703, abs=1e-4)
    # The second moment of sign vanishes exactly.
    assert sensitivity_in_floats(as_activation("sign").without_linear_part())[0] > 2


@pytest.mark.slow
def test_a_committee_of_signs_should_have_a_higher_exponent():
    assert committee("sign", n_units=16, noise=0.1).exponent > 2


def test_results_should_be_plain_and_repeatable():
    a, b = (multi_index.committee("cos", n_units=4, noise=0.2) for _ in range(2))
    assert a == b
    assert a.to_dict()["gap"] == a.gap
    assert "specialization" in a.summary()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"n_units": 0}, "n_units"),
        ({"noise": 0.0}, "noise is positive"),
        ({"noise": -1.0}, "noise is positive"),
    ],
)
def test_bad_committees_should_be_refused(change, text):
    with pytest.raises(InputError, match=text):
        committee("abs", **{"n_units": 4, "noise": 0.1, **change})


def test_a_constant_should_have_infinite_ratios():
    c = committee("3", n_units=4, noise=0.1)
    assert c.subspace_recovery == c.it_detection == c.specialization == np.inf
    assert "does not depend" in c.reasons["it_detection"]


def test_every_result_should_have_a_status():
    """Certified, derived, heuristic or conjecture; simulations are asked in test_simulations."""
    results = [
        exponents("tanh"),
        thresholds("abs", snr=1.0),
        asymptotics("abs"),
        recovery_curve("abs", snrs=[0.01, 0.1, 1.0]),
        committee("abs", n_units=4, noise=0.1),
        committee("tanh", n_units=16, noise=0.1),
        hierarchical("square", decay=1.0, noise=1.0, n_units=5),
        phase_diagram("square", sample_ratios=[1.0], snrs=[1.0], rtol=1e-4),
    ]
    told = [result.status for result in results]
    assert told == ["certified", *["derived"] * 4, "heuristic", *["derived"] * 2]
