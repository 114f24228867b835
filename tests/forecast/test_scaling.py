"""Scaling by TRAIN alone: against numpy per series, constants, and the learners' own scale."""

from __future__ import annotations

import numpy as np
import pytest
from slow_reference import random_design

from metier.forecast.regression.learned import TargetScale
from metier.forecast.regression.scaling import NORMAL_MAD, Scaling, barely_varies, fit_scaling


def ragged_values(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = 10.0 + 3.0 * rng.normal(size=(5, 60))
    values[1, :12] = np.nan
    values[2, 50:] = np.nan
    values[3, :45] = np.nan
    return values


@pytest.mark.parametrize("kind", ["standard", "robust", "mean"])
def test_scaling_should_equal_numpy_on_each_series(kind: str) -> None:
    values = ragged_values()
    scaling = fit_scaling(values, 40, kind=kind)
    for i in range(5):
        seen = values[i, :40]
        seen = seen[~np.isnan(seen)]
        if not seen.size:
            assert scaling.constant[i]
            assert (scaling.center[i], scaling.scale[i]) == (0.0, 1.0)
            continue
        median = np.median(seen)
        center, scale = {
            "standard": (seen.mean(), seen.std()),
            "robust": (median, NORMAL_MAD * np.median(np.abs(seen - median))),
            "mean": (0.0, seen.mean()),
        }[kind]
        assert scaling.center[i] == pytest.approx(center)
        assert scaling.scale[i] == pytest.approx(scale)
        assert not scaling.constant[i]


@pytest.mark.parametrize("kind", ["standard", "robust", "mean"])
@pytest.mark.parametrize("poison", [np.nan, 1e9, np.inf])
def test_later_values_should_not_reach_the_scaling(kind: str, poison: float) -> None:
    values = ragged_values()
    spoiled = values.copy()
    spoiled[:, 40:] = poison
    one, other = fit_scaling(values, 40, kind=kind), fit_scaling(spoiled, 40, kind=kind)
    for field in ("center", "scale", "constant"):
        assert np.array_equal(getattr(one, field), getattr(other, field))


def test_robust_scale_should_ignore_a_tenth_of_outliers() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(1, 2000))
    clean = fit_scaling(values, 2000, kind="robust").scale[0]
    values[0, ::10] = 1e6
    assert fit_scaling(values, 2000, kind="robust").scale[0] == pytest.approx(clean, rel=0.25)
    assert fit_scaling(values, 2000).scale[0] > 1e5
    normal = rng.normal(5.0, 2.0, size=(1, 200_000))
    # sd of the MAD estimate is about 1.17 sigma / sqrt(n): .005
    assert fit_scaling(normal, 200_000, kind="robust").scale[0] == pytest.approx(2.0, abs=0.03)


def test_robust_scale_of_mostly_equal_values_should_be_the_standard_deviation() -> None:
    values = np.zeros((2, 20))
    values[0, 3] = 4.0
    scaling = fit_scaling(values, 20, kind="robust")
    assert scaling.scale[0] == pytest.approx(values[0].std())
    assert scaling.constant.tolist() == [False, True]


@pytest.mark.parametrize("kind", ["standard", "robust", "mean"])
def test_constant_series_should_be_marked_and_centered(kind: str) -> None:
    values = np.array([[7.0] * 20, [0.0] * 20, [1e9] * 20, [0.1 + 0.2] * 20])
    values = np.concatenate([values, 0.1 * np.ones((1, 20)) + 1e-3 * np.arange(20)])
    scaling = fit_scaling(values, 20, kind=kind)
    assert scaling.constant.tolist() == [True, True, True, True, False]
    assert scaling.scale[:4].tolist() == [1.0] * 4
    assert np.isfinite(scaling.apply(values)).all()
    level = scaling.invert(np.full((5, 3), 9.0))[:4]
    assert np.array_equal(level, np.repeat(scaling.center[:4, None], 3, axis=1))


def test_apply_and_invert_should_undo_each_other() -> None:
    values = ragged_values()
    scaling = fit_scaling(values, 40)
    standard = scaling.apply(values)
    assert not standard[np.isnan(values)].any()
    varying = ~np.isnan(values) & ~scaling.constant[:, None]
    assert np.allclose(scaling.invert(standard)[varying], values[varying])
    some = np.array([4, 1])
    cube = np.random.default_rng(0).normal(size=(2, 3, 4))
    back = scaling.invert(cube, some)
    for place, i in enumerate(some):
        assert np.allclose(back[place], scaling.center[i] + scaling.scale[i] * cube[place])


def test_apply_should_not_change_the_callers_values() -> None:
    values = ragged_values()
    kept = values.copy()
    fit_scaling(values, 40, kind="robust").apply(values)
    assert np.array_equal(values, kept, equal_nan=True)


def test_learners_should_see_their_own_scale_and_give_back_the_engines() -> None:
    design = random_design(1, ragged=True)
    observed = np.array(
        [[a <= t < b for t in range(60)] for a, b in zip(design.first, design.stop, strict=True)]
    )
    raw = np.where(observed, 20.0 + 5.0 * design.values, np.nan)
    standard, mean = fit_scaling(raw, 45), fit_scaling(raw, 45, kind="mean")
    engine = design.take(slice(None))
    engine.values[:] = standard.apply(raw)
    scale = TargetScale(standard=standard, learner=mean, kind="mean")
    series = np.array([3, 2])
    seen = scale.design(engine, series)
    for place, i in enumerate(series):
        assert np.allclose(seen.values[place][observed[i]], raw[i][observed[i]] / np.nanmean(raw[i, :45]))
        assert not seen.values[place][~observed[i]].any()
    forecast = np.array([[1.0, 2.0], [0.5, 1.5]])
    back = scale.back(forecast, series)
    for place, i in enumerate(series):
        units = forecast[place] * mean.scale[i]
        assert np.allclose(back[place], (units - standard.center[i]) / standard.scale[i])


def test_scaling_should_be_frozen() -> None:
    scaling = Scaling(center=np.zeros(1), scale=np.ones(1), constant=np.zeros(1, dtype=bool))
    with pytest.raises(AttributeError):
        scaling.center = np.ones(1)  # type: ignore[misc]


def test_series_of_few_events_should_count_as_still() -> None:
    rng = np.random.default_rng(0)
    busy, rare, late = rng.standard_normal(100), np.zeros(100), np.zeros(100)
    rare[[10, 40]] = 1.0
    late[80:] = rng.standard_normal(20)
    short = np.where(np.arange(100) < 74, np.nan, busy)
    still = barely_varies(np.array([busy, rare, late, short]), 80, changes=8)
    assert still.tolist() == [False, True, True, False]
    assert barely_varies(rare[None], 80, changes=4).tolist() == [False]
    assert barely_varies(rare[None], 80, changes=5).tolist() == [True]
