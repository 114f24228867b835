"""Panels and frames for the tests of the whole forecaster."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metier.forecast import ClusterForecaster
from metier.forecast.panels.panel import Panel, panel_from_frame
from metier.forecast.pipeline import Fitted

START = np.datetime64("2024-01-01T00", "us")


def regimes(
    seed: int = 0, *, n_series: int = 16, n_steps: int = 150, gap: float = 0.9
) -> NDArray[np.float64]:
    """Two regimes of AR(1), coefficients gap apart, each series in its own units."""
    rng = np.random.default_rng(seed)
    coefficient = np.where(np.arange(n_series) % 2, gap / 2, -gap / 2)
    values = rng.normal(size=(n_series, n_steps))
    for t in range(1, n_steps):
        values[:, t] += coefficient * values[:, t - 1]
    return rng.uniform(-5, 5, size=(n_series, 1)) + rng.uniform(0.5, 3.0, size=(n_series, 1)) * values


def frame_of(values: NDArray[np.float64], **columns: NDArray[np.float64]) -> pl.DataFrame:
    """Hourly polars frame; NaN cells have no row."""
    n, t = values.shape
    seen = ~np.isnan(values).ravel()
    names = np.repeat([f"s{i:03d}" for i in range(n)], t)[seen]
    stamps = np.tile(START + np.arange(t).astype("m8[h]"), n)[seen]
    data: dict[str, Any] = {"unique_id": names, "ds": stamps, "y": values.ravel()[seen]}
    return pl.DataFrame({**data, **{name: column.ravel()[seen] for name, column in columns.items()}})


def panel_of(values: NDArray[np.float64], **columns: NDArray[np.float64]) -> Panel:
    return panel_from_frame(frame_of(values, **columns))


def small(**parameters: Any) -> ClusterForecaster:
    """A forecaster of few runs."""
    return ClusterForecaster(**{"lags": 2, "n_clusters": 2, "n_starts": 2, "shrinkage": 0.0, **parameters})


def fitted_on(values: NDArray[np.float64], **parameters: Any) -> Fitted:
    """Fit without a frame of its own, warnings about constant series aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return small(**parameters).fit_panel(panel_of(values)).fitted_


def forecast(forecaster: ClusterForecaster, h: int | None = None, **options: Any) -> NDArray[np.float64]:
    """(N, h) point forecasts."""
    steps = forecaster.horizon if h is None else h
    out = forecaster.predict(h, **options)
    return np.asarray(out["ClusterForecaster"]).reshape(-1, steps)
