"""Two units at matched overlaps: the curve, where it starts, and that rotated overlaps turn to them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from solved import committee, thresholds

from metier.core import InputError
from metier.multi_index import as_activation, committee_thresholds, exponents
from metier.multi_index.committee import _Pair

PAIR = "cos(2*x) - 4*exp(-3/2)*cos(x)"


def drift(activation, q, angle, *, noise):
    """E[g r^T]/(1 - q) for fields of covariance q R(angle): dense grids, every term written out.

    The student believes in its own directions; the planted ones are turned by the angle. g is its output and
    r = z - E[z | omega] what is left of the planted fields.
    """
    sigma = as_activation(activation, normalize=True)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    V = np.linspace(-4.2, 4.2, 13)
    outer = np.exp(-0.5 * V**2)
    outer /= outer.sum()
    t = np.linspace(-5.6, 5.6, 29)
    t1, t2 = (part.ravel() for part in np.meshgrid(t, t, indexing="ij"))
    standard = np.stack([t1, t2], axis=1)
    mass = np.exp(-0.5 * (t1**2 + t2**2))
    mass /= mass.sum()

    def law(center, y):
        z = center + np.sqrt(1 - q) * standard
        signal = sigma(z).sum(axis=1) / np.sqrt(2)
        likelihood = np.exp(-0.5 * (y[:, None] - signal) ** 2 / noise) / np.sqrt(2 * np.pi * noise)
        return likelihood @ mass, likelihood @ (mass[:, None] * (z - center))

    grid = sigma(np.linspace(-8, 8, 2001)) * np.sqrt(2)
    y = np.linspace(grid.min() - 7 * np.sqrt(noise), grid.max() + 7 * np.sqrt(noise), 101)
    total = np.zeros((2, 2))
    for (i, a), (k, b) in itertools.product(enumerate(V), repeat=2):
        omega = np.sqrt(q) * np.array([a, b])
        Z, own = law(omega, y)
        g = own / np.maximum(Z, 1e-250)[:, None] / (1 - q)
        _, left = law(turn.T @ omega, y)
        total += outer[i] * outer[k] * (y[1] - y[0]) * (g.T @ left)
    return total / (1 - q)


def angle_of(matrix):
    return float(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1]))


@pytest.mark.slow
def test_matched_overlaps_should_start_at_subspace_recovery_and_jump_later():
    t = committee_thresholds(PAIR, noise=1.0, normalize=True)
    exact = committee(PAIR, n_units=2, noise=1.0, normalize=True)
    assert t.weak_recovery == pytest.approx(exact.subspace_recovery, rel=1e-6)
    assert t.strong_recovery / t.weak_recovery == pytest.approx(1.4062, abs=1e-3)
    assert t.spinodal <= t.it_strong <= t.strong_recovery
    assert t.status == "heuristic"
    assert 0 < t.errors["strong_recovery"] < 1e-3
    assert "committee of 2" in t.summary()


@pytest.mark.parametrize("q", [0.1, 0.3])
def test_overlap_function_of_two_units_should_equal_dense_grids(q):
    F = drift(PAIR, q, 0.0, noise=1.0)
    np.testing.assert_allclose(F, F[0, 0] * np.eye(2), atol=1e-9 * F[0, 0])
    channel = _Pair(as_activation(PAIR, normalize=True), 1.0)
    assert channel.overlap(np.array([q]))[0] == pytest.approx(F[0, 0], rel=2e-4)


@pytest.mark.parametrize(
    ("activation", "q", "angle"),
    [
        (PAIR, 0.05, 0.6),
        (PAIR, 0.4, 0.15),
        ("He4", 0.4, 0.6),
        pytest.param(PAIR, 0.4, 0.6, marks=pytest.mark.slow),
        pytest.param("He4", 0.05, 0.6, marks=pytest.mark.slow),
        pytest.param("He4", 0.4, 0.15, marks=pytest.mark.slow),
    ],
)
def test_rotated_overlaps_should_turn_toward_matched_ones(activation, q, angle):
    """No rotated state of two units is stable: overlaps q R(angle) turn toward the planted directions."""
    assert angle_of(drift(activation, q, angle, noise=1.0)) < angle - 0.01 * q


def test_rotations_of_a_sum_of_squares_should_never_turn():
    assert angle_of(drift("square", 0.3, 0.4, noise=1.0)) == pytest.approx(0.4, abs=1e-4)


def test_one_unit_should_be_one_direction():
    assert (
        committee_thresholds("abs", n_units=1, noise=0.5).to_dict()
        == thresholds(as_activation("abs"), snr=2.0).to_dict()
    )


@pytest.mark.parametrize(
    ("activation", "change", "match"),
    [
        ("abs", {"n_units": 3}, "at most 2 units"),
        ("tanh", {}, "an even activation"),
        ("abs", {"noise": 0.0}, "noise is positive"),
    ],
)
def test_committees_that_cannot_be_followed_should_be_refused(activation, change, match):
    with pytest.raises(InputError, match=match):
        committee_thresholds(activation, **{"noise": 1.0} | change)


@pytest.mark.parametrize("activation", [PAIR, "He4"])
def test_units_that_turn_should_have_certified_exponent_two(activation):
    found = exponents(activation)
    assert (found.noise_sensitivity, found.status) == (2, "certified")
