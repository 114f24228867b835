"""Forecasts of several steps: recursion and direct models against loops; nothing after the origin is seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from slow_reference import naive_data, naive_recursion, random_design

from metier.forecast.regression.models import LinearModel
from metier.forecast.regression.rollout import linear_rollout, origin_valid, recursive_rollout, targets

SHAPES: list[dict[str, Any]] = [
    {},
    {"lags": (2, 5)},
    {"lags": (1, 7), "season_length": 7, "n_own": 2, "n_common": 1},
]


@pytest.mark.parametrize("shape", SHAPES)
def test_recursions_should_equal_a_loop(shape: dict[str, Any]) -> None:
    design = random_design(1, n_series=4, **shape)
    rng = np.random.default_rng(0)
    theta = 0.4 * rng.normal(size=(4, design.n_features, 2))
    start, stop, steps = 30, 40, 9
    forecasts = linear_rollout(design, slice(None), start, stop, steps=steps, theta=[theta])
    for m in range(2):

        def predict(X: np.ndarray, h: int, m: int = m) -> np.ndarray:
            return np.einsum("nod,nd->no", X, theta[:, :, m])

        general = recursive_rollout(design, slice(None), start, stop, steps=steps, predict=predict)
        for i in range(4):
            for origin in range(start, stop):
                path = naive_recursion(design, i, origin, steps, theta[i, :, m])
                assert [f[i, origin - start, m] for f in forecasts] == pytest.approx(path, rel=1e-10)
                assert [f[i, origin - start] for f in general] == pytest.approx(path, rel=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("asked", [1, 2, 3, 4])
def test_direct_forecasts_should_use_the_model_of_their_own_step(shape: dict[str, Any], asked: int) -> None:
    """Also where fewer steps are asked than were fitted."""
    design = random_design(2, n_series=3, **shape)
    rng = np.random.default_rng(0)
    theta = tuple(rng.normal(size=(2, design.n_features)) for _ in range(4))
    model = LinearModel(theta=theta, labels=np.array([0, 1, 1]))
    forecasts = model.forecast(design, slice(None), 40, 45, steps=asked)
    assert len(forecasts) == asked
    for h in range(1, asked + 1):
        direct = design.at_horizon(h)
        for i in range(3):
            for origin in range(40, 45):
                X, _ = naive_data(direct, i, [(origin + h - 1, origin + h)])
                expected = float(X[0] @ theta[h - 1][model.labels[i]])
                assert forecasts[h - 1][i, origin - 40] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n_models", [1, 4])
def test_values_from_the_origin_on_should_not_be_seen(n_models: int) -> None:
    design = random_design(3, n_series=3, lags=(1, 3), n_common=1)
    origin, steps = 40, 4
    values = design.values.copy()
    values[:, origin:] = 1e9
    theta = tuple(np.random.default_rng(0).normal(size=(1, design.n_features)) for _ in range(n_models))
    model = LinearModel(theta=theta, labels=np.zeros(3, dtype=int))
    before = model.forecast(design, slice(None), origin, origin + 1, steps=steps)
    after = model.forecast(replace(design, values=values), slice(None), origin, origin + 1, steps=steps)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_valid_origins_should_have_lags_and_target() -> None:
    design = random_design(4, ragged=True)
    for step in (1, 4):
        valid = origin_valid(design, slice(None), 0, 50, step=step)
        for i in range(design.n_series):
            for o in range(50):
                expected = o - design.max_lag >= design.first[i] and o + step - 1 < design.stop[i]
                assert valid[i, o] == expected
        assert np.array_equal(
            targets(design, slice(None), 5, 50, step=step), design.values[:, 4 + step : 49 + step]
        )
