"""The clustering iteration against a loop, its best iterate, and its invariances (statements 3, 11, 12)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.optimize import minimize
from slow_reference import naive_data, naive_recursion, random_design, table_of

from metier.forecast.partition.clustering import MAX_ITERATIONS, Partition, cluster
from metier.forecast.partition.criterion import GramCriterion, RowCriterion, prior_from
from metier.forecast.partition.search import mean_losses, refit_partition
from metier.forecast.partition.stack import RunKey, Stack
from metier.forecast.regression.design import Design
from metier.forecast.regression.losses import ForecastLoss, huber, pinball

SPLIT = 45
SQUARED = ForecastLoss(name="squared")
HUBER = ForecastLoss(name="huber", delta=0.7)
PINBALL = ForecastLoss(name="pinball", quantiles=(0.1, 0.5, 0.9))


def two_regimes(seed: int, n_series: int = 10, n_steps: int = 70) -> Design:
    """Half the series return to their mean, half keep their sign; the two overlap in short samples."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_series, n_steps))
    for t in range(1, n_steps):
        values[:, t] += np.where(np.arange(n_series) % 2, 0.5, -0.3) * values[:, t - 1]
    return replace(random_design(n_series=n_series, n_steps=n_steps, lags=(1, 2)), values=values)


def key(n_clusters: int, *, shrinkage: float = 0.0, window: int = 0, start: int = 0) -> RunKey:
    return RunKey(window=window, n_clusters=n_clusters, start=start, shrinkage=shrinkage)


def criterion_of(
    design: Design, loss: ForecastLoss = SQUARED, *, penalty: float = 1.0, split: int = SPLIT, **options: Any
) -> Any:
    table = table_of(design, split)
    prior = prior_from(table, penalty=penalty)
    if loss.from_sums and "horizons" not in options:
        return GramCriterion(table=table, prior=prior, **options)
    return RowCriterion(table=table, prior=prior, loss=loss, **options)


def run(criterion: Any, keys: list[RunKey], labels: Any) -> list[Partition]:
    start = np.array(labels, dtype=np.int16)
    return cluster(
        criterion, keys, seeds=None, labels=start, active=criterion.table.active, patience=MAX_ITERATIONS
    )


def naive_cluster(
    design: Design, labels: np.ndarray, n_clusters: int, *, shrinkage: float, penalty: float, on: str = "val"
) -> tuple[list[float], np.ndarray]:
    """Section 4 of the note, squared loss: the raw trace of J and the best labels."""
    n, d = design.n_series, design.n_features
    train = [naive_data(design, i, [(design.max_lag, SPLIT)]) for i in range(n)]
    val = [naive_data(design, i, [(SPLIT, design.n_steps)]) for i in range(n)]
    judged = {"val": [val], "train": [train], "both": [train, val]}[on]
    G, b = [X.T @ X for X, _ in train], [X.T @ y for X, y in train]
    G_mean, eye = sum(G) / n, np.eye(d)
    theta_global = np.linalg.solve(sum(G) + penalty * eye, sum(b))

    def fit(members: list[int]) -> np.ndarray:
        A = sum((G[i] for i in members), shrinkage * G_mean + penalty * eye)
        return np.linalg.solve(A, sum((b[i] for i in members), shrinkage * G_mean @ theta_global))

    trace, best, kept = [], np.inf, labels
    for _ in range(25):
        used = [k for k in range(n_clusters) if (labels == k).any()]
        losses = np.full((n, n_clusters), np.inf)
        for k in used:
            members = [j for j in range(n) if labels[j] == k]
            for i in range(n):
                total, count = 0.0, 0
                for part in judged:
                    theta = fit(members)
                    if on == "both" and part is train and i in members:
                        theta = fit([j for j in members if j != i]) if len(members) > 1 else theta_global
                    X, y = part[i]
                    total, count = total + float(((y - X @ theta) ** 2).sum()), count + len(y)
                losses[i, k] = total / count
        trace.append(float(losses[np.arange(n), labels].mean()))
        if trace[-1] < best:
            best, kept = trace[-1], labels
        moved = losses.argmin(axis=1)
        if (moved == labels).all():
            break
        labels = moved
    return trace, np.unique(kept, return_inverse=True)[1]


