import numpy as np
import pytest

from metier.core import InputError
from metier.data import DESIGNS, autocorrelations, oracle_gain, simulate_regimes

LAGS = 8


def test_autocorrelations_should_solve_yule_walker_and_match_a_long_moving_average():
    phi = np.array([0.1, -0.45, 0.35])
    rho = autocorrelations(phi, 12)
    psi = [1.0]
    for _ in range(2_000):
        psi.append(sum(phi[m] * psi[-1 - m] for m in range(3) if m < len(psi)))
    psi = np.array(psi)
    covariance = np.array([psi[: psi.size - j] @ psi[j:] for j in range(13)])
    np.testing.assert_allclose(rho, covariance / covariance[0], atol=1e-12)


def test_oracle_gain_should_be_zero_without_heterogeneity():
    assert oracle_gain([[0.5, 0.2], [0.5, 0.2]], [0.3, 0.7]) == pytest.approx(0.0, abs=1e-15)
    assert oracle_gain([[0.5], [-0.9]], [1.0, 0.0]) == pytest.approx(0.0, abs=1e-15)


def test_oracle_gain_should_ignore_the_order_of_regimes_and_split_regimes():
    rows, shares = [[0.8, -0.05, 0.05], [-0.15, 0.35, 0.15]], [0.4, 0.6]
    gain = oracle_gain(rows, shares)
    assert oracle_gain(rows[::-1], shares[::-1]) == pytest.approx(gain, rel=1e-12)
    assert oracle_gain([rows[0], *rows], [0.1, 0.3, 0.6]) == pytest.approx(gain, rel=1e-12)


def test_more_lags_should_help_the_global_model():
    rows, shares = DESIGNS["strong"].coefficients, np.full(4, 0.25)
    assert oracle_gain(rows, shares, lags=LAGS) < oracle_gain(rows, shares) - 0.005


def test_oracle_gain_should_refuse_what_it_cannot_compute():
    with pytest.raises(
        InputError, match=r"stationary autoregression.*regime 1 with coefficients \[0\.8, 0\.3\]"
    ):
        oracle_gain([[0.1, 0.1], [0.8, 0.3]], [0.5, 0.5])
    with pytest.raises(InputError, match=r"distribution over the regimes.*got \[0\.5, 0\.6\]"):
        oracle_gain([[0.1], [0.2]], [0.5, 0.6])
    with pytest.raises(InputError, match=r"every lag of the regimes: expected lags >= 2, got 1"):
        oracle_gain([[0.1, 0.1]], [1.0], lags=1)


def routed_gain(panel):
    """Least squares on TRAIN for the panel and for each true regime, squared loss on TEST, by series."""
    scaled = (panel.values - panel.train.mean(axis=1, keepdims=True)) / panel.train.std(axis=1, keepdims=True)

    def table(series, start, stop):
        columns = [scaled[series, start - lag : stop - lag] for lag in range(1, LAGS + 1)]
        return np.column_stack([np.ones(stop - start), *columns]), scaled[series, start:stop]

    def fit(series):
        grams, moments = np.zeros((LAGS + 1, LAGS + 1)), np.zeros(LAGS + 1)
        for i in series:
            X, y = table(i, LAGS, panel.n_train)
            grams += X.T @ X
            moments += X.T @ y
        return np.linalg.solve(grams, moments)

    theta_global = fit(range(panel.n_series))
    loss_global = loss_routed = 0.0
    for k in range(panel.n_regimes):
        members = np.flatnonzero(panel.labels == k)
        theta = fit(members)
        for i in members:
            X, y = table(i, panel.n_train + panel.n_val, panel.values.shape[1])
            loss_global += np.mean((y - X @ theta_global) ** 2)
            loss_routed += np.mean((y - X @ theta) ** 2)
    return 1.0 - loss_routed / loss_global


@pytest.mark.parametrize("seed", [11, 12, 13])
@pytest.mark.parametrize("name", ["strong", "medium", "weak", "small"])
def test_the_true_partition_should_gain_what_the_formula_says(name, seed):
    # Within 0.3 percentage points at T = 4,000 for TRAIN and for TEST. The formula is about the regimes, so
    # every design gets 200 series: with 24 the realized gain itself strays by 0.3.
    panel = simulate_regimes(name, rng=seed, n_series=200, n_train=4_000, n_test=4_000)
    assert routed_gain(panel) == pytest.approx(panel.oracle_gain(lags=LAGS), abs=0.003)
