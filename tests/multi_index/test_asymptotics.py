"""Constants of the small-signal laws, exact curves beside them, and local slopes."""

import math

import numpy as np
import pytest

from metier.core import InputError
from metier.multi_index import asymptotics, local_exponent, recovery_curve, step_activation, thresholds

WEAK_RECOVERY = {  # snr 1e-1 .. 1e-5
    ("abs", False): (15.67, 157.0, 1571.0, 1.571e4, 1.571e5),
    ("square", True): (3.979, 48.5, 498.5, 4999.0, 5e4),
    ("cos", False): (26.97, 271.6, 2718.0, 27182.0, 271828.0),
    ("He4", True): (5.969, 64.54, 1.158e4, 3.031e6, 3.116e8),
}


@pytest.mark.parametrize(("name", "normalize"), WEAK_RECOVERY)
def test_weak_recovery_should_have_its_numbers(name, normalize):
    """Within 0.3 %; ratio to the law at snr 1e-5 within 0.5 % of 1."""
    curve = recovery_curve(name, snrs=[1e-1, 1e-2, 1e-3, 1e-4, 1e-5], normalize=normalize)
    np.testing.assert_allclose(curve.weak_recovery[::-1], WEAK_RECOVERY[name, normalize], rtol=3e-3)
    assert curve.ratio[0] == pytest.approx(1, abs=5e-3)


def test_absolute_value_should_tend_to_one_half():
    """|z| at snr 1e4 within 1e-3 of 1/2."""
    curve = recovery_curve("abs", snrs=[1e2, 1e3, 1e4])
    assert curve.weak_recovery[-1] == pytest.approx(0.5, abs=1e-3)
    assert curve.error.max() < 1e-8


@pytest.mark.parametrize(
    ("name", "normalize", "detection", "at", "spinodal"),
    [
        ("He3", True, 1.4558, 0.645, 4 / 3),
        ("He4", True, 1.9759, 0.805, 27 / 16),
        ("abs", False, math.pi / 2, 0.0, math.pi / 2),
        ("square", True, 0.5, 0.0, 0.5),
    ],
)
def test_information_theoretic_constants_should_have_their_numbers(name, normalize, detection, at, spinodal):
    """A_IT and a_sp within 5e-4."""
    a = asymptotics(name, normalize=normalize)
    assert a.it_detection == pytest.approx(detection, abs=5e-4)
    assert a.overlaps["it_detection"] == pytest.approx(at, abs=1e-3)
    assert a.spinodal == pytest.approx(spinodal, abs=5e-4)


@pytest.mark.parametrize("name", ["He4", "z2exp"])
def test_thresholds_at_small_snr_should_obey_the_constants(name):
    a, t = asymptotics(name, normalize=True), thresholds(name, snr=1e-5, normalize=True, rtol=1e-5)
    assert t.it_detection * 1e-5 == pytest.approx(a.it_detection, rel=1e-3)
    assert t.spinodal * 1e-5 == pytest.approx(a.spinodal, rel=1e-3)
    if math.isfinite(a.weak_recovery):
        assert t.weak_recovery * 1e-5**a.exponent == pytest.approx(a.weak_recovery, rel=5e-3)


@pytest.mark.parametrize("name", ["z2exp", "sign"])
def test_infinite_exponents_should_give_infinite_constants(name):
    a = asymptotics(name)
    assert a.exponent == math.inf
    assert a.weak_recovery == math.inf
    assert "every k" in a.reasons["weak_recovery"]


def test_a_linear_part_should_leave_no_detection_threshold():
    a = asymptotics("tanh")
    assert math.isnan(a.it_detection)
    assert "not 0" in a.reasons["it_detection"]
    assert a.certified
    assert a.exponent == 2


@pytest.mark.parametrize("beta", [3, 4])
def test_step_activations_should_show_their_exponent(beta):
    """Local slopes of the exact curve, without a fit."""
    curve = recovery_curve(step_activation(noise_sensitivity=beta), snrs=np.geomspace(1e-5, 1e-3, 5))
    assert curve.local.slope[0] == pytest.approx(-beta, abs=0.1)
    assert curve.exponent == beta


def test_onset_should_be_where_the_ratio_settles():
    curve = recovery_curve("He4", snrs=np.geomspace(1e-6, 1e-1, 21), normalize=True)
    assert 5e-5 < curve.onset_snr < 5e-4
    assert (np.abs(curve.ratio[curve.snrs <= curve.onset_snr] - 1) <= 0.1).all()
    assert "within 10 %" in curve.summary()
    assert curve.to_dict()["onset_snr"] == curve.onset_snr


def test_local_exponent_should_be_exact_on_powers_and_say_its_error_elsewhere():
    x = np.geomspace(1e-3, 1, 9)
    power = local_exponent(x, 3 * x**-1.5)
    np.testing.assert_allclose(power.slope, -1.5, rtol=1e-12)
    bent = local_exponent(x, np.exp(-(np.log(x) ** 3)))
    exact = -3 * np.log(bent.x) ** 2
    known = np.isfinite(bent.error)
    assert known.sum() == x.size - 4
    assert (np.abs(bent.slope - exact)[known] <= bent.error[known]).all()
    assert "slope" in power.summary()


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        ([1, 2], [1, 2], "at least 3"),
        ([1, 2, 2], [1, 2, 3], "not monotone"),
        ([1, 2, 3], [1, 2], "2 y"),
        ([1, -2, 3], [1, 2, 3], "x are positive"),
    ],
)
def test_curves_without_slopes_should_be_refused(x, y, text):
    with pytest.raises(InputError, match=text):
        local_exponent(x, y)


def test_negative_snrs_should_be_refused():
    with pytest.raises(InputError, match="snrs are positive"):
        recovery_curve("abs", snrs=[-1.0, 0.1, 0.2])


def test_summary_should_state_the_laws():
    text = asymptotics("He4", normalize=True).summary()
    assert "weak_recovery ~ 0.03125 snr^-2" in text
    assert "it_detection ~ 1.97591 / snr, at overlap 0.8045" in text


def test_constants_should_have_infinite_laws_and_infinite_curves_no_slope():
    a = asymptotics("3")
    assert a.weak_recovery == a.it_detection == a.spinodal == np.inf
    assert "does not depend" in a.reasons["it_detection"]
    for name in ("3", "z2exp"):
        curve = recovery_curve(name, snrs=[0.1, 1.0, 2.0])
        assert np.isinf(curve.weak_recovery).all()
        assert np.isnan(curve.local.slope).all()
        assert "infinite" in curve.summary()
