"""Long-run variances against slow loops, and the size of the tests that they give."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.signal import lfilter
from scipy.special import stdtrit

from metier.core import (
    InputError,
    derive,
    ewc_variances,
    hac_variances,
    long_run_variance_ewc,
    long_run_variance_hac,
)


def slow_ewc(d):
    T = len(d)
    nu = max(1, math.floor(0.4 * T ** (2 / 3)))
    L = [
        math.sqrt(2 / T) * sum(d[t - 1] * math.cos(math.pi * j * (t - 0.5) / T) for t in range(1, T + 1))
        for j in range(1, nu + 1)
    ]
    return sum(value**2 for value in L) / nu, nu


def slow_hac(d):
    T, m = len(d), sum(d) / len(d)
    q = math.floor(1.3 * math.sqrt(T))

    def c(lag):
        return sum((d[t] - m) * (d[t - lag] - m) for t in range(lag, T)) / T

    return c(0) + 2 * sum((1 - lag / (q + 1)) * c(lag) for lag in range(1, q + 1))


series = st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=2, max_size=60)


@given(series)
def test_fast_variances_equal_the_slow_loops(d):
    scale = max(1.0, float(np.max(np.abs(d))) ** 2)
    expected, nu = slow_ewc(d)
    variance, dof = long_run_variance_ewc(d)
    assert variance == pytest.approx(expected, abs=1e-11 * scale)
    assert dof == nu
    variance, dof = long_run_variance_hac(d)
    assert variance == pytest.approx(max(0.0, slow_hac(d)), abs=1e-11 * scale)
    assert dof == math.inf


def test_batches_equal_single_series():
    d = derive(0, "batch").standard_normal((3, 2, 50))
    for batched, single in ((ewc_variances, long_run_variance_ewc), (hac_variances, long_run_variance_hac)):
        variances, _ = batched(d)
        assert variances.shape == (3, 2)
        assert variances[2, 1] == pytest.approx(single(d[2, 1])[0], rel=1e-13)


def test_a_large_level_does_not_drown_the_variance():
    d = derive(0, "level").standard_normal(200)
    for variance in (long_run_variance_ewc, long_run_variance_hac):
        assert variance(d + 1e8)[0] == pytest.approx(variance(d)[0], rel=1e-6)


def test_short_or_non_finite_series_are_refused():
    with pytest.raises(InputError, match=r"variance needs a series: expected at least 2 time steps, got 1"):
        long_run_variance_ewc([1.0])
    with pytest.raises(InputError, match=r"is finite everywhere.*nan at index 1"):
        long_run_variance_hac([1.0, np.nan])


def rejection_rate(T, rho, alpha, draws=10_000):
    """One-sided rejections of a mean-zero AR(rho) series with stationary start."""
    noise = derive(13, "size", T, int(100 * rho)).standard_normal((draws, T + 100))
    d = lfilter([1.0], [1.0, -rho], noise, axis=1)[:, 100:]
    variances, nu = ewc_variances(d)
    return np.mean(d.mean(axis=1) / np.sqrt(variances / T) > stdtrit(nu, 1 - alpha))


@pytest.mark.parametrize("T", [40, 80, 200])
def test_ewc_size_on_white_noise_is_nominal(T):
    # +-.01 is 4.6 standard errors of 10,000 draws: a nominal test fails once in 200,000 seeds.
    assert abs(rejection_rate(T, 0.0, 0.05) - 0.05) < 0.01


@pytest.mark.parametrize("T", [40, 80, 200])
def test_ewc_size_under_autocorrelation_stays_near_nominal(T):
    assert 0.04 < rejection_rate(T, 0.3, 0.05) <= 0.065


def test_hac_with_normal_critical_values_is_liberal_as_documented():
    d = derive(13, "hac size").standard_normal((10_000, 40))
    variances, _ = hac_variances(d)
    rate = np.mean(d.mean(axis=1) / np.sqrt(variances / 40) > 1.6448536)
    assert 0.08 < rate < 0.105
