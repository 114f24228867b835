"""Losses on held-out blocks against loops over origins, and forecasts from many origins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from slow_reference import naive_recursion, naive_row, random_design, table_of

from metier.forecast.gate.heldout import held_out_losses
from metier.forecast.partition.search import Search
from metier.forecast.regression.losses import ForecastLoss
from metier.forecast.regression.models import Division, LinearModel, fit_linear

LOSSES = {
    "squared": ForecastLoss(name="squared"),
    "huber": ForecastLoss(name="huber", delta=0.5),
    "pinball": ForecastLoss(name="pinball", quantiles=(0.2, 0.9)),
}
BLOCKS = [(40, 50), (50, 60)]


def random_model(seed: int, design: Any, n_models: int, quantiles: int) -> LinearModel:
    rng = np.random.default_rng(seed)
    return LinearModel(
        theta=(0.4 * rng.normal(size=(n_models, design.n_features)),),
        labels=rng.integers(n_models, size=design.n_series),
        offsets=np.sort(rng.normal(size=(quantiles, n_models)), axis=0) if quantiles else None,
    )


def naive_cost(loss: ForecastLoss, r: float, offsets: Any) -> float:
    if loss.name == "squared":
        return r**2
    if loss.name == "huber":
        return r**2 / 2 if abs(r) <= loss.delta else loss.delta * (abs(r) - loss.delta / 2)
    return float(
        np.mean([max(q * (r - o), (q - 1) * (r - o)) for q, o in zip(loss.quantiles, offsets, strict=True)])
    )


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_held_out_losses_should_equal_a_loop(loss: ForecastLoss, steps: int) -> None:
    design = random_design(1, n_series=7, ragged=True, n_own=1, n_common=1)
    active = np.array([True, True, True, False, True, True, True])
    groups = np.array([0, 1, 1, 0, -1, 1, 0])
    n_quantiles = len(loss.quantiles)
    folds = [
        {
            name: random_model(10 * b + m, design, 3, n_quantiles)
            for m, name in enumerate(("global", "clustered"))
        }
        for b in range(2)
    ]
    held = held_out_losses(
        design, BLOCKS, folds, loss=loss, steps=steps, active=active, groups=groups, n_groups=2
    )
    cells: dict[tuple[int, int], np.ndarray] = {}
    for (start, stop), fold in zip(BLOCKS, folds, strict=True):
        for origin in range(start, stop - steps + 1):
            for i in np.flatnonzero(active):
                last = origin + steps - 1
                if naive_row(design, i, origin) is None or last >= design.stop[i]:
                    continue
                cells[origin, i] = np.zeros(2)
                for m, model in enumerate(fold.values()):
                    k = model.labels[i]
                    path = naive_recursion(design, i, origin, steps, model.theta[0][k])
                    shifts = None if model.offsets is None else model.offsets[:, k]
                    costs = [
                        naive_cost(loss, design.values[i, origin + h] - path[h], shifts) for h in range(steps)
                    ]
                    cells[origin, i][m] = np.mean(costs)
    origins = sorted({origin for origin, _ in cells})
    assert held.times.tolist() == origins
    assert held.names == ("global", "clustered")
    for row, origin in enumerate(origins):
        here = {i: cost for (o, i), cost in cells.items() if o == origin}
        assert held.n_series[row] == len(here)
        assert np.allclose(held.by_time[row], np.mean(list(here.values()), axis=0), rtol=1e-10)
        for k in range(2):
            mine = [cost for i, cost in here.items() if groups[i] == k]
            expected = np.mean(mine, axis=0) if mine else np.full(2, np.nan)
            assert np.allclose(held.by_group[row, k], expected, rtol=1e-10, equal_nan=True)
    for i in range(7):
        mine = [cost for (_, j), cost in cells.items() if j == i]
        expected = np.mean(mine, axis=0) if mine else np.full(2, np.nan)
        assert np.allclose(held.by_series[i], expected, rtol=1e-10, equal_nan=True)
    assert np.isnan(held.by_series[3]).all()
    assert np.array_equal(held.of("clustered"), held.by_time[:, 1])


def test_origins_without_any_series_should_be_left_out() -> None:
    design = random_design(2, n_series=3, ragged=False)
    early = design.take(np.array([0, 1]))
    early.stop[:] = 46
    models = [{"global": random_model(0, early, 1, 0)}] * 2
    held = held_out_losses(
        early,
        BLOCKS,
        models,
        loss=LOSSES["squared"],
        steps=1,
        active=np.ones(2, dtype=bool),
        groups=np.zeros(2, dtype=int),
        n_groups=1,
    )
    assert held.times.tolist() == list(range(40, 46))
    assert np.isfinite(held.by_time).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_linear_candidates_should_be_fitted_on_train_rows_of_their_series(loss: ForecastLoss) -> None:
    """Every candidate equals the model of its own members alone; local models serve one series each."""
    design = random_design(3, n_series=6)
    search = Search(n_clusters=(2,), shrinkage=(0.0,), loss=loss, penalty=1.0, rng=0)
    labels = np.array([0, 1, 1, 0, 1, 0])
    division = Division(labels=labels, n_clusters=2, shrinkage=0.0)
    base, local, (divided,) = fit_linear(search, [table_of(design, 40)], [division])
    for k in range(2):
        mine = design.take(np.flatnonzero(labels == k))
        alone, _, _ = fit_linear(search, [table_of(mine, 40)], [])
        assert np.allclose(divided.theta[0][k], alone.theta[0][0], atol=1e-7)
        if loss.name == "pinball":
            assert np.allclose(divided.offsets[:, k], alone.offsets[:, 0], rtol=1e-9)
    assert base.coefficients(slice(None))[0].shape == (6, 4)
    assert local.theta[0].shape == (6, 4)
    assert (local.offsets is None) == (loss.name != "pinball")
