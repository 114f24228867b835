"""Poison: values that a stage may not see change no bit of it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from panels import fitted_on, frame_of, panel_of, regimes, small
from sklearn.base import BaseEstimator
from sklearn.linear_model import LinearRegression

from metier.core import InputError
from metier.forecast.partition.search import Found
from metier.forecast.pipeline import Fitted, Pipeline, val_start
from metier.forecast.settings import pipeline_of

LOSSES = ["squared", "huber", "pinball"]


def assert_same_bits(one: Any, other: Any, path: str = "") -> int:
    """Compare everything below two objects bit by bit; returns the number of arrays compared."""
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, path
        assert one.tobytes() == other.tobytes(), path
        return 1
    if isinstance(one, BaseEstimator):
        return assert_same_bits(vars(one), vars(other), path)
    if is_dataclass(one) and not isinstance(one, type):
        assert type(one) is type(other), path
        return sum(
            assert_same_bits(getattr(one, f.name), getattr(other, f.name), f"{path}.{f.name}")
            for f in fields(one)
        )
    if isinstance(one, dict):
        assert list(one) == list(other), path
        return sum(assert_same_bits(one[key], other[key], f"{path}[{key!r}]") for key in one)
    if isinstance(one, list | tuple):
        assert len(one) == len(other), path
        return sum(
            assert_same_bits(a, b, f"{path}[{i}]") for i, (a, b) in enumerate(zip(one, other, strict=True))
        )
    assert one == other or (one != one and other != other), (path, one, other)
    return 0


@pytest.mark.parametrize("poison", [np.nan, pytest.param(1e9, marks=pytest.mark.slow)])
@pytest.mark.parametrize("loss", LOSSES)
def test_values_after_a_cutoff_should_not_reach_a_fit_before_it(loss: str, poison: float) -> None:
    values = regimes(1)
    clean = panel_of(values)
    spoiled = values.copy()
    spoiled[:, 120:] = poison
    raw = clean.values.copy()
    raw[:, 120:] = poison
    object.__setattr__(clean, "values", raw)
    after = small(loss=loss).fit_panel(clean.until(120)).fitted_
    before = small(loss=loss).fit_panel(panel_of(values[:, :120])).fitted_
    compared = 0
    for name in (
        "scaling",
        "active",
        "plan",
        "labels",
        "loss_matrix",
        "held",
        "report",
        "candidates",
        "fallback",
    ):
        compared += assert_same_bits(getattr(before, name), getattr(after, name), name)
    for name in ("final_scaling", "final", "calibration"):
        compared += assert_same_bits(getattr(before, name), getattr(after, name), name)
    for name in ("base", "local", "partitions", "runs"):
        compared += assert_same_bits(getattr(before.found, name), getattr(after.found, name), name)
    assert compared > 30


def test_cross_validation_should_not_see_beyond_its_cutoff() -> None:
    """Forecasts and candidates of a window, when its future changes."""
    values = regimes(2, n_steps=130)
    spoiled = values.copy()
    spoiled[:, 126:] += 1e9
    forecaster = small(horizon=2)
    before = forecaster.cross_validation(frame_of(values), h=2, n_windows=2, step_size=2, level=(80,))
    after = forecaster.cross_validation(frame_of(spoiled), h=2, n_windows=2, step_size=2, level=(80,))
    first = before["cutoff"].min()
    kept = [c for c in before.columns if c != "y"]
    one = before.filter(before["cutoff"] == first).select(kept)
    other = after.filter(after["cutoff"] == first).select(kept)
    assert one.height == 32
    assert one.equals(other)
    # the later cutoff has seen the first two spoiled steps
    assert not before.select(kept).equals(after.select(kept))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scaling", ["standard", pytest.param("robust", marks=pytest.mark.slow)])
def test_val_should_not_reach_scaling_and_the_train_models(loss: str, scaling: str) -> None:
    values = regimes(3)
    start = val_start(150, 0.2)
    spoiled = values.copy()
    spoiled[:, start:] = 1e9
    before, after = (fitted_on(v, loss=loss, scaling=scaling) for v in (values, spoiled))
    assert assert_same_bits(before.scaling, after.scaling) == 3
    assert assert_same_bits(before.found.prior, after.found.prior) == 2
    assert assert_same_bits(before.found.base, after.found.base) >= 2
    assert assert_same_bits(before.found.local, after.found.local) == 1
    assert not np.array_equal(before.loss_matrix, after.loss_matrix)


def staged(values: np.ndarray, **parameters: Any) -> tuple[Found, list[Any], Fitted]:
    """A fit, and the TRAIN-stage candidates of every assignment window."""
    forecaster = small(**parameters).fit_panel(panel_of(values))
    pipeline: Pipeline = pipeline_of(forecaster, n_series=len(values), seed=0, report=lambda *_: None)
    fitted = forecaster.fitted_
    stage = pipeline._stage(fitted.found, fitted.data, fitted.scaling, fitted.start, fitted.plan)
    return fitted.found, stage, fitted


@pytest.mark.parametrize("block", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"n_clusters": "auto", "shrinkage": "auto"},
        {"loss": "huber"},
        {"loss": "pinball"},
        {"assign_on": "both"},
        {"horizon": 3, "assign_horizons": (1, 2, 3), "lags": 5, "shrinkage": "auto"},
        {"horizon": 3, "strategy": "direct"},
        {"max_search_series": 12, "n_clusters": "auto"},
        {"model": LinearRegression()},
    ],
    ids=["squared", "auto", "huber", "pinball", "both", "horizons", "direct", "sample", "learner"],
)
def test_a_held_out_block_should_not_reach_its_fold(parameters: dict[str, Any], block: int) -> None:
    """z, K, g and theta of the fold, and every candidate that the block judges."""
    values = regimes(1, n_series=35, n_steps=220, gap=0.4)
    before, stage, clean = staged(values, **parameters)
    fold = clean.plan.folds[block]
    assert clean.plan.flag == ""
    spoiled = values.copy()
    spoiled[:, fold.block[0] : fold.block[1]] = 1e9
    after, spoiled_stage, dirty = staged(spoiled, **parameters)
    assert clean.plan == dirty.plan
    assert assert_same_bits(before.partitions[block + 1], after.partitions[block + 1], "partition") >= 2
    assert assert_same_bits(stage[block + 1], spoiled_stage[block + 1], "stage") >= 10
    # the poison did reach all of VAL, or the test shows nothing
    assert before.base_loss[0] != after.base_loss[0]
    assert before.base_loss[block + 1] == after.base_loss[block + 1]


def test_after_a_truncated_gap_a_block_should_not_reach_the_models_it_judges() -> None:
    """The kept rows of VAL have the block among their lags, so that only TRAIN may fit."""
    values = regimes(1, n_series=20, n_steps=200, gap=0.4)
    _, stage, clean = staged(values, lags=20)
    assert clean.plan.flag == "truncated_gap"
    start, stop = clean.plan.folds[0].block
    spoiled = values.copy()
    spoiled[:, start:stop] += 5.0
    _, spoiled_stage, dirty = staged(spoiled, lags=20)
    assert clean.plan == dirty.plan
    for name in ("global", "local"):
        assert assert_same_bits(stage[1][name], spoiled_stage[1][name], name) >= 2


def test_folds_should_start_cold() -> None:
    """No state of the search on all of VAL: a fold alone finds the same partition."""
    values = regimes(5, n_series=20, n_steps=200)
    found, _, fitted = staged(values, shrinkage="auto")
    window = fitted.plan.folds[1].keep
    table = type(found.table).build(
        found.table.design, [found.table.windows[0], ((0, 0),), (), window], active=found.table.active
    )
    alone = found.search.run(table).partitions[2]
    assert alone is not None
    together = found.partitions[2]
    assert together is not None
    assert together.key == alone.key
    assert together.labels.tolist() == alone.labels.tolist()
    assert np.allclose(together.theta, alone.theta, rtol=1e-10)


def test_repairs_should_not_carry_the_future_across_a_cutoff() -> None:
    values = regimes(6, n_series=6, n_steps=120)
    values[1, 116:118] = np.nan
    with pytest.raises(
        InputError, match=r"must not see beyond a cutoff: .*'interpolate'.*Pass repair='fill_forward'"
    ):
        small(repair="interpolate").cross_validation(frame_of(values), n_windows=2)
    spoiled = values.copy()
    spoiled[:, 118:] = 1e6
    for repair in ("fill_forward", "fill_zero"):
        windows = [small(repair=repair).cross_validation(frame_of(v), h=2) for v in (values, spoiled)]
        one, other = (w.select(c for c in w.columns if c != "y") for w in windows)
        assert one.height == 12
        assert one.equals(other)