@pytest.mark.parametrize("on", ["val", "train", "both"])
@pytest.mark.parametrize("shrinkage", [0.0, 2.0])
def test_iteration_should_equal_the_note_step_by_step(on: str, shrinkage: float) -> None:
    for seed in range(4):
        design = two_regimes(seed)
        start = np.random.default_rng(seed).integers(3, size=10)
        (partition,) = run(criterion_of(design, assign_on=on), [key(3, shrinkage=shrinkage)], [start])
        trace, labels = naive_cluster(design, start, 3, shrinkage=shrinkage, penalty=1.0, on=on)
        assert partition.trace == pytest.approx(trace, rel=1e-9)
        assert partition.labels.tolist() == labels.tolist()


@pytest.mark.parametrize("loss", [SQUARED, HUBER, PINBALL], ids=lambda loss: loss.name)
def test_best_iterate_should_be_kept_and_recompute(loss: ForecastLoss) -> None:
    """Statement 3."""
    rose = 0
    for seed in range(6):
        criterion = criterion_of(two_regimes(seed), loss)
        start = np.random.default_rng(seed).integers(3, size=(2, 10))
        keys = [key(3, start=0), key(3, start=1, shrinkage=1.0)]
        for partition in run(criterion, keys, start):
            assert (np.diff(partition.best_so_far) <= 0).all()
            assert partition.objective == min(partition.trace)
            rose += bool((np.diff(partition.trace) > 0).any())
            models = refit_partition(
                criterion,
                partition.labels,
                n_clusters=partition.n_clusters,
                shrinkage=partition.key.shrinkage,
            )
            tolerance = 1e-10 if loss.name != "huber" else 1e-6  # the fixed point stops by its tolerance
            assert np.allclose(models.theta, partition.theta, rtol=tolerance, atol=tolerance)
            kept = replace(models, theta=partition.theta, offsets=partition.offsets)
            losses = mean_losses(criterion, kept, window=0)
            routed = losses[partition.labels, np.arange(10)].mean()
            assert routed == pytest.approx(partition.objective, rel=1e-10)
    if loss is SQUARED:
        assert rose, "the alternation is no descent on these panels, or the test shows nothing"


def test_in_sample_assignment_without_penalty_should_descend() -> None:
    """Refit and reassignment then lower the same loss."""
    for seed in range(8):
        criterion = criterion_of(two_regimes(seed), assign_on="train", penalty=0.0)
        start = np.random.default_rng(seed).integers(3, size=10)
        (partition,) = run(criterion, [key(3)], [start])
        assert len(partition.trace) > 1
        assert (np.diff(partition.trace) <= 1e-12).all()
        assert partition.converged


@given(
    seed=st.integers(0, 10_000),
    order=st.permutations(range(10)),
    loss=st.sampled_from([SQUARED, HUBER, PINBALL]),
)
def test_permuting_series_should_permute_labels(seed: int, order: list[int], loss: ForecastLoss) -> None:
    """Statement 12."""
    design, start = two_regimes(seed), np.random.default_rng(seed).integers(2, size=10)
    moved = design.take(np.array(order))
    (one,) = run(criterion_of(design, loss), [key(2)], [start])
    (other,) = run(criterion_of(moved, loss), [key(2)], [start[order]])
    assert one.objective == pytest.approx(other.objective, rel=1e-10 if loss is not HUBER else 1e-6)
    assert (other.labels == one.labels[order]).all()
    tolerance = 1e-10 if loss is not HUBER else 1e-6
    assert np.allclose(one.theta, other.theta, rtol=tolerance, atol=tolerance)


def test_runs_side_by_side_should_equal_runs_alone() -> None:
    """Windows, numbers of clusters, starts and shrinkages share products, not state."""
    design = two_regimes(5)
    table = table_of(design, SPLIT, ((45, 55),), ((60, 70),))
    criterion = GramCriterion(table=table, prior=prior_from(table, penalty=1.0))
    keys = sorted(
        key(k, window=w, start=s, shrinkage=g)
        for w in range(3)
        for k in (2, 3)
        for s in (0, 1)
        for g in (0.0, 1.0)
    )
    rng = np.random.default_rng(0)
    start = [rng.integers(k.n_clusters, size=10) for k in keys]
    for together, labels in zip(run(criterion, keys, start), start, strict=True):
        (alone,) = run(criterion, [together.key], [labels])
        assert together.labels.tolist() == alone.labels.tolist()
        assert np.allclose(together.theta, alone.theta, rtol=1e-10)
        assert together.trace == pytest.approx(alone.trace, rel=1e-10)


