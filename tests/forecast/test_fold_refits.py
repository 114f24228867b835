"""Each fold refits its candidates on TRAIN and the VAL rows it keeps, checked against explicit rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from panels import panel_of, regimes, small
from scipy.optimize import minimize
from slow_reference import Floats, naive_data

from metier.forecast.pipeline import Fitted
from metier.forecast.regression.design import Design
from metier.forecast.regression.models import LinearModel
from metier.forecast.regression.ridge import LOCAL_SHARE
from metier.forecast.settings import pipeline_of

PENALTY = 2.0
Spans = Sequence[tuple[int, int]]


def panel_values() -> Floats:
    """Two regimes; two series begin late and one ends early."""
    values = regimes(1, n_series=12, n_steps=220)
    values[3, :40] = np.nan
    values[8, :150] = np.nan
    values[5, 210:] = np.nan
    return values


def staged(**parameters: Any) -> tuple[Fitted, list[dict[str, LinearModel]]]:
    """A fit, and the candidates of every assignment window: all of VAL, then each fold."""
    forecaster = small(**{"penalty": PENALTY, **parameters}).fit_panel(panel_of(panel_values()))
    pipeline = pipeline_of(forecaster, n_series=12, seed=0, report=lambda *_: None)
    fitted = forecaster.fitted_
    assert fitted.active.all()
    stage = pipeline._stage(fitted.found, fitted.data, fitted.scaling, fitted.start, fitted.plan)
    assert len(stage) == len(fitted.plan.folds) + 1 > 2
    return fitted, stage  # type: ignore[return-value]


def seen_by(fitted: Fitted) -> list[Spans]:
    """The rows each stage may fit on: TRAIN, then TRAIN and what each fold keeps of VAL."""
    train = (0, fitted.start)
    return [[train], *([train, *fold.keep] for fold in fitted.plan.folds)]


def rows_of(design: Design, series: Sequence[int], spans: Spans) -> tuple[Floats, Floats]:
    parts = [naive_data(design, i, spans) for i in series]
    return np.concatenate([X for X, _ in parts]), np.concatenate([y for _, y in parts])


def ridge_on(X: Floats, y: Floats, *, pull: float = 0.0, center: Floats | float = 0.0) -> Floats:
    """Minimizer of |y - X theta|^2 + PENALTY |theta|^2 + pull |theta - center|^2."""
    eye = np.eye(X.shape[1])
    return np.asarray(np.linalg.solve(X.T @ X + (PENALTY + pull) * eye, X.T @ y + pull * center))


def local_on(design: Design, spans: Spans, theta_global: Floats) -> Floats:
    """Every series' own ridge, pulled to the global model by a share of the median mean diagonal."""
    rows = [naive_data(design, i, spans) for i in range(design.n_series)]
    strength = LOCAL_SHARE * np.median([np.sum(X * X) for X, _ in rows]) / design.n_features
    return np.array([ridge_on(X, y, pull=strength, center=theta_global) for X, y in rows])


def huber_on(X: Floats, y: Floats, delta: float) -> Floats:
    """Minimizer of the sum of Huber losses + PENALTY / 2 |theta|^2."""

    def value_and_gradient(theta: Floats) -> tuple[float, Floats]:
        residual = y - X @ theta
        size = np.abs(residual)
        loss = np.where(size <= delta, residual**2 / 2, delta * (size - delta / 2))
        gradient = -X.T @ np.clip(residual, -delta, delta) + PENALTY * theta
        return float(loss.sum() + PENALTY / 2 * theta @ theta), gradient

    options = {"gtol": 1e-7, "maxiter": 2000}
    found = minimize(value_and_gradient, np.zeros(X.shape[1]), jac=True, method="BFGS", options=options)
    assert np.abs(value_and_gradient(found.x)[1]).max() < 1e-4
    return np.asarray(found.x)


def members_of(fitted: Fitted, window: int, cluster: int) -> list[int]:
    partition = fitted.found.partitions[window]
    assert partition is not None
    return np.flatnonzero(partition.labels == cluster).tolist()


