"""Simulated panels of any size for benchmarks: four autoregressive regimes with a common shock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metier.core import derive
from metier.data import simulate_regimes
from metier.forecast.regression.design import Design

BURN_IN = 100


def regime_panel(n_series: int, n_steps: int, *, seed: int, part: int = 0) -> np.ndarray:
    """(N, T) values of four AR(3) regimes, 80 % own and 20 % common noise; `part` draws other series."""
    coefficients = simulate_regimes("strong", rng=seed, n_series=8).coefficients
    own = derive(seed, "panel", part)
    common = derive(seed, "common").standard_normal(n_steps + BURN_IN)
    phi = coefficients[own.integers(len(coefficients), size=n_series)].T
    y = np.zeros((n_steps + BURN_IN, n_series))
    for t in range(3, len(y)):
        noise = np.sqrt(0.8) * own.standard_normal(n_series) + np.sqrt(0.2) * common[t]
        y[t] = phi[0] * y[t - 1] + phi[1] * y[t - 2] + phi[2] * y[t - 3] + noise
    return np.ascontiguousarray(y[BURN_IN:].T)


def regime_design(n_series: int, n_steps: int, *, seed: int, lags: int = 24) -> Design:
    """The standardized regression of such a panel."""
    values = regime_panel(n_series, n_steps, seed=seed)
    values = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)
    return Design(
        values=values,
        first=np.zeros(n_series, dtype=np.intp),
        stop=np.full(n_series, n_steps, dtype=np.intp),
        lags=tuple(range(1, lags + 1)),
        season_length=None,
        common=np.zeros((n_steps, 0)),
    )


def long_table(values: np.ndarray, *, first: int = 0) -> pa.Table:
    """The long frame of series `first`, `first` + 1, ...; float32 targets, text ids."""
    n_series, n_steps = values.shape
    names = pa.array([f"series-{first + i:07d}" for i in range(n_series)])
    codes = pa.array(np.repeat(np.arange(n_series, dtype=np.int32), n_steps))
    return pa.table(
        {
            "unique_id": names.take(codes),
            "ds": np.tile(np.arange(n_steps, dtype=np.int32), n_series),
            "y": values.astype(np.float32).ravel(),
        }
    )


def write_folder(folder: Path, n_series: int, n_steps: int, *, seed: int, per_file: int = 10_000) -> None:
    """The panel as parquet files of `per_file` whole series."""
    for part, first in enumerate(range(0, n_series, per_file)):
        values = regime_panel(min(per_file, n_series - first), n_steps, seed=seed, part=part)
        pq.write_table(long_table(values, first=first), folder / f"part-{part:04d}.parquet")
