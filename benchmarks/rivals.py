"""One clustering iteration without sufficient statistics: what the Gram path is timed against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import Ridge

from metier.forecast.gate.folds import Span
from metier.forecast.regression.design import Design


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """The regression rows of a panel: features (N, R, d) and targets (N, R) of TRAIN and of VAL."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_val: np.ndarray
    y_val: np.ndarray


def rows_of(design: Design, train: Span, val: Span) -> Rows:
    X_train, y_train, _ = design.rows(slice(None), *train)
    X_val, y_val, _ = design.rows(slice(None), *val)
    return Rows(X_train=X_train, y_train=y_train, X_val=X_val, y_val=y_val)


def residual_iteration(
    rows: Rows, labels: np.ndarray, n_clusters: int, *, penalty: float, chunk: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Refit and assign in plain NumPy: each cluster's normal equations, residuals by one matmul a chunk.

    Returns:
        (N, K) mean VAL losses and the new labels.
    """
    d = rows.X_train.shape[2]
    theta = np.empty((d, n_clusters))
    for k in range(n_clusters):
        members = labels == k
        X, y = rows.X_train[members].reshape(-1, d), rows.y_train[members].ravel()
        theta[:, k] = np.linalg.solve(X.T @ X + penalty * np.eye(d), X.T @ y)
    losses = np.empty((len(labels), n_clusters))
    for start in range(0, len(labels), chunk):
        part = slice(start, start + chunk)
        X = rows.X_val[part]
        residual = rows.y_val[part][:, :, None] - (X.reshape(-1, d) @ theta).reshape(*X.shape[:2], n_clusters)
        losses[part] = np.einsum("nrk,nrk->nk", residual, residual) / X.shape[1]
    return losses, losses.argmin(axis=1)


def sklearn_iteration(
    rows: Rows, labels: np.ndarray, n_clusters: int, *, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Refit K scikit-learn ridges on the stacked rows of their series and evaluate each on all of VAL."""
    n, n_val, d = rows.X_val.shape
    X_val, losses = rows.X_val.reshape(-1, d), np.empty((n, n_clusters))
    for k in range(n_clusters):
        members = labels == k
        model = Ridge(alpha=penalty, fit_intercept=False)
        model.fit(rows.X_train[members].reshape(-1, d), rows.y_train[members].ravel())
        error = rows.y_val - model.predict(X_val).reshape(n, n_val)
        losses[:, k] = (error * error).mean(axis=1)
    return losses, losses.argmin(axis=1)
