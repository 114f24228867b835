"""A panel split over workers gives what one process gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from panels import frame_of, regimes
from slow_reference import random_design

from metier.forecast import ClusterForecaster
from metier.forecast.regression.gram import GramTable
from metier.forecast.regression.threads import CHUNK

N_SERIES = 2 * CHUNK + 100  # three blocks
# Starting them takes most of the time.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("dask", "ray")]


@contextmanager
def session(backend: str) -> Iterator[None]:
    """One cluster for all passes of a fit; the other backends keep or start their own."""
    if backend != "dask":
        yield
        return
    from distributed import Client, LocalCluster

    options: dict[str, Any] = {
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "threads_per_worker": 1,
    }
    with LocalCluster(n_workers=2, **options) as cluster, Client(cluster):
        yield


@lru_cache(maxsize=1)
def serial() -> ClusterForecaster:
    return fitted("serial")


def fitted(backend: str) -> ClusterForecaster:
    frame = frame_of(regimes(5, n_series=N_SERIES, n_steps=60))
    settings: dict[str, Any] = {"lags": 2, "n_clusters": 3, "shrinkage": 1.0, "n_starts": 2}
    with session(backend):
        return ClusterForecaster(**settings, backend=backend).fit(frame)


@pytest.mark.parametrize("backend", ["joblib", *SLOW])
def test_backends_should_give_the_same_forecaster(backend: str) -> None:
    ours, theirs = fitted(backend), serial()
    assert ours.partition_.tolist() == theirs.partition_.tolist()
    assert ours.gate_report_.chosen == theirs.gate_report_.chosen
    np.testing.assert_allclose(ours.loss_matrix_, theirs.loss_matrix_, rtol=1e-10)
    for name, model in theirs.fitted_.final.items():
        np.testing.assert_allclose(ours.fitted_.final[name].theta[0], model.theta[0], rtol=0, atol=1e-10)


@pytest.mark.parametrize("n_workers", [1, 2, 3])
@pytest.mark.parametrize("backend", ["joblib", *SLOW])
def test_sums_should_not_depend_on_the_number_of_workers(backend: str, n_workers: int) -> None:
    design = random_design(2, n_series=N_SERIES, n_steps=30, ragged=True, n_common=1, n_own=1)
    windows = [((design.max_lag, 20),), ((20, 30),), ((25, 30),)]
    active = np.arange(N_SERIES) % 7 != 3
    one = GramTable.build(design, windows, active=active)
    spread = GramTable.build(design, windows, active=active, backend=backend, n_workers=n_workers)
    assert one.stored is not None
    assert spread.stored is not None
    assert len(spread.stored) == len(one.stored) == 3
    for ours, theirs in zip(spread.stored, one.stored, strict=True):
        assert ours.series == theirs.series
        np.testing.assert_array_equal(ours.rows, theirs.rows)
        for got, want in zip(ours.sums, theirs.sums, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