@pytest.mark.parametrize(
    "parameters",
    [{}, {"horizon": 3, "strategy": "direct"}, {"lags": 4, "season_length": 6}],
    ids=["one step", "direct", "season"],
)
def test_every_candidate_of_a_fold_should_be_the_ridge_on_train_and_its_kept_rows(
    parameters: dict[str, Any],
) -> None:
    fitted, stage = staged(**parameters)
    assert fitted.plan.flag in ("", "two_blocks")
    design, direct = fitted.found.table.design, "strategy" in parameters
    everyone = range(design.n_series)
    for window, (candidates, spans) in enumerate(zip(stage, seen_by(fitted), strict=True)):
        for model in candidates.values():
            assert len(model.theta) == (3 if direct else 1)
        for step in range(3 if direct else 1):
            rows = design.at_horizon(step + 1)
            base = ridge_on(*rows_of(rows, everyone, spans))
            np.testing.assert_allclose(candidates["global"].theta[step], [base], rtol=0, atol=1e-9)
            local = local_on(rows, spans, base)
            np.testing.assert_allclose(candidates["local"].theta[step], local, rtol=0, atol=1e-9)
            for k in range(2):
                own = ridge_on(*rows_of(rows, members_of(fitted, window, k), spans))
                np.testing.assert_allclose(candidates["clustered"].theta[step][k], own, rtol=0, atol=1e-9)
            # the kept rows do matter, or the comparison shows nothing
            train_only = ridge_on(*rows_of(rows, everyone, [(0, fitted.start)]))
            assert (np.abs(base - train_only).max() > 1e-4) == (window > 0)


def test_a_fold_should_shrink_its_clusters_to_the_global_model_of_the_same_rows() -> None:
    g = 3.0
    fitted, stage = staged(shrinkage=g)
    design = fitted.found.table.design
    for window, (candidates, spans) in enumerate(zip(stage, seen_by(fitted), strict=True)):
        X, y = rows_of(design, range(design.n_series), spans)
        pull, base = g * X.T @ X / design.n_series, ridge_on(X, y)
        for k in range(2):
            own, target = rows_of(design, members_of(fitted, window, k), spans)
            A = own.T @ own + pull + PENALTY * np.eye(design.n_features)
            expected = np.linalg.solve(A, own.T @ target + pull @ base)
            np.testing.assert_allclose(candidates["clustered"].theta[0][k], expected, rtol=0, atol=1e-9)


def test_under_huber_a_fold_should_minimize_the_loss_on_train_and_its_kept_rows() -> None:
    fitted, stage = staged(loss="huber", delta=0.5)
    design = fitted.found.table.design
    for window, (candidates, spans) in enumerate(zip(stage, seen_by(fitted), strict=True)):
        groups = [(candidates["global"].theta[0][0], list(range(design.n_series)))]
        groups += [(candidates["clustered"].theta[0][k], members_of(fitted, window, k)) for k in range(2)]
        for theta, series in groups:
            X, y = rows_of(design, series, spans)
            np.testing.assert_allclose(theta, huber_on(X, y, 0.5), rtol=0, atol=1e-5)
            # a plain ridge on these rows is another model
            assert np.abs(theta - ridge_on(X, y)).max() > 1e-3


def test_after_a_truncated_gap_a_fold_should_fit_on_train_alone() -> None:
    fitted, stage = staged(lags=20)
    assert fitted.plan.flag == "truncated_gap"
    design = fitted.found.table.design
    for window, candidates in enumerate(stage):
        X, y = rows_of(design, range(design.n_series), [(0, fitted.start)])
        np.testing.assert_allclose(candidates["global"].theta[0], [ridge_on(X, y)], rtol=0, atol=1e-9)
        for k in range(2):
            own = ridge_on(*rows_of(design, members_of(fitted, window, k), [(0, fitted.start)]))
            np.testing.assert_allclose(candidates["clustered"].theta[0][k], own, rtol=0, atol=1e-9)
