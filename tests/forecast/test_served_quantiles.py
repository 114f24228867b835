"""Quantiles of a base model that forecasts them are served as they were judged."""

from __future__ import annotations

import numpy as np
import polars as pl

from metier.forecast import ClusterForecaster


def test_lightgbm_quantiles_should_follow_the_features() -> None:
    """Noise of sd 0.2 where x = 0 and 5 where x = 1: the served width must know x."""
    rng = np.random.default_rng(0)
    n, t = 12, 160
    x = rng.integers(0, 2, size=(n, t))
    y = 10.0 + np.where(x == 1, 5.0, 0.2) * rng.standard_normal((n, t))
    names, steps = np.repeat([f"s{i:02d}" for i in range(n)], t), np.tile(np.arange(t), n)
    frame = pl.DataFrame({"unique_id": names, "ds": steps, "y": y.ravel(), "x": x.ravel()})
    forecaster = ClusterForecaster(
        model="lightgbm", loss="pinball", quantiles=(0.1, 0.9), lags=1, n_clusters=2, n_starts=1, gate="none"
    ).fit(frame)
    width = {}
    for value in (0, 1):
        future = pl.DataFrame({"unique_id": sorted(set(names)), "ds": [t] * n, "x": [value] * n})
        out = forecaster.predict(1, future=future)
        width[value] = (out["ClusterForecaster-ql0.9"] - out["ClusterForecaster-ql0.1"]).to_numpy()
    assert (width[0] < 3.0).all()
    assert (width[1] > 5.0).all()
    own = forecaster.served_.own_quantiles(1, np.ones((n, 1, 1)))
    assert own is not None
    assert np.allclose(forecaster.served_.scaling.invert(own)[:, 0, 1], out["ClusterForecaster-ql0.9"])