def test_ties_should_go_to_the_lowest_cluster() -> None:
    stack = Stack(keys=(key(2), key(3)))
    losses = np.array([[1.0, 2.0], [1.0, 1.0], [3.0, 0.0], [3.0, 0.0], [3.0, 5.0]])
    assert stack.assign(losses).tolist() == [[0, 1], [0, 0]]
    assert stack.routed(losses, np.array([[1, 0], [2, 2]])).tolist() == [[1.0, 2.0], [3.0, 5.0]]


def test_identical_series_should_share_one_cluster() -> None:
    design = two_regimes(1)
    same = replace(design, values=np.repeat(design.values[:1], 10, axis=0))
    (partition,) = run(criterion_of(same), [key(3)], [np.arange(10) % 3])
    assert np.isfinite(partition.theta).all()
    assert len(set(partition.labels[::3].tolist())) == 1
    (settled,) = run(criterion_of(same), [key(2)], [np.zeros(10)])
    assert settled.n_clusters == 1
    assert settled.labels.tolist() == [0] * 10
    assert settled.converged


def test_inactive_series_should_change_nothing() -> None:
    design = two_regimes(2)
    active = np.arange(10) < 7
    start = np.random.default_rng(0).integers(3, size=10)
    for loss in (SQUARED, HUBER, PINBALL):
        table = table_of(design, SPLIT, active=active)
        prior = prior_from(table, penalty=1.0)
        criterion = (
            GramCriterion(table=table, prior=prior)
            if loss is SQUARED
            else RowCriterion(table=table, prior=prior, loss=loss)
        )
        (with_others,) = run(criterion, [key(3)], [start])
        (alone,) = run(criterion_of(design.take(np.arange(7)), loss), [key(3)], [start[:7]])
        assert with_others.labels[:7].tolist() == alone.labels.tolist()
        assert np.allclose(with_others.theta, alone.theta, rtol=1e-6)
        assert with_others.objective == pytest.approx(alone.objective, rel=1e-6)
        assert set(with_others.labels.tolist()) <= set(range(with_others.n_clusters))


# losses from rows


@pytest.mark.parametrize("horizons", [(1,), (2,), (1, 2, 3)])
@pytest.mark.parametrize("loss", [SQUARED, HUBER, PINBALL], ids=lambda loss: loss.name)
def test_row_losses_should_equal_a_loop_over_origins(loss: ForecastLoss, horizons: tuple[int, ...]) -> None:
    design = random_design(3, ragged=True, n_own=1, n_common=1)
    criterion = criterion_of(design, loss, horizons=horizons)
    labels = np.array([0, 1, 1, 0, 1, 0], dtype=np.int16)
    models = refit_partition(criterion, labels, n_clusters=2, shrinkage=0.0)
    losses = mean_losses(criterion, models, window=0)
    reach = max(horizons)
    for i in range(6):
        for k in range(2):
            costs = []
            for origin in range(SPLIT, design.n_steps - reach + 1):
                path = naive_recursion(design, i, origin, reach, models.theta[k])
                for h in horizons:
                    if origin + h - 1 < design.stop[i]:
                        r = np.array(design.values[i, origin + h - 1] - path[h - 1])
                        costs.append(float(naive_loss(loss, r, models.offsets, k)))
            assert losses[k, i] == pytest.approx(np.mean(costs), rel=1e-9)


def naive_loss(loss: ForecastLoss, r: np.ndarray, offsets: np.ndarray | None, k: int) -> float:
    if loss.name == "squared":
        return float(r**2)
    if loss.name == "huber":
        return float(r**2 / 2 if abs(r) <= loss.delta else loss.delta * (abs(r) - loss.delta / 2))
    assert offsets is not None
    parts = [r - offset for offset in offsets[:, k]]
    return float(np.mean([max(q * e, (q - 1) * e) for q, e in zip(loss.quantiles, parts, strict=True)]))


