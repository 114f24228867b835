"""What large panels change: stalled runs, a sampled search, sums built in passes, float32; and the speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from panels import frame_of, regimes
from sklearn.linear_model import Ridge
from slow_reference import random_design

from metier.forecast import ClusterForecaster
from metier.forecast.partition.clustering import MAX_ITERATIONS, PATIENCE, TOLERANCE, assign, cluster
from metier.forecast.partition.criterion import GramCriterion, prior_from
from metier.forecast.partition.search import Found, Search
from metier.forecast.partition.seeding import feature_clusters
from metier.forecast.partition.stack import RunKey, Stack
from metier.forecast.regression import gram, scaling
from metier.forecast.regression.design import Design
from metier.forecast.regression.gram import GramTable
from metier.forecast.regression.losses import ForecastLoss

SPLIT = 45


def table_of(design: Design, *, keep: bool = True) -> GramTable:
    windows = [((design.max_lag, SPLIT),), ((SPLIT, 60),), ((52, 60),)]
    return GramTable.build(design, windows, active=np.ones(design.n_series, dtype=bool), keep=keep)


def search(**changes: object) -> Search:
    plain = Search(n_clusters=(2, 3), shrinkage=(0.0, 1.0), n_starts=2, loss=ForecastLoss(name="squared"))
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_a_run_should_stop_once_its_best_stalls() -> None:
    table = table_of(random_design(0, n_series=60))
    criterion = GramCriterion(table=table, prior=prior_from(table, penalty=1.0))
    keys = [RunKey(window=0, n_clusters=4, start=s, shrinkage=0.0) for s in range(8)]
    start = np.random.default_rng(0).integers(4, size=(8, 60)).astype(np.int16)
    runs = {
        patience: cluster(criterion, keys, seeds=None, labels=start, active=table.active, patience=patience)
        for patience in (PATIENCE, MAX_ITERATIONS)
    }
    stopped = 0
    for ours, full in zip(runs[PATIENCE], runs[MAX_ITERATIONS], strict=True):
        n = len(ours.trace)
        assert ours.trace == full.trace[:n]
        assert ours.objective == min(full.trace[:n])
        if n == len(full.trace):
            continue
        stopped += 1
        before = min(full.trace[: n - PATIENCE])
        assert min(full.trace[n - PATIENCE : n]) >= before * (1 - TOLERANCE)
        assert not ours.converged
    assert stopped >= 3


@pytest.mark.parametrize("assign_on", ["val", "train", "both"])
def test_sums_built_in_passes_should_give_the_same_search(assign_on: str) -> None:
    design = random_design(4, n_series=40, ragged=True)
    kept, built = (search(assign_on=assign_on).run(table_of(design, keep=keep)) for keep in (True, False))
    for ours, theirs in zip(built.partitions, kept.partitions, strict=True):
        assert ours is not None
        assert theirs is not None
        assert ours.key == theirs.key
        assert ours.labels.tolist() == theirs.labels.tolist()
        np.testing.assert_allclose(ours.theta, theirs.theta, rtol=0, atol=1e-10)
    np.testing.assert_allclose(built.base_loss, kept.base_loss, rtol=1e-12)


@pytest.fixture(scope="module")
def sampled() -> Found:
    design = random_design(7, n_series=50)
    return search(max_search_series=20).run(table_of(design))


def test_a_sample_should_not_look_at_values(sampled: Found) -> None:
    design = sampled.table.design
    values = np.random.default_rng(1).normal(size=design.values.shape)
    other = search(max_search_series=20).run(table_of(replace(design, values=values)))
    assert sampled.sample is not None
    assert other.sample is not None
    assert other.sample.tolist() == sampled.sample.tolist()
    assert len(set(sampled.sample.tolist())) == 20
    assert {len(run.labels) for run in sampled.runs} == {20}


def test_a_sampled_search_should_finish_on_all_series(sampled: Found) -> None:
    for partition in sampled.partitions:
        assert partition is not None
        chosen = [run for run in sampled.runs if run.key.window == partition.key.window]
        assert (partition.key.start, partition.key.shrinkage) in {
            (run.key.start, run.key.shrinkage) for run in chosen
        }
        assert partition.labels.shape == (50,)
        stack = Stack(keys=(replace(partition.key, n_clusters=partition.n_clusters),))
        models = sampled.criterion.refit(stack, partition.labels[None], None)
        np.testing.assert_allclose(models.theta, partition.theta, rtol=0, atol=1e-10)
        _, objective = assign(sampled.criterion, stack, models, partition.labels[None], sampled.table.active)
        assert objective[0] == pytest.approx(partition.objective, rel=1e-10)


def test_a_sampled_search_should_repeat_itself(sampled: Found) -> None:
    again = search(max_search_series=20).run(table_of(random_design(7, n_series=50)))
    for ours, theirs in zip(again.partitions, sampled.partitions, strict=True):
        assert ours is not None
        assert theirs is not None
        assert ours.labels.tolist() == theirs.labels.tolist()
        assert ours.trace == theirs.trace


def test_a_sampled_fit_should_find_the_regimes_of_all_series() -> None:
    frame = frame_of(regimes(2, n_series=60, n_steps=200))
    forecaster = ClusterForecaster(lags=2, n_clusters=2, max_search_series=20).fit(frame)
    assert forecaster.fitted_.found.sample is not None
    labels = forecaster.partition_
    agreement = np.mean((labels == labels[0]) == (np.arange(60) % 2 == 0))
    assert agreement >= 0.95


def test_float32_panels_should_give_the_same_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = frame_of(regimes(3))
    settings = {"lags": 3, "n_clusters": 2}
    double = ClusterForecaster(**settings).fit(frame)
    monkeypatch.setattr(scaling, "MANY_VALUES", 100)
    monkeypatch.setattr(gram, "MAX_KEPT_BYTES", 100)
    single = ClusterForecaster(**settings).fit(frame)
    assert single.fitted_.final_design.values.dtype == np.float32
    assert single.fitted_.found.table.stored is None
    assert single.partition_.tolist() == double.partition_.tolist()
    np.testing.assert_allclose(single.loss_matrix_, double.loss_matrix_, rtol=1e-5)


def test_feature_clusters_of_many_series_should_come_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=400)
    local = 3.0 * truth[:, None] + rng.normal(scale=0.1, size=(400, 4))
    monkeypatch.setattr("metier.forecast.partition.seeding.FEATURE_SERIES", 50)
    labels = feature_clusters(local, 3, n_clusters=3, rng=1)
    assert len({(t, k) for t, k in zip(truth, labels, strict=True)}) == 3


def test_gram_iteration_should_be_five_times_faster_than_sklearn_refits() -> None:
    """Statement 24: N = 1,000, T = 500, d = 25, K = 8; the median ratio of five rounds."""
    design = random_design(0, n_series=1_000, n_steps=500, lags=tuple(range(1, 25)))
    windows = [((24, 400),), ((400, 500),)]
    table = GramTable.build(design, windows, active=np.ones(1_000, dtype=bool))
    criterion = GramCriterion(table=table, prior=prior_from(table, penalty=1.0))
    labels = np.random.default_rng(0).integers(8, size=1_000).astype(np.int16)
    stack = Stack(keys=(RunKey(window=0, n_clusters=8, start=0, shrinkage=0.0),))
    X, y, _ = design.rows(slice(None), 24, 500)

    def ours() -> np.ndarray:
        models = criterion.refit(stack, labels[None], None)
        return assign(criterion, stack, models, labels[None], table.active)[0][0]

    def theirs() -> np.ndarray:
        losses = np.empty((1_000, 8))
        for k in range(8):
            own = labels == k
            model = Ridge(alpha=1.0, fit_intercept=False).fit(
                X[own, :376].reshape(-1, 25), y[own, :376].ravel()
            )
            error = y[:, 376:] - model.predict(X[:, 376:].reshape(-1, 25)).reshape(1_000, 100)
            losses[:, k] = (error * error).mean(axis=1)
        return losses.argmin(axis=1)

    assert np.array_equal(ours(), theirs())
    rounds = [(seconds(theirs), seconds(ours)) for _ in range(5)]
    assert statistics.median(slow / fast for slow, fast in rounds) >= 5


def seconds(fn: Callable[[], object]) -> float:
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start
