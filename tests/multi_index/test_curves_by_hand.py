"""Thresholds read off curves whose turns are set by hand: several branches, shallow turns, the far end."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from solved import thresholds

from metier.multi_index.fixed_points import NAMES, Lines, find_lines, fixed_points, upper_advantage
from metier.multi_index.overlap import assemble, node_overlaps, panel_edges
from metier.multi_index.thresholds import READINGS, line_errors

X = np.linspace(1e-4, 11.5, 40_001)


def log_ratio(x, bumps):
    """Ln alpha = 2 + x/2 and Gaussian bumps (center, width, height)."""
    rise = sum(height * np.exp(-(((x - center) / width) ** 2)) for center, width, height in bumps)
    return 2.0 + 0.5 * x + rise


def curve_with(*bumps):
    """All fixed points of the overlap function that has this curve: F = q exp(x - ln alpha)."""
    edges = panel_edges(1)
    x = -np.log1p(-node_overlaps(edges))
    rate = np.exp(x - log_ratio(x, bumps))
    return fixed_points(assemble(edges, rate, rate, 1, error=0.0), tolerance=1e-3)


HIGH_THEN_LOW = ((1.3, 0.7, 3.2), (4.5, 1.0, 1.4))
LOW_THEN_HIGH = ((1.3, 0.7, 1.6), (4.5, 1.0, 3.0))


@pytest.mark.parametrize("bumps", [HIGH_THEN_LOW, LOW_THEN_HIGH], ids=["first higher", "last higher"])
def test_strong_recovery_should_be_the_highest_peak_of_three_stable_branches(bumps):
    """AMP from 0 climbs alpha's running maximum; the upper branch opens at the last minimum."""
    curve = curve_with(*bumps)
    assert curve.rising.tolist() == [True, False, True, False, True]
    y = log_ratio(X, bumps)
    minima = [k for k in range(1, X.size - 1) if y[k - 1] > y[k] < y[k + 1]]
    peaks = [y[k] for k in range(1, X.size - 1) if y[k - 1] < y[k] > y[k + 1]]
    lines = find_lines(curve)
    assert math.log(lines.ratios["strong_recovery"]) == pytest.approx(max(peaks), abs=1e-4)
    assert math.log(lines.ratios["spinodal"]) == pytest.approx(y[minima[-1]], abs=1e-4)
    assert lines.overlaps["spinodal"] == pytest.approx(-math.expm1(-X[minima[-1]]), abs=1e-3)
    assert lines.ratios["spinodal"] < lines.ratios["it_strong"] < lines.ratios["strong_recovery"]
    for share in (0.98, 1.02):
        alpha = share * lines.ratios["strong_recovery"]
        reached = X[np.argmax(np.maximum.accumulate(y) > math.log(alpha))]
        found = READINGS["uninformed"](curve, np.array([alpha]))[0]
        assert found == pytest.approx(-math.expm1(-reached), abs=1e-3)


@pytest.mark.parametrize("bumps", [HIGH_THEN_LOW, LOW_THEN_HIGH], ids=["first higher", "last higher"])
def test_it_strong_should_be_where_the_free_entropies_of_three_branches_meet(bumps):
    """The largest phi on a grid of q moves to the upper branch there."""
    curve = curve_with(*bumps)
    it_strong, opening = find_lines(curve).ratios["it_strong"], curve.stops[-2]
    for share, above in ((0.99, False), (1.01, True)):
        best = X[np.argmax(curve.free_entropy(X, share * it_strong))]
        assert (best > opening) == above


def test_an_upper_branch_that_wins_where_it_opens_should_be_it_strong_there():
    """Exactly, it never does; the integral's own rounding may say so of a shallow turn."""
    curve = curve_with((2.0, 0.6, 1.5))
    exact = find_lines(curve)
    assert exact.ratios["it_strong"] > exact.ratios["spinodal"]
    function = curve.function
    last = int(np.searchsorted(function.edges, curve.stops[-2], side="right")) - 1
    integral = function.integral.copy()
    integral[last:, 0] += 0.5
    curve = dataclasses.replace(curve, function=dataclasses.replace(function, integral=integral))
    assert upper_advantage(curve, curve.levels[-2] + 1e-12) > 0
    assert find_lines(curve).ratios["it_strong"] == exact.ratios["spinodal"]


@pytest.mark.parametrize("start", list(READINGS))
def test_overlaps_beyond_the_table_should_have_their_closed_form(start):
    """sigma(z) = z: q = alpha snr (1 - q)/(1 + snr (1 - q)), where 1 - q is far below the table's 1e-5."""
    snr, t = 0.5, thresholds("linear", snr=0.5)
    alphas = np.array([1e7, 1e8])
    assert (np.log(alphas) > t.curve.levels[-1]).all()
    # With u = 1 - q: snr u^2 + (1 - snr + alpha snr) u - 1 = 0.
    b = 1 - snr + alphas * snr
    left = 2 / (b + np.sqrt(b * b + 4 * snr))
    np.testing.assert_allclose(1 - t.overlap(alphas, start=start), left, rtol=1e-4)


def test_errors_of_lines_should_be_at_least_what_is_known_otherwise():
    fine = dict(zip(NAMES, (2.0, 4.0, math.nan, 0.0, math.inf), strict=True))
    rough = {**fine, "strong_recovery": 4.4}
    lines = [Lines(ratios=ratios, overlaps={}, reasons={}) for ratios in (fine, rough)]
    own = line_errors(*lines)
    assert own["strong_recovery"] == pytest.approx(0.1)
    assert [own[name] for name in NAMES if name != "strong_recovery"] == [0.0] * 4
    least = line_errors(*lines, least=0.03)
    assert least == {**own, "weak_recovery": 0.03}
    assert line_errors(*lines, least=0.3) == {**own, "weak_recovery": 0.3, "strong_recovery": 0.3}


@pytest.mark.parametrize(
    ("activation", "weak"), [("3", math.inf), ("linear", 0.0)], ids=["inf over inf", "0 over 0"]
)
def test_a_quotient_of_equal_ends_should_be_undefined(activation, weak):
    """A constant link needs infinitely many samples either way, a linear one none: neither has a gap."""
    t = thresholds(activation, snr=0.5)
    assert t.weak_recovery == t.strong_recovery == t.it_strong == weak
    assert math.isnan(t.gap)
    assert math.isnan(t.strong_gap)
    assert math.isnan(t.to_dict()["strong_gap"])
    assert "strong_gap" in t.reasons
