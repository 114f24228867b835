"""The kernel rival's solver: the low-rank factor is the dense solution, and tuning is what it says."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from metier.bilevel import GaussianRidge, kernel as kernel_module


@pytest.mark.parametrize(("width", "low_rank"), [(3.0, True), (0.3, False)])
@pytest.mark.parametrize("penalty", [1e-2, 1e-4])
def test_solutions_should_be_those_of_scikit_learn(width, low_rank, penalty):
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(1200, 3)), rng.normal(size=(1200, 2))
    new = rng.normal(size=(50, 3))
    found = kernel_module._pivoted_cholesky(X, width, tolerance=1e-9 * 1200 * penalty)
    assert (found is not None) is low_rank
    ours = GaussianRidge(width, penalty=penalty).fit(X, Y)
    peer = KernelRidge(alpha=1200 * penalty, kernel="rbf", gamma=0.5 / width**2).fit(X, Y)
    np.testing.assert_allclose(ours.predict(new), peer.predict(new), atol=1e-6)


def test_a_factor_should_leave_the_trace_it_was_allowed():
    X = np.random.default_rng(1).normal(size=(300, 2))
    L = kernel_module._pivoted_cholesky(X, 3.0, tolerance=1e-8)
    left = kernel_module.gaussian_gram(X, X, 3.0) - L.T @ L
    assert np.trace(left) <= 2e-8
    assert np.linalg.eigvalsh(left).min() > -1e-10


def test_tuned_ridge_should_beat_its_neighbors_by_its_own_criterion():
    rng = np.random.default_rng(2)
    X = rng.uniform(-2, 2, size=(150, 1))
    y = np.sin(3 * X[:, 0]) + 0.3 * rng.normal(size=150)
    tuned = GaussianRidge().fit(X, y)

    def criterion(width, penalty):
        K = kernel_module.gaussian_gram(X, X, width)
        left = 150 * penalty * np.linalg.inv(K + 150 * penalty * np.eye(150))
        return ((left @ y) ** 2).sum() / np.trace(left) ** 2

    best = criterion(tuned.width_, tuned.penalty_)
    assert best <= criterion(tuned.width_, tuned.penalty_ * 10**0.5)
    assert best <= criterion(tuned.width_, tuned.penalty_ / 10**0.5)
    assert best <= criterion(tuned.width_ * 2, tuned.penalty_)
    truth = np.sin(3 * np.linspace(-1.5, 1.5, 50))
    assert np.abs(tuned.predict(np.linspace(-1.5, 1.5, 50)[:, None]) - truth).max() < 0.3
