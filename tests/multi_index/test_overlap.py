"""F(q) beside its formula, its refinement, its invariances, and its exact cases."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from overlap_reference import onset_by_quadrature, overlap_on_grids
from solved import signal_function

from metier.core import InputError
from metier.multi_index import activation_names, as_activation
from metier.multi_index.asymptotics import excess_risk
from metier.multi_index.channels import AdditiveChannel, SignChannel
from metier.multi_index.noiseless import NoiselessChannel, NoiselessSignChannel
from metier.multi_index.overlap import node_overlaps, panel_edges, refined, relative_change, tabulate

OVERLAPS = np.array([1e-6, 1e-3, 0.05, 0.3, 0.6, 0.9, 0.99, 0.999])


def additive(name, snr, normalize=False):
    return AdditiveChannel(as_activation(name, normalize=normalize), np.array([snr]))


@pytest.mark.parametrize(
    ("name", "q", "snr"), [("tanh", 0.4, 1.0), ("abs", 0.5, 0.3), ("relu", 0.2, 0.5), ("He4", 0.3, 0.0003)]
)
def test_overlap_should_equal_its_formula_on_dense_grids(name, q, snr):
    sigma = as_activation(name)
    slow = overlap_on_grids(sigma.function, q, snr, kinks=sigma.kinks, n_fields=57, y_step=0.25)
    assert additive(name, snr).overlap(np.array([q]), 2)[0, 0] == pytest.approx(slow, rel=2e-7)


@pytest.mark.parametrize(("name", "snr"), [pytest.param("tanh", 1.0, marks=pytest.mark.slow), ("abs", 0.3)])
def test_onset_should_equal_nested_adaptive_quadrature(name, snr):
    sigma = as_activation(name)
    slow = onset_by_quadrature(sigma.function, snr, kinks=sigma.kinks, tolerance=1e-7)
    assert additive(name, snr).onset(3)[0] == pytest.approx(slow, rel=1e-7)


@pytest.mark.parametrize("snr", [0.3, 4.0])
def test_linear_activation_should_have_its_closed_form(snr):
    """sigma(z) = z: F = snr/(1 + snr (1 - q)), exactly."""
    F = additive("linear", snr).overlap(OVERLAPS, 1)[0]
    np.testing.assert_allclose(F, snr / (1 + snr * (1 - OVERLAPS)), rtol=1e-9)


@pytest.mark.parametrize("name", ["abs", "tanh", "He3", "He4", "gelu", "cos", "door", "square"])
@pytest.mark.parametrize("snr", [pytest.param(1e-3, marks=pytest.mark.slow), 0.1])
def test_doubling_all_nodes_should_move_the_overlap_function_little(name, snr):
    """Median over q of the relative change of F under a doubling is at most 1e-6."""
    channel = additive(name, snr, normalize=True)
    change = relative_change(tabulate(channel, OVERLAPS, 1), tabulate(channel, OVERLAPS, 2))
    assert np.median(change) <= 1e-6


def test_series_should_interpolate_between_its_nodes():
    channel = additive("He4", 0.003, normalize=True)
    function = refined(channel, rtol=1e-7)
    q = np.array([0.007, 0.033, 0.13, 0.37, 0.71, 0.86, 0.95, 0.983, 0.999])
    np.testing.assert_allclose(function(q), tabulate(channel, q, 2)[0], rtol=2e-7)


@pytest.mark.parametrize("name", ["abs", "tanh", "He3"])
def test_accumulated_should_be_the_integral(name):
    function = refined(additive(name, 0.1, normalize=True), rtol=1e-5)
    q = np.linspace(0, 0.8, 2001)
    trapezoid = np.sum(0.5 * (function(q)[1:] + function(q)[:-1]) * np.diff(q))
    assert function.accumulated(-np.log1p(-q[-1:]))[0] == pytest.approx(trapezoid, rel=1e-5)


def test_nodes_should_increase_from_zero_and_share_panel_ends():
    for power in (0, 1):
        q = node_overlaps(panel_edges(power))
        assert q[0] == 0
        assert (np.diff(q) > 0).all()
        assert q[-1] > 1 - 1e-4


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(0.2, 3), shift=st.floats(-2, 2), q=st.floats(0.05, 0.95))
def test_shift_should_not_matter_and_scale_should_act_as_snr(scale, shift, q):
    sigma = as_activation("tanh")
    at = np.array([q])
    changed = AdditiveChannel(sigma.affine(scale, shift), np.array([0.5])).overlap(at, 1)
    same = AdditiveChannel(sigma, np.array([0.5 * scale**2])).overlap(at, 1)
    np.testing.assert_allclose(changed, same, rtol=1e-6)


def test_many_strengths_at_once_should_equal_each_alone():
    snrs = np.array([1e-3, 0.1, 2.0])
    together = AdditiveChannel(as_activation("tanh"), snrs).overlap(OVERLAPS, 0)
    for row, snr in zip(together, snrs, strict=True):
        np.testing.assert_allclose(row, additive("tanh", snr).overlap(OVERLAPS, 0)[0], rtol=1e-12)


def test_declared_parity_should_not_change_the_values():
    even = as_activation(lambda z: np.abs(z), kinks=(0.0,), parity="even")
    plain = as_activation(lambda z: np.abs(z), kinks=(0.0,))
    at = np.array([0.01, 0.4, 0.9])
    a, b = (AdditiveChannel(link, np.array([0.7])).overlap(at, 1) for link in (even, plain))
    np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("name", ["abs", "relu", "tanh", "sign"])
def test_strong_signals_should_approach_the_noiseless_limit(name):
    at = np.array([0.1, 0.5])
    limit = NoiselessChannel(as_activation(name)).overlap(at, 1)[0]
    gaps = [np.abs(additive(name, snr).overlap(at, 1)[0] / limit - 1).max() for snr in (30.0, 300.0)]
    assert gaps[1] < 0.6 * gaps[0]
    assert gaps[1] < 0.08


def test_noiseless_sign_should_have_its_closed_form_at_zero():
    """y = sign(z): E[z|y]^2 = 2/pi at q = 0."""
    for channel in (NoiselessChannel(as_activation("sign")), NoiselessSignChannel(as_activation("tanh"))):
        assert channel.overlap(np.array([0.0]), 1)[0, 0] == pytest.approx(2 / np.pi, rel=1e-9)


def test_noiseless_overlap_function_should_end_at_perfect_knowledge():
    """(1 - q) F(q) -> P(sigma' != 0): each smooth observation pins one degree of freedom."""
    q = np.array([1 - 1e-5])
    for name, share in (("abs", 1.0), ("relu", 0.5), ("tanh", 1.0)):
        assert (1 - q) * NoiselessChannel(as_activation(name)).overlap(q, 1)[0] == pytest.approx(
            share, abs=0.01
        )


def test_sign_labels_should_carry_less_than_the_values_behind_them():
    sigma = as_activation("tanh")
    at = np.array([0.0, 0.3, 0.8])
    signs, values = (law(sigma, np.array([2.0])).overlap(at, 1) for law in (SignChannel, AdditiveChannel))
    assert (signs < values).all()


def test_sign_labels_should_lose_a_factor_pi_half_at_small_snr():
    sigma = as_activation("tanh")
    at = np.array([0.2, 0.6])
    signs, values = (law(sigma, np.array([1e-5])).overlap(at, 1) for law in (SignChannel, AdditiveChannel))
    np.testing.assert_allclose(values / signs, np.pi / 2, rtol=1e-4)


@pytest.mark.parametrize("name", ["He4", pytest.param("relu", marks=pytest.mark.slow), "tanh", "abs"])
def test_small_snr_should_leave_the_signal_function(name):
    sigma = as_activation(name, normalize=name == "He4")
    G, at = signal_function(sigma), np.array([0.3, 0.6, 0.9])
    F = AdditiveChannel(sigma, np.array([1e-8])).overlap(at, 1)[0]
    np.testing.assert_allclose(F / 1e-8, G(at), rtol=1e-5)


@pytest.mark.parametrize("name", ["He4", pytest.param("relu", marks=pytest.mark.slow), "tanh", "abs", "door"])
def test_signal_function_should_integrate_to_the_variance(name):
    sigma = as_activation(name)
    G = signal_function(sigma)
    left = 5e-3 if name == "door" else 1e-4  # the table ends at q = 1 - 1e-5, jumps leave sqrt(1 - q)
    assert G.accumulated(G.edges[-1:])[0] == pytest.approx(sigma.variance, rel=left)


def test_excess_risk_should_fall_from_the_variance_to_zero():
    """He4 at unit variance: v - G(q) = 1 - q^4."""
    G = signal_function(as_activation("He4", normalize=True))
    q = np.array([0.0, 0.3, 0.8, 0.999])
    np.testing.assert_allclose(excess_risk(G, 1.0, q), 1 - q**4, rtol=1e-6)


def test_values_that_overflow_where_thresholds_look_should_be_refused():
    with pytest.raises(InputError, match="finite"):
        AdditiveChannel(as_activation(lambda z: np.where(np.abs(z) < 9.5, z, np.inf)), np.ones(1)).overlap(
            np.array([0.5]), 0
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", activation_names())
def test_bound_should_cover_a_finer_computation_for_the_whole_registry(name):
    """Off its nodes too, F at rtol 1e-5 lies within its bound of F at 8 times the nodes.

    F of z2exp vanishes faster than q: there the bound says that no relative error holds.
    """
    channel = additive(name, 0.5, normalize=True)
    function = refined(channel, rtol=1e-5)
    if name == "z2exp":
        assert function.bound == np.inf
        return
    q = np.array([1e-4, 0.02, 0.3, 0.7, 0.93, 0.995])
    off = np.abs(function(q) / tabulate(channel, q, 3)[0] - 1)
    assert off.max() <= function.bound <= 1e-3