@pytest.mark.parametrize("on", ["val", "train"])
def test_squared_losses_from_rows_should_equal_those_from_sums(on: str) -> None:
    design = random_design(4, ragged=True)
    labels = np.array([0, 1, 1, 0, 1, 0], dtype=np.int16)
    by_sums, by_rows = criterion_of(design, assign_on=on), criterion_of(design, assign_on=on, horizons=(1,))
    assert isinstance(by_rows, RowCriterion)
    models = refit_partition(by_sums, labels, n_clusters=2, shrinkage=1.0)
    assert np.allclose(models.theta, refit_partition(by_rows, labels, n_clusters=2, shrinkage=1.0).theta)
    assert np.allclose(
        mean_losses(by_sums, models, window=0), mean_losses(by_rows, models, window=0), rtol=1e-10
    )


@pytest.mark.parametrize("shrinkage", [0.0, 2.0])
@pytest.mark.parametrize("penalty", [0.01, 5.0])
def test_huber_models_should_minimize_the_penalized_huber_loss(shrinkage: float, penalty: float) -> None:
    design = random_design(5, ragged=True)
    design = replace(design, values=design.values * np.where(np.arange(60) % 11 == 0, 6.0, 1.0))
    criterion = criterion_of(design, HUBER, penalty=penalty)
    labels = np.array([0, 1, 1, 0, 1, 0], dtype=np.int16)
    models = refit_partition(criterion, labels, n_clusters=2, shrinkage=shrinkage)
    prior = criterion.prior
    for k in range(2):
        parts = [naive_data(design, i, [(3, SPLIT)]) for i in np.flatnonzero(labels == k)]
        X, y = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

        def objective(theta: np.ndarray, X: np.ndarray = X, y: np.ndarray = y) -> float:
            away = theta - prior.theta
            pull = shrinkage * away @ prior.G_mean @ away + penalty * theta @ theta
            return float(huber(y - X @ theta, HUBER.delta).sum() + pull / 2)

        best = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
        assert objective(models.theta[k]) <= best.fun * (1 + 1e-10)
        assert np.allclose(models.theta[k], best.x, atol=1e-5)
        assert np.abs(models.theta[k] - np.linalg.lstsq(X, y)[0]).max() > 1e-3


def test_pinball_offsets_should_be_quantiles_of_train_residuals() -> None:
    design = random_design(6, ragged=True)
    criterion = criterion_of(design, PINBALL)
    labels = np.array([0, 1, 1, 0, 1, 0], dtype=np.int16)
    models = refit_partition(criterion, labels, n_clusters=3, shrinkage=0.0)
    assert models.empty.tolist() == [False, False, True]
    for k in range(2):
        parts = [naive_data(design, i, [(3, SPLIT)]) for i in np.flatnonzero(labels == k)]
        residual = np.concatenate([y - X @ models.theta[k] for X, y in parts])
        assert np.allclose(models.offsets[:, k], np.quantile(residual, PINBALL.quantiles), rtol=1e-12)


def test_empty_clusters_should_never_be_chosen() -> None:
    for loss in (SQUARED, HUBER, PINBALL):
        criterion = criterion_of(two_regimes(0), loss)
        models = refit_partition(criterion, np.zeros(10, dtype=np.int16), n_clusters=2, shrinkage=0.0)
        losses = mean_losses(criterion, models, window=0)
        assert np.isinf(losses[1]).all()
        assert np.isfinite(losses[0]).all()
        assert np.isfinite(models.theta).all()


# pointwise losses


@given(r=st.floats(-1e6, 1e6), delta=st.floats(0.01, 100.0))
def test_huber_should_follow_its_two_pieces(r: float, delta: float) -> None:
    expected = r * r / 2 if abs(r) <= delta else delta * (abs(r) - delta / 2)
    assert float(huber(np.array(r), delta)) == pytest.approx(expected, rel=1e-12, abs=1e-300)


@given(r=st.floats(-1e6, 1e6), q=st.floats(0.01, 0.99))
def test_pinball_should_be_the_larger_piece(r: float, q: float) -> None:
    assert float(pinball(np.array(r), q)) == max(q * r, (q - 1) * r)


def test_pinball_loss_should_average_its_quantiles() -> None:
    residual, offsets = np.array([1.0, -2.0]), np.array([[-1.0], [0.0], [1.0]])
    expected = [
        np.mean(
            [max(q * (r - o), (q - 1) * (r - o)) for q, o in zip((0.1, 0.5, 0.9), (-1, 0, 1), strict=True)]
        )
        for r in residual
    ]
    assert PINBALL(residual, offsets).tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="residual quantiles"):
        PINBALL(residual)
