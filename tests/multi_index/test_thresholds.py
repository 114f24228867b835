"""Thresholds beside the published and derived numbers, state evolution run step by step, and bad input."""

import math

import numpy as np
import pytest
from solved import thresholds

from metier import multi_index
from metier.core import InputError
from metier.multi_index import as_activation
from metier.multi_index.channels import AdditiveChannel
from metier.multi_index.fixed_points import NAMES, entropy_cost
from metier.multi_index.overlap import tabulate

ROUGH = {"normalize": True, "rtol": 1e-5}
"""Enough for numbers to 1e-3; several tests read the same results."""


def iterate(channel, alpha, q, steps=4000, tolerance=1e-9):
    """State evolution as it reads: qhat = alpha F(q), q <- qhat/(1 + qhat)."""
    for _ in range(steps):
        hat = alpha * tabulate(channel, np.array([q]), 1)[0, 0]
        if abs(hat / (1 + hat) - q) < tolerance:
            return hat / (1 + hat)
        q = hat / (1 + hat)
    raise AssertionError("state evolution did not settle")


@pytest.mark.parametrize(
    ("name", "snr", "factor"),
    [
        pytest.param("abs", 0.1, 1.3, marks=pytest.mark.slow),
        ("abs", 1.0, 4.0),
        pytest.param("abs", 1.0, 2.0, marks=pytest.mark.slow),
        pytest.param("square", 0.1, 1.5, marks=pytest.mark.slow),
        ("cos", 1.0, 4.0),
        pytest.param("cos", 1.0, 1.4, marks=pytest.mark.slow),
    ],
)
def test_iterated_state_evolution_should_land_on_the_curve(name, snr, factor):
    """from q = 1e-4 at alpha > 1.2 thresholds, q within 1e-6."""
    t = thresholds(name, snr=snr, normalize=True)
    alpha = factor * t.weak_recovery
    channel = AdditiveChannel(as_activation(name, normalize=True), np.array([snr]))
    assert iterate(channel, alpha, 1e-4) == pytest.approx(t.overlap([alpha])[0], abs=1e-6)


def test_both_starts_should_land_on_their_branches():
    t = thresholds("He4", snr=0.003, normalize=True, rtol=1e-6)
    channel = AdditiveChannel(as_activation("He4", normalize=True), np.array([0.003]))
    alpha = 0.5 * (t.spinodal + t.strong_recovery)
    low, high = t.overlap([alpha])[0], t.overlap([alpha], start="informed")[0]
    assert iterate(channel, alpha, 1e-4) == pytest.approx(low, abs=1e-6)
    assert iterate(channel, alpha, 0.999) == pytest.approx(high, abs=1e-6)
    assert high > low + 0.3


@pytest.mark.parametrize(("name", "snr"), [("He4", 1e-2), ("He4", 1e-3), ("He3", 1e-3), ("z2exp", 0.1)])
def test_free_entropy_should_be_stationary_on_the_curve_and_lines_in_order(name, snr):
    """phi' vanishes to 1e-6 of its terms; spinodal <= it_strong <= strong_recovery."""
    t = thresholds(name, snr=snr, **ROUGH)
    x = np.array([0.3, 0.7, 1.2, 2.2])
    alphas = np.exp(t.curve.log_sample_ratio(x))
    h = 1e-4
    for at, alpha in zip(x, alphas, strict=True):
        rise = t.curve.free_entropy(np.array([at + h]), alpha) - t.curve.free_entropy(
            np.array([at - h]), alpha
        )
        cost = 0.5 * (entropy_cost(np.array([at + h])) - entropy_cost(np.array([at - h])))
        assert abs(rise[0]) < 1e-6 * cost[0]
    assert t.spinodal <= t.it_strong <= t.strong_recovery


def test_he4_should_have_its_numbers():
    """He4 at snr 1e-3 and 1e-2, within 1 %."""
    low = thresholds("He4", snr=1e-3, **ROUGH)
    assert low.it_detection * 1e-3 == pytest.approx(1.933, rel=1e-2)
    assert low.overlaps["it_detection"] == pytest.approx(0.787, rel=1e-2)
    assert low.spinodal * 1e-3 == pytest.approx(1.686, rel=1e-2)
    assert low.weak_recovery * 1e-3 == pytest.approx(11.58, rel=1e-2)
    assert low.strong_recovery * 1e-3 == pytest.approx(13.16, rel=1e-2)
    assert low.gap == pytest.approx(5.99, rel=1e-2)
    high = thresholds("He4", snr=1e-2, **ROUGH)
    assert high.weak_recovery * 1e-2 == pytest.approx(0.6454, rel=1e-2)
    assert high.it_strong * 1e-2 == pytest.approx(1.817, rel=1e-2)
    assert high.strong_recovery * 1e-2 == pytest.approx(1.829, rel=1e-2)
    assert high.gap == 1.0
    assert high.strong_gap > 1.0
    assert not high.curve.rising.all()


