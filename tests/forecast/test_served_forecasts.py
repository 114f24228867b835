"""Intervals and quantiles of a forecast belong to the cluster of each series, in the series' own units."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from panels import frame_of, small
from slow_reference import Floats

from metier.forecast import ClusterForecaster

HORIZON, RARE = 2, 16
SLOW, FAST = 0, 1


def two_noises(seed: int = 0, *, n_series: int = 16, n_steps: int = 200) -> Floats:
    """Even series: AR(.8) with uniform noise; odd ones: AR(-.6) with Laplace noise; units of their own."""
    rng = np.random.default_rng(seed)
    odd = np.arange(n_series)[:, None] % 2 == FAST
    noise = np.where(
        odd,
        rng.laplace(scale=np.sqrt(0.5), size=(n_series, n_steps)),
        rng.uniform(-np.sqrt(3), np.sqrt(3), size=(n_series, n_steps)),
    )
    values = noise.copy()
    for t in range(1, n_steps):
        values[:, t] += np.where(odd[:, 0], -0.6, 0.8) * values[:, t - 1]
    return rng.uniform(-5, 5, size=(n_series, 1)) + rng.uniform(0.5, 3.0, size=(n_series, 1)) * values


def panel_with_a_rare_series() -> Floats:
    """The last series moves once: outside the partition, but not constant."""
    values = np.concatenate([two_noises(), np.full((1, 200), 7.0)])
    values[RARE, 30:] = 9.0
    return values


def fitted(**parameters: object) -> ClusterForecaster:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*hardly vary in TRAIN", category=UserWarning)
        return small(horizon=HORIZON, lags=1, **parameters).fit(frame_of(panel_with_a_rare_series()))


def column(frame: object, name: str) -> Floats:
    return np.asarray(frame[f"ClusterForecaster{name}"]).reshape(-1, HORIZON)  # type: ignore[index]


def assert_regimes_are_the_clusters(forecaster: ClusterForecaster) -> None:
    labels = forecaster.partition_
    assert labels[RARE] == 2
    assert labels[SLOW] != labels[FAST]
    assert labels[:RARE].tolist() == [labels[i % 2] for i in range(RARE)]


@pytest.mark.parametrize("gate", ["crossfit", "none"])
def test_interval_bounds_should_be_those_of_the_series_cluster(gate: str) -> None:
    forecaster = fitted(gate=gate)
    assert_regimes_are_the_clusters(forecaster)
    assert forecaster.gate_report_.chosen == "clustered"
    calibration = forecaster.served_.calibration
    assert calibration is not None
    scale = panel_with_a_rare_series().std(axis=1)
    out = forecaster.predict(level=(80, 95))
    point = column(out, "")
    for level in (80, 95):
        low, high = column(out, f"-lo-{level}"), column(out, f"-hi-{level}")
        for i, group in enumerate(forecaster.partition_):
            for h in range(1, HORIZON + 1):
                below, above = calibration.interval(int(group), h, level / 100)
                assert low[i, h - 1] - point[i, h - 1] == pytest.approx(scale[i] * below, abs=1e-9)
                assert high[i, h - 1] - point[i, h - 1] == pytest.approx(scale[i] * above, abs=1e-9)


def test_interval_widths_should_follow_the_noise_of_each_regime() -> None:
    """Half-widths of one-step intervals in standard deviations of the series, from the closed forms.

    An AR(a) of unit noise has standard deviation 1 / sqrt(1 - a^2); |noise| stays below .95 sqrt(3) (uniform)
    and below log(20) / sqrt(2) (Laplace) with probability .95.
    """
    forecaster = fitted()
    out = forecaster.predict(level=(95,))
    half = (column(out, "-hi-95") - column(out, "-lo-95"))[:, 0] / 2
    half = (half / panel_with_a_rare_series().std(axis=1))[:RARE]
    slow, fast = 0.6 * 0.95 * np.sqrt(3), 0.8 * np.log(20) / np.sqrt(2)
    assert fast > 1.5 * slow
    np.testing.assert_allclose(half[SLOW::2], slow, rtol=0.15)
    np.testing.assert_allclose(half[FAST::2], fast, rtol=0.15)


def test_quantile_columns_should_be_those_of_the_series_cluster() -> None:
    forecaster = fitted(loss="pinball", quantiles=(0.02, 0.98))
    assert_regimes_are_the_clusters(forecaster)
    calibration = forecaster.served_.calibration
    assert calibration is not None
    scale = panel_with_a_rare_series().std(axis=1)
    out = forecaster.predict()
    for q in (0.02, 0.98):
        shift = column(out, f"-ql{q}") - column(out, "")
        expected = [
            [calibration.quantile(int(group), h, q) for h in range(1, HORIZON + 1)]
            for group in forecaster.partition_
        ]
        np.testing.assert_allclose(shift, scale[:, None] * expected, rtol=0, atol=1e-9)
        differ = calibration.quantile(0, 1, q) - calibration.quantile(1, 1, q)
        assert abs(differ) > 0.3


def test_new_series_should_get_the_bounds_of_the_cluster_they_are_assigned_to() -> None:
    forecaster = fitted()
    new = frame_of(two_noises(1, n_series=6))
    clusters = np.asarray(forecaster.assign(new)["cluster"])
    assert {0, 1} <= set(clusters.tolist())
    calibration = forecaster.served_.calibration
    assert calibration is not None
    out = forecaster.predict(new_df=new, level=(95,))
    scale = two_noises(1, n_series=6).std(axis=1)
    for h in range(1, HORIZON + 1):
        bounds = np.array([calibration.interval(int(k), h, 0.95) for k in clusters])
        for side, bound in (("lo", bounds[:, 0]), ("hi", bounds[:, 1])):
            moved = (column(out, f"-{side}-95") - column(out, ""))[:, h - 1]
            np.testing.assert_allclose(moved, scale * bound, rtol=0, atol=1e-9)
