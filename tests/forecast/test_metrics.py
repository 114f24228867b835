"""Metrics against scikit-learn and loops by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, strategies as st
from sklearn import metrics as reference

from metier.core.errors import InputError
from metier.forecast.metrics import (
    coverage,
    evaluate,
    interval_width,
    mae,
    mase,
    pinball,
    rmse,
    rmsse,
    seasonal_scale,
)

Y = np.random.default_rng(0).normal(size=(3, 4, 12))
YHAT = Y + np.random.default_rng(1).normal(size=Y.shape)


def test_errors_should_equal_scikit_learn() -> None:
    for i, j in np.ndindex(3, 4):
        y, yhat = Y[i, j], YHAT[i, j]
        assert mae(Y, YHAT)[i, j] == pytest.approx(reference.mean_absolute_error(y, yhat), rel=1e-12)
        assert rmse(Y, YHAT)[i, j] == pytest.approx(reference.root_mean_squared_error(y, yhat), rel=1e-12)
        for q in (0.05, 0.5, 0.9):
            expected = reference.mean_pinball_loss(y, yhat, alpha=q)
            assert pinball(Y, YHAT, quantile=q)[i, j] == pytest.approx(expected, rel=1e-12)


def test_axis_should_choose_the_mean() -> None:
    for metric in (mae, rmse):
        np.testing.assert_allclose(
            metric(Y, YHAT, axis=0), metric(np.moveaxis(Y, 0, 2), np.moveaxis(YHAT, 0, 2))
        )
        assert metric(Y, YHAT, axis=None) == pytest.approx(metric(Y.ravel(), YHAT.ravel()))
    lower, upper = YHAT - 1, YHAT + 0.5
    assert coverage(Y, lower, upper, axis=None) == pytest.approx(
        coverage(Y.ravel(), lower.ravel(), upper.ravel())
    )
    np.testing.assert_allclose(interval_width(lower, upper, axis=1), np.full((3, 12), 1.5))


def naive_scale(train: np.ndarray, m: int, power: int) -> float:
    steps = [abs(train[t] - train[t - m]) ** power for t in range(m, len(train))]
    steps = [step for step in steps if not np.isnan(step)]
    return float(np.mean(steps)) if steps and np.sum(steps) > 0 else float("nan")


@given(
    size=st.integers(1, 30),
    m=st.integers(1, 8),
    lead=st.integers(0, 10),
    power=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_seasonal_scale_should_equal_the_loop(size: int, m: int, lead: int, power: int, seed: int) -> None:
    train = np.random.default_rng(seed).normal(size=size)
    train[:lead] = np.nan
    expected = naive_scale(train, m, power)
    np.testing.assert_allclose(seasonal_scale(train, season_length=m, power=power), expected, rtol=1e-12)


def test_scaled_errors_should_divide_by_the_seasonal_naive_error() -> None:
    train = np.random.default_rng(2).normal(size=(3, 4, 40))
    for i, j in np.ndindex(3, 4):
        expected = np.abs(Y[i, j] - YHAT[i, j]).mean() / naive_scale(train[i, j], 7, 1)
        assert mase(Y, YHAT, train=train, season_length=7)[i, j] == pytest.approx(expected, rel=1e-12)
        expected = np.sqrt(((Y[i, j] - YHAT[i, j]) ** 2).mean() / naive_scale(train[i, j], 7, 2))
        assert rmsse(Y, YHAT, train=train, season_length=7)[i, j] == pytest.approx(expected, rel=1e-12)


def test_scaled_errors_should_be_undefined_for_constant_history() -> None:
    assert np.isnan(mase([1.0], [2.0], train=[3.0, 3.0, 3.0]))
    assert np.isnan(rmsse([1.0], [2.0], train=[3.0, 4.0], season_length=2))


@given(a=st.floats(0.01, 100), c=st.floats(-100, 100))
def test_scaled_errors_should_not_depend_on_the_unit(a: float, c: float) -> None:
    train = np.random.default_rng(3).normal(size=30)
    y, yhat = Y[0, 0], YHAT[0, 0]
    moved = mase(a * y + c, a * yhat + c, train=a * train + c)
    assert moved == pytest.approx(mase(y, yhat, train=train), rel=1e-6)


def test_the_true_quantile_should_minimize_the_pinball_loss() -> None:
    y = np.random.default_rng(4).exponential(size=2_001)
    best = np.quantile(y, 0.9)
    at_best = pinball(y, np.full_like(y, best), quantile=0.9)
    for shift in (-0.3, 0.3):
        assert at_best < pinball(y, np.full_like(y, best + shift), quantile=0.9)


def test_coverage_should_include_the_ends_and_keep_nan() -> None:
    assert coverage([1.0, 2.0, 3.0], [1.0, 2.5, 0.0], [1.0, 3.0, 3.0]) == pytest.approx(2 / 3)
    assert np.isnan(coverage([1.0, np.nan], [0.0, 0.0], [2.0, 2.0]))


def test_shapes_and_quantiles_should_be_checked() -> None:
    with pytest.raises(InputError, match=r"match one to one: expected equal shapes, got \(2,\) and \(1, 2\)"):
        mae([1.0, 2.0], [[1.0, 2.0]])
    with pytest.raises(InputError, match=r"quantile is a fraction"):
        pinball([1.0], [1.0], quantile=90)
    with pytest.raises(InputError, match=r"season_length is a whole number"):
        mase([1.0], [1.0], train=[1.0], season_length=0)


# frames


def history(n_steps: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    names = ["a", "b", "flat"]
    parts = [
        pd.DataFrame(
            {"shop": name, "t": np.arange(n_steps), "sold": rng.normal(size=n_steps) * (name != "flat")}
        )
        for name in names
    ]
    return pd.concat(parts, ignore_index=True)


def cross_validation() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    df = history()
    parts = [df[(df["t"] > cut) & (df["t"] <= cut + 3)].assign(cutoff=cut) for cut in (19, 22, 25)]
    cv = pd.concat(parts, ignore_index=True)
    for model in ("ridge", "naive"):
        cv[model] = cv["sold"] + rng.normal(size=len(cv))
        for level, half in ((80, 1.0), (95, 2.0)):
            cv[f"{model}-lo-{level}"] = cv[model] - half
            cv[f"{model}-hi-{level}"] = cv[model] + half
    return cv.sample(frac=1, random_state=0)


KEYS: dict[str, Any] = {"id_col": "shop", "time_col": "t", "target_col": "sold"}


def by_hand(cv: pd.DataFrame, model: str, season: int) -> dict[str, float]:
    y, yhat, name = cv["sold"].to_numpy(), cv[model].to_numpy(), cv["shop"].iloc[0]
    df = history()
    train = df[(df["shop"] == name) & (df["t"] <= cv["cutoff"].min())]["sold"].to_numpy()
    result = {
        "n": len(y),
        "mae": reference.mean_absolute_error(y, yhat),
        "rmse": reference.root_mean_squared_error(y, yhat),
    }
    result["mase"] = result["mae"] / naive_scale(train, season, 1)
    result["rmsse"] = result["rmse"] / np.sqrt(naive_scale(train, season, 2))
    for level in (80, 95):
        lower, upper = cv[f"{model}-lo-{level}"].to_numpy(), cv[f"{model}-hi-{level}"].to_numpy()
        tail = (1 - level / 100) / 2
        result[f"coverage-{level}"] = float(
            np.mean([lo <= v <= hi for lo, v, hi in zip(lower, y, upper, strict=True)])
        )
        result[f"width-{level}"] = float(np.mean(upper - lower))
        ends = [
            reference.mean_pinball_loss(y, lower, alpha=tail),
            reference.mean_pinball_loss(y, upper, alpha=1 - tail),
        ]
        result[f"pinball-{level}"] = float(np.mean(ends))
    return result


def test_evaluate_should_equal_the_metrics_by_hand() -> None:
    cv = cross_validation()
    table = evaluate(cv, history(), season_length=4, by="shop", **KEYS)
    assert len(table) == 6
    for row in table.to_dict("records"):
        expected = by_hand(cv[cv["shop"] == row["shop"]], row["model"], 4)
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-12, nan_ok=True), (row["shop"], name)
    assert table.loc[table["shop"] == "flat", "mase"].isna().all()


def test_evaluate_should_count_series_alike() -> None:
    cv = cross_validation().iloc[:-4]
    per_series = evaluate(cv, history(), by="shop", **KEYS)
    overall = evaluate(cv, history(), **KEYS).set_index("model")
    for model, group in per_series.groupby("model"):
        for name in ("mae", "rmse", "coverage-80", "pinball-95"):
            assert overall.loc[model, name] == pytest.approx(group[name].mean())
        assert overall.loc[model, "mase"] == pytest.approx(group["mase"].dropna().mean())
        assert overall.loc[model, "n_scaled"] == 2
        assert overall.loc[model, "n"] == len(cv)


def test_evaluate_should_not_read_train_after_the_first_cutoff() -> None:
    cv, train = cross_validation(), history()
    poisoned = train.assign(sold=train["sold"].where(train["t"] <= 19, 1e9))
    pd.testing.assert_frame_equal(evaluate(cv, train, **KEYS), evaluate(cv, poisoned, **KEYS))


def test_evaluate_should_return_the_kind_it_got() -> None:
    cv = cross_validation()
    ours = evaluate(pl.from_pandas(cv), pl.from_pandas(history()), by="shop", **KEYS)
    assert isinstance(ours, pl.DataFrame)
    assert ours.schema["model"] == pl.String
    pd.testing.assert_frame_equal(
        ours.to_pandas(), evaluate(cv, history(), by="shop", **KEYS), check_dtype=False
    )


def test_evaluate_should_choose_models_and_levels() -> None:
    cv = cross_validation()
    table = evaluate(cv, models=["naive"], level=[95], **KEYS)
    assert list(table.columns) == ["model", "n", "mae", "rmse", "coverage-95", "width-95", "pinball-95"]
    assert table["model"].tolist() == ["naive"]
    partial = evaluate(cv.drop(columns="ridge-lo-80"), **KEYS)
    assert "coverage-80" not in partial.columns
    assert "coverage-95" in partial.columns


def test_evaluate_should_name_what_is_wrong() -> None:
    cv = cross_validation()
    with pytest.raises(InputError, match=r"got no 'theta' among"):
        evaluate(cv, models=["theta"], **KEYS)
    with pytest.raises(InputError, match=r"got no 'naive-lo-50'"):
        evaluate(cv, models=["naive"], level=[50], **KEYS)
    with pytest.raises(InputError, match=r"at least one model column"):
        evaluate(cv[["shop", "t", "sold", "cutoff"]], **KEYS)
    with pytest.raises(
        InputError, match=r"column 'naive' must be finite.*1 missing or infinite values in 1 series: 'b'"
    ):
        evaluate(cv.assign(naive=cv["naive"].where((cv["shop"] != "b") | (cv["t"] != 21))), **KEYS)
    with pytest.raises(InputError, match=r"got no rows for 1 series: 'a'"):
        evaluate(cv, history().query("shop != 'a'"), **KEYS)
    with pytest.raises(InputError, match=r"by is one of a fixed list"):
        evaluate(cv, by="unique_id", **KEYS)