@pytest.mark.parametrize(
    ("name", "snr"),
    [
        pytest.param(
            name, snr, marks=[] if (name, snr) in (("abs", 1e-3), ("square", 0.3)) else pytest.mark.slow
        )
        for name in ("abs", "square")
        for snr in (1e-3, 1e-2, 0.1, 0.3)
    ],
)
def test_continuous_transitions_should_have_no_gap_and_no_phantom_spinodal(name, snr):
    """|z| and x^2 for snr in [1e-3, 0.3]."""
    t = thresholds(name, snr=snr, normalize=name == "square")
    assert t.gap == 1.0
    assert t.strong_gap == 1.0
    assert math.isnan(t.spinodal)
    assert "continuously" in t.reasons["spinodal"]


@pytest.mark.parametrize(
    "snrs",
    [[1e-3, 1e-5], pytest.param([1e-3, 1e-4, 1e-5, 3e-6], marks=pytest.mark.slow)],
    ids=["two", "four"],
)
def test_he3_should_have_its_strong_exponent(snrs):
    """strong_recovery snr^2 within 1 % of 1/(18 + 2 sqrt(243)); slope 2 +- 0.02 below 1e-3."""
    snrs = np.array(snrs)
    strong = np.array([thresholds("He3", snr=float(s), **ROUGH).strong_recovery for s in snrs])
    np.testing.assert_allclose(strong * snrs**2, 1 / (18 + 2 * math.sqrt(243)), rtol=1e-2)
    np.testing.assert_allclose(np.diff(np.log(strong)) / np.diff(np.log(snrs)), -2, atol=0.02)


def test_he3_should_have_its_information_theoretic_numbers():
    t = thresholds("He3", snr=1e-3, **ROUGH)
    assert t.it_strong * 1e-3 == pytest.approx(1.447, rel=1e-3)
    assert t.overlaps["it_strong"] == pytest.approx(0.638, abs=2e-3)
    assert t.spinodal * 1e-3 == pytest.approx(1.329, rel=1e-3)


@pytest.mark.parametrize("name", ["tanh", pytest.param("relu", marks=pytest.mark.slow), "He3", "sign"])
def test_detection_should_be_flagged_where_the_overlap_starts_above_zero(name):
    """F(0) > 0."""
    t = thresholds(name, snr=0.1, **ROUGH)
    assert t.weak_recovery == 0
    assert math.isnan(t.it_detection)
    assert math.isnan(t.gap)
    assert "nothing left to detect" in t.reasons["it_detection"]
    assert t.overlap([1e-2])[0] > 0


def test_phase_retrieval_should_have_its_published_thresholds():
    """Real noiseless |z|: weak recovery 1/2, perfect recovery 1 (any method) and 1.128 (AMP)."""
    t = thresholds("abs", snr=math.inf, rtol=1e-5)
    assert t.weak_recovery == pytest.approx(0.5, rel=1e-9)
    assert t.it_strong == 1.0
    assert t.strong_recovery == pytest.approx(1.128, abs=1e-3)
    np.testing.assert_allclose(t.overlap([0.4, 1.2]), [0.0, 1.0])
    assert 0 < t.overlap([1.05])[0] < t.overlap([1.05], start="bayes")[0] == 1.0


@pytest.mark.parametrize("other", ["square", pytest.param("quartic", marks=pytest.mark.slow)])
def test_noiseless_thresholds_should_depend_on_the_level_sets_only(other):
    """|z|, z^2 and z^4 tell the same of z."""
    strong = [thresholds(name, snr=math.inf, rtol=1e-5).strong_recovery for name in ("abs", other)]
    np.testing.assert_allclose(strong, strong[0], rtol=1e-7)


@pytest.mark.slow
def test_noisy_values_should_approach_the_noiseless_ones():
    t = thresholds("abs", snr=1000.0, rtol=1e-4)
    assert t.weak_recovery == pytest.approx(0.5, rel=3e-3)
    assert t.strong_recovery == pytest.approx(1.128, rel=2e-2)


def test_sign_labels_should_need_more_samples_than_values():
    values, signs = (thresholds("cos", snr=0.5, channel=channel) for channel in ("additive", "sign"))
    assert signs.weak_recovery > values.weak_recovery
    assert signs.channel == "sign"


def test_an_infinite_noise_sensitivity_should_give_infinite_weak_recovery():
    t = thresholds("z2exp", snr=0.1, **ROUGH)
    assert t.weak_recovery == math.inf
    assert t.strong_recovery == math.inf
    assert math.isfinite(t.it_detection)
    assert t.gap == math.inf


@pytest.mark.parametrize("name", ["abs", "He4", "tanh"])
def test_informed_and_bayes_overlaps_should_not_be_below_the_uninformed(name):
    t = thresholds(name, snr=0.01, **ROUGH)
    alphas = np.geomspace(1, 1e4, 60)
    amp, bayes, top = (t.overlap(alphas, start=start) for start in ("uninformed", "bayes", "informed"))
    assert (amp <= bayes + 1e-12).all()
    assert (bayes <= top + 1e-12).all()
    assert (np.diff(top) >= -1e-12).all()


