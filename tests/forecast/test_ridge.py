"""Penalized solutions from sums against scikit-learn, least squares and refits (statements 2, 8, 9, 10)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.linear_model import Ridge
from slow_reference import naive_data, random_design, table_of

from metier.forecast.partition.criterion import GramCriterion, prior_from
from metier.forecast.partition.search import refit_partition
from metier.forecast.partition.seeding import local_models, local_strength
from metier.forecast.regression.gram import packed_gram, unpack
from metier.forecast.regression.ridge import leave_series_out, local_ridge, ridge, shrunk_ridge, solve_spd

SPLIT = 45


def stacked(design, members, spans=((3, SPLIT),)):
    parts = [naive_data(design, i, spans) for i in members]
    return np.concatenate([X for X, _ in parts]), np.concatenate([y for _, y in parts])


def sklearn_ridge(X, y, penalty):
    """The penalty covers every column; the column of ones is the intercept."""
    return Ridge(alpha=penalty, fit_intercept=False, tol=1e-12).fit(X, y).coef_


@given(seed=st.integers(0, 10_000), size=st.integers(1, 8), batch=st.integers(1, 5))
def test_solve_spd_should_equal_numpy(seed: int, size: int, batch: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(batch, size, size + 2))
    A, b = root @ root.transpose(0, 2, 1) + 0.1 * np.eye(size), rng.normal(size=(batch, size))
    kept = A.copy(), b.copy()
    assert np.allclose(solve_spd(A, b), np.linalg.solve(A, b[..., None])[..., 0], rtol=1e-9, atol=1e-9)
    assert np.array_equal(A, kept[0])
    assert np.array_equal(b, kept[1])


def test_solve_spd_should_give_least_norm_where_singular_and_leave_the_others_alone() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3, 20, 4))
    X[1, :, 3] = X[1, :, 0]
    X[2] = 0.0
    y = rng.normal(size=(3, 20))
    A, b = X.transpose(0, 2, 1) @ X, np.einsum("ntd,nt->nd", X, y)
    theta = solve_spd(A, b)
    for i in range(3):
        assert np.allclose(theta[i], np.linalg.lstsq(X[i], y[i])[0], atol=1e-8)
    assert np.allclose(theta[0], solve_spd(A[:1], b[:1])[0], rtol=1e-13)
    assert not theta[2].any()


def test_global_model_should_equal_pooled_ridge() -> None:
    design = random_design(1, ragged=True, n_own=1, n_common=1)
    prior = prior_from(table_of(design, SPLIT), penalty=1.5)
    X, y = stacked(design, range(6))
    assert np.allclose(prior.theta, sklearn_ridge(X, y, 1.5), rtol=1e-9)
    assert np.allclose(prior.G_mean, X.T @ X / 6)


def test_inactive_series_should_not_reach_the_global_model() -> None:
    design = random_design(2)
    active = np.array([True, False, True, True, False, True])
    prior = prior_from(table_of(design, SPLIT, active=active), penalty=0.5)
    assert np.allclose(prior.theta, sklearn_ridge(*stacked(design, np.flatnonzero(active)), 0.5), rtol=1e-9)


def test_local_models_should_solve_their_own_pulled_equations() -> None:
    design = random_design(3)
    table = table_of(design, SPLIT)
    prior = prior_from(table, penalty=1.0)
    strength = local_strength(table, design.n_features, share=0.05)
    grams = [naive_data(design, i, [(3, SPLIT)])[0] for i in range(6)]
    assert strength == pytest.approx(0.05 * np.median([np.trace(X.T @ X) for X in grams]) / 4)
    local = local_models(table, prior.theta, penalty=1.0, strength=strength)
    for i in range(6):
        X, y = naive_data(design, i, [(3, SPLIT)])
        A = X.T @ X + (1.0 + strength) * np.eye(4)
        assert np.allclose(local[i], np.linalg.solve(A, X.T @ y + strength * prior.theta), rtol=1e-9)


def test_local_models_should_approach_the_global_one_under_a_strong_pull() -> None:
    packed = packed_gram(random_design(4), 3, SPLIT)
    theta = np.array([0.3, -0.2, 0.1, 0.0])
    assert np.allclose(local_ridge(packed, theta, penalty=0.0, strength=1e12), theta, atol=1e-8)


@pytest.mark.parametrize("shrinkage", [0.0, 0.5, 4.0])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_cluster_models_should_solve_the_normal_equations(shrinkage: float, penalty: float) -> None:
    design = random_design(5, ragged=True)
    table = table_of(design, SPLIT)
    prior = prior_from(table, penalty=penalty)
    labels = np.array([0, 1, 1, 0, 2, 1], dtype=np.int16)
    models = refit_partition(
        GramCriterion(table=table, prior=prior), labels, n_clusters=3, shrinkage=shrinkage
    )
    everyone, _ = stacked(design, range(6))
    G_mean = everyone.T @ everyone / 6
    for k in range(3):
        X, y = stacked(design, np.flatnonzero(labels == k))
        A = X.T @ X + shrinkage * G_mean + penalty * np.eye(4)
        b = X.T @ y + shrinkage * G_mean @ prior.theta
        assert np.allclose(models.theta[k], np.linalg.solve(A, b), rtol=1e-9, atol=1e-12)
        if shrinkage == 0.0:
            # statement 9: g = 0 is plain cluster ridge
            assert np.abs(models.theta[k] - sklearn_ridge(X, y, penalty)).max() <= 1e-10


def test_endless_shrinkage_should_give_the_global_model() -> None:
    """Statement 9."""
    table = table_of(random_design(6), SPLIT)
    prior = prior_from(table, penalty=0.0)
    labels = np.array([0, 1, 1, 0, 0, 1], dtype=np.int16)
    models = refit_partition(GramCriterion(table=table, prior=prior), labels, n_clusters=2, shrinkage=1e12)
    scale = np.abs(prior.theta).max()
    assert np.abs(models.theta - prior.theta).max() <= 1e-6 * scale
    near = refit_partition(GramCriterion(table=table, prior=prior), labels, n_clusters=2, shrinkage=0.0)
    assert np.abs(near.theta - prior.theta).max() > 1e-3 * scale


def test_one_cluster_without_shrinkage_should_be_the_global_model() -> None:
    """Statement 8, the parameters."""
    table = table_of(random_design(7, ragged=True), SPLIT)
    prior = prior_from(table, penalty=1.0)
    one = refit_partition(
        GramCriterion(table=table, prior=prior), np.zeros(6, dtype=np.int16), n_clusters=1, shrinkage=0.0
    )
    assert np.abs(one.theta[0] - prior.theta).max() <= 1e-10


@given(seed=st.integers(0, 10_000), shrinkage=st.floats(0.1, 10.0))
def test_shrunk_predictions_should_survive_any_invertible_map_of_the_features(
    seed: int, shrinkage: float
) -> None:
    """Statement 10: with lam = 0 the pull is measured by the Gram, so that the coordinates do not matter."""
    rng = np.random.default_rng(seed)
    design = random_design(seed, n_series=4)
    parts = [naive_data(design, i, [(3, SPLIT)]) for i in range(4)]
    root = rng.normal(size=(4, 4))
    M = root @ np.diag([1.0, 2.0, 0.5, 3.0]) + 4 * np.eye(4)
    if np.linalg.cond(M) > 50:
        M = np.eye(4) + 0.1 * root

    def predictions(change):
        moved = [(X @ change, y) for X, y in parts]
        G = np.array([X.T @ X for X, _ in moved])
        b = np.array([X.T @ y for X, y in moved])
        theta_global = ridge(G.sum(axis=0)[None], b.sum(axis=0)[None], 0.0)[0]
        clusters = (
            np.array([G[:2].sum(axis=0), G[2:].sum(axis=0)]),
            np.array([b[:2].sum(axis=0), b[2:].sum(axis=0)]),
        )
        theta = shrunk_ridge(
            *clusters,
            G_mean=G.mean(axis=0),
            theta_global=theta_global,
            shrinkage=np.full(2, shrinkage),
            penalty=0.0,
        )
        return np.concatenate([moved[i][0] @ theta[i // 2] for i in range(4)])

    assert np.abs(predictions(M) - predictions(np.eye(4))).max() <= 1e-7


@pytest.mark.parametrize("shrinkage", [0.0, 1.0])
def test_leaving_a_series_out_should_equal_refitting_without_it(shrinkage: float) -> None:
    """Statement 2."""
    design = random_design(8, n_series=7, ragged=True)
    table = table_of(design, SPLIT)
    prior = prior_from(table, penalty=1.0)
    labels = np.array([0, 1, 1, 0, 2, 1, 0])
    packed = table.map(lambda block: block.sums[0])[0]
    sums = np.column_stack([packed[:, labels == k].sum(axis=1) for k in range(3)])
    G, b, _ = unpack(sums[:, labels], design.n_features)
    theta = leave_series_out(
        G,
        b,
        packed,
        G_mean=prior.G_mean,
        theta_global=prior.theta,
        shrinkage=shrinkage,
        penalty=1.0,
        members=np.bincount(labels)[labels],
    )
    for i in range(7):
        others = [j for j in range(7) if labels[j] == labels[i] and j != i]
        if not others:
            assert np.array_equal(theta[i], prior.theta)
            continue
        X, y = stacked(design, others)
        A = X.T @ X + shrinkage * prior.G_mean + np.eye(4)
        expected = np.linalg.solve(A, X.T @ y + shrinkage * prior.G_mean @ prior.theta)
        assert np.abs(theta[i] - expected).max() <= 1e-8
