"""Hierarchies: the ladder of thresholds, its slopes, the loss, and bad input."""

import numpy as np
import pytest
from scipy.special import zeta
from solved import hierarchical

from metier.core import InputError
from metier.multi_index import recovery_curve, thresholds


@pytest.mark.parametrize(
    ("n_units", "first", "noise", "exponent"),
    [
        (300, 200, 1.0, 2.0),
        pytest.param(1000, 300, 1.0, 2.0, marks=pytest.mark.slow),
        pytest.param(1000, 300, 0.0, 1.0, marks=pytest.mark.slow),
    ],
)
def test_ladder_should_have_its_slope(n_units, first, noise, exponent):
    """x^2, gamma = 1, from rank 200 or 300: within 3 % of 2 gamma beta (noise 1), of beta (noise 0)."""
    h = hierarchical("square", decay=1.0, noise=noise, n_units=n_units)
    late = h.slopes.slope[h.slopes.x >= first]
    assert late.size >= 1
    np.testing.assert_allclose(late, exponent, rtol=0.03)
    assert h.ladder_exponent == exponent


def test_effective_snrs_should_count_all_weaker_units():
    h = hierarchical("square", decay=0.8, noise=0.3, n_units=3)
    k = np.arange(1, 4)
    tail = np.array([zeta(1.6) - np.sum(np.arange(1, i + 1) ** -1.6) for i in k])
    np.testing.assert_allclose(h.snrs, k**-1.6 / (0.3 + 2 * tail), rtol=1e-9)
    ends = hierarchical("square", decay=0.8, noise=0.3, n_units=3, tail="none")
    assert ends.snrs[-1] == pytest.approx(3**-1.6 / 0.3)
    assert ends.tail_strength == 0.0


def test_rungs_should_be_single_index_thresholds():
    h = hierarchical("He4", decay=1.5, noise=80.0, n_units=3, normalize=True)
    for k in (1, 2):
        t = thresholds("He4", snr=float(h.snrs[k]), normalize=True, rtol=1e-6)
        assert h.weak_recovery[k] == pytest.approx(t.weak_recovery, rel=1e-6)
        assert h.strong_recovery[k] == pytest.approx(t.strong_recovery, rel=1e-5)
        at = 1.5 * t.strong_recovery
        assert h.overlaps([at])[0, k] == pytest.approx(t.overlap([at])[0], abs=1e-5)
    single = recovery_curve("He4", snrs=h.snrs, normalize=True)
    np.testing.assert_allclose(np.sort(h.weak_recovery), np.sort(single.weak_recovery), rtol=1e-9)


def test_loss_should_be_all_strength_before_the_first_rung_and_fall_after():
    h = hierarchical("square", decay=1.0, noise=1.0, n_units=300)
    everything = h.variance * zeta(2.0)
    assert h.loss([0.5 * h.weak_recovery[0]])[0] == pytest.approx(everything, rel=1e-6)
    curve = h.loss(np.geomspace(1, h.weak_recovery[-1], 12))
    assert (np.diff(curve) < 0).all()
    assert (h.loss([50.0], start="bayes") <= h.loss([50.0]) + 1e-9).all()


def test_loss_should_approach_its_exponent():
    h = hierarchical("square", decay=1.0, noise=1.0, n_units=300)
    slopes = h.loss_slopes(np.geomspace(3e3, h.weak_recovery[250], 5)).slope
    assert (slopes < -h.loss_exponent).all()
    assert abs(slopes[-1] + h.loss_exponent) < 0.03
    assert abs(slopes[-1] + h.loss_exponent) < abs(slopes[0] + h.loss_exponent)


def test_exponents_should_be_the_papers():
    h = hierarchical("He4", decay=1.5, noise=80.0, n_units=3, normalize=True)
    assert h.ladder_exponent == 6.0
    assert h.loss_exponent == pytest.approx((1 - 1 / 3) / 2)
    assert h.it_loss_exponent == pytest.approx(1 - 1 / 3)
    assert h.status == "derived"
    assert hierarchical("tanh", decay=1.0, noise=1.0, n_units=3).status == "heuristic"
    quiet = hierarchical("square", decay=1.0, noise=0.0, n_units=3)
    assert (quiet.ladder_exponent, quiet.loss_exponent) == (1, 1.0)


def test_results_should_explain_themselves():
    h = hierarchical("square", decay=1.0, noise=1.0, n_units=5)
    assert h.to_dict()["ladder_exponent"] == 2.0
    assert "local slope" in h.summary()
    with pytest.raises(AttributeError):
        h.decay = 3.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"decay": 0.5}, "above 1/2"),
        ({"decay": "fast"}, "above 1/2"),
        ({"noise": -0.1}, "noise has no negative values"),
        ({"n_units": 2}, "at least 3"),
        ({"tail": "long"}, "tail is one of"),
        ({"noise": 0.0, "tail": "none"}, "weakest unit"),
    ],
)
def test_bad_hierarchies_should_be_refused(change, text):
    with pytest.raises(InputError, match=text):
        hierarchical("square", **{"decay": 1.0, "noise": 1.0, "n_units": 5, **change})


def test_constant_units_should_be_refused():
    with pytest.raises(InputError, match="units of a hierarchy vary"):
        hierarchical("3", decay=1.0, noise=1.0, n_units=5)