@pytest.mark.parametrize("finer", [1e-6, pytest.param(1e-8, marks=pytest.mark.slow)])
def test_errors_should_cover_a_much_finer_computation(finer):
    rough, fine = (thresholds("He4", snr=0.008, normalize=True, rtol=r) for r in (1e-4, finer))
    for name in ("weak_recovery", "strong_recovery", "spinodal", "it_strong"):
        off = abs(getattr(rough, name) / getattr(fine, name) - 1)
        assert off <= max(rough.errors[name], 1e-9), name
        assert fine.errors[name] < 1e-5


def test_results_should_be_frozen_and_explain_themselves():
    t = thresholds("He4", snr=1e-3, **ROUGH)
    with pytest.raises(AttributeError):
        t.snr = 2.0
    assert t.to_dict()["gap"] == t.gap
    assert t.status == "derived"
    assert "it_detection" in t.summary()
    again = multi_index.thresholds("He4", snr=1e-3, **ROUGH)
    assert again.to_dict() == t.to_dict()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"snr": 0.0}, "snr is positive"),
        ({"snr": -1.0}, "snr is positive"),
        ({"snr": "high"}, "snr is positive"),
        ({"snr": math.nan}, "snr is positive"),
        ({"channel": "additve"}, "Did you mean 'additive'"),
        ({"rtol": 0.0}, "rtol is positive"),
    ],
)
def test_bad_settings_should_be_refused(change, text):
    with pytest.raises(InputError, match=text):
        thresholds("abs", **{"snr": 1.0, **change})


@pytest.mark.parametrize("alphas", [[-1.0], [0.0], [math.nan], [], ["many"], ["a", "b"], [[1, 2], [3]]])
def test_bad_sample_ratios_should_be_refused(alphas):
    with pytest.raises(InputError, match="sample_ratios are positive"):
        thresholds("abs", snr=1.0).overlap(alphas)


@pytest.mark.parametrize(
    ("activation", "change"),
    [
        ("3", {"snr": 1.0}),
        ("x - x + 3", {"snr": math.inf}),
        ("0", {"snr": 1.0, "channel": "sign"}),
        ("gaussian", {"snr": math.inf, "channel": "sign"}),
    ],
)
def test_a_label_that_tells_nothing_should_have_infinite_thresholds(activation, change):
    t = thresholds(activation, **change)
    assert {getattr(t, name) for name in NAMES} == {math.inf}
    assert "does not depend on the input" in t.reasons["weak_recovery"]
    assert "inf: the label does not depend" in t.summary()
    for start in ("uninformed", "informed", "bayes"):
        assert t.overlap([1e-3, 1e12], start=start).tolist() == [0.0, 0.0]


def test_a_signal_below_floats_should_be_refused_and_not_called_erased():
    with pytest.raises(InputError, match="resolved in float64"):
        thresholds("linear", snr=1e-30, rtol=1e-4)


def test_a_stepwise_expression_should_be_told_from_a_narrow_bump():
    from metier.multi_index.channels import step_levels

    # The bump lies between the points at which a callable is probed.
    bump = as_activation("abs(x) > 1").affine(1.0, name="steps")
    assert step_levels(bump).tolist() == [1.0, 0.0, 1.0]
    assert step_levels(as_activation("sign(x) + exp(-(10*x - 30.123)**2*100)")) is None
    assert step_levels(as_activation("relu(x)")) is None


def test_work_beyond_the_cap_should_be_refused(monkeypatch):
    from metier.multi_index import channels

    monkeypatch.setattr(channels, "MOST_TERMS", 1e3)
    with pytest.raises(InputError, match="resolve features of the activation"):
        multi_index.thresholds("abs", snr=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "snr", "levels"),
    [("exp(-10000*(x - 0.987)**2)", 1.0, (2, 2, 1)), ("sin(3*x)", 30.0, (4, 3, 2)), ("He5", 30.0, (4, 3, 2))],
)
def test_steep_activations_should_be_answered_within_their_errors(activation, snr, levels):
    """One axis refined at a time stays within the stated error of all nodes multiplied by 4 to 16."""
    link = as_activation(activation, normalize=True)
    function = thresholds(link, snr=snr).curve.function
    assert function.error < 5e-3
    q = np.array([0.05, 0.6, 0.97])
    far = AdditiveChannel(link, np.array([snr])).at(q, levels)[0]
    np.testing.assert_allclose(function(q), far, rtol=2 * function.error + 1e-6)


def test_slopes_of_narrow_features_should_be_seen():
    from metier.multi_index.channels import slope_scale

    narrow = as_activation("exp(-10000*(x - 0.987)**2)")
    # E[sigma'^2] = phi(c) sqrt(pi a/2) for exp(-a (z - c)^2), a large.
    expected = np.sqrt(np.exp(-0.5 * 0.987**2) / np.sqrt(2 * np.pi) * np.sqrt(np.pi * 1e4 / 2))
    assert 0.5 * expected < slope_scale(narrow) < 1.2 * expected
