"""Matrix AMP on small committees: its posterior, its settings, subspace and specialization."""

from __future__ import annotations

import math

import numpy as np
import pytest

from metier.core import InputError
from metier.multi_index import as_activation, simulate
from metier.multi_index.simulate.committee_amp import posterior


def test_posterior_should_equal_the_gaussian_closed_form():
    C = np.array([[0.5, 0.1], [0.1, 0.3]])
    field = np.array([[0.2, -0.4]])
    mean, covariance = posterior(as_activation("linear"), np.array([0.7]), field, C, 0.5)
    a = np.ones(2) / math.sqrt(2)
    gain = C @ a / (a @ C @ a + 0.5)
    np.testing.assert_allclose(covariance[0], C - np.outer(gain, a @ C), atol=2e-4)
    np.testing.assert_allclose(mean[0], field[0] + gain * (0.7 - field[0] @ a), atol=2e-4)


def test_iterations_should_keep_and_sharpen_the_span_that_the_start_has_found():
    # Undamped, they fall from an overlap of one half back to chance.
    sigma = as_activation("cos(2*x) - 4*exp(-3/2)*cos(x)", normalize=True)
    run = simulate.committee_amp(sigma, noise=1.0, sample_ratio=41.0, dimension=50, n_seeds=1, rng=3)
    assert run.recovered[0] > 0.9
    assert run.index[0] > 0.8


@pytest.mark.slow
def test_ideal_student_should_specialize_far_above_the_predicted_ratio_only():
    settings = {"n_units": 2, "noise": 0.02, "dimension": 120, "n_seeds": 3, "rng": 5}
    above = simulate.committee_amp("abs", sample_ratio=9.0, **settings)
    below = simulate.committee_amp("abs", sample_ratio=0.6 * above.threshold, **settings)
    assert above.spread.mean > 0.6
    assert above.excess.mean() > 0.2
    assert (above.excess_risk < above.rotated_risk).all()
    assert below.spread.mean - below.baseline.mean < 0.2
    assert above.recovered.mean() > 0.8


def test_too_many_units_should_be_refused():
    with pytest.raises(InputError, match="at most 3 units"):
        simulate.committee_amp("abs", n_units=4, noise=0.1, sample_ratio=1.0)


def test_constant_units_should_leave_nothing_to_find_and_not_warn():
    run = simulate.committee_amp(
        "1 + 0*x", noise=0.5, sample_ratio=2, dimension=20, n_seeds=1, max_iterations=3
    )
    assert run.threshold == np.inf
    assert run.excess_risk[0] < 0.2  # the mean of y, all that a constant tells


def test_seeds_that_still_move_should_be_said_and_steps_be_shares():
    few = {"noise": 0.1, "sample_ratio": 20.0, "dimension": 20, "n_seeds": 2, "rng": 1}
    run = simulate.committee_amp("abs", max_iterations=1, **few)
    assert run.settled.tolist() == [False, False] == run.to_dict()["settled"]
    assert run.summary().endswith("; 2 of 2 seeds still moved")
    at_rest = simulate.committee_amp("abs", max_iterations=500, **few)
    assert at_rest.settled.tolist() == [True, True]
    assert "moved" not in at_rest.summary()
    with pytest.raises(InputError, match="step is the share of the way"):
        simulate.committee_amp("abs", step=1.5, **few)
