"""The whole forecaster: frames, forecasts against loops, degenerate panels."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings, strategies as st
from panels import forecast, frame_of, panel_of, regimes, small
from sklearn.base import clone
from sklearn.linear_model import LinearRegression

from metier.forecast import ClusterForecaster
from metier.forecast.regression.scaling import fit_scaling

NAME = "ClusterForecaster"
LOSSES = ["squared", "huber", "pinball"]


def quietly(forecaster: ClusterForecaster, df: Any) -> ClusterForecaster:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return forecaster.fit(df)


# frames


def test_polars_and_pandas_should_get_their_own_kind_with_equal_values() -> None:
    df = frame_of(regimes(0, n_series=6))
    by_polars = small(horizon=3).fit(df).predict(level=(80,))
    by_pandas = small(horizon=3).fit(df.to_pandas()).predict(level=(80,))
    columns = ["unique_id", "ds", NAME, f"{NAME}-lo-80", f"{NAME}-hi-80"]
    assert isinstance(by_polars, pl.DataFrame)
    assert isinstance(by_pandas, pd.DataFrame)
    assert by_polars.columns == by_pandas.columns.tolist() == columns
    assert by_polars["unique_id"].to_list() == [f"s{i:03d}" for i in range(6) for _ in range(3)]
    last = df["ds"].max()
    assert by_polars["ds"].to_list() == [last + h * np.timedelta64(1, "h").item() for h in (1, 2, 3)] * 6
    assert by_polars["ds"].dtype == df["ds"].dtype
    for column in columns[2:]:
        assert by_polars[column].to_numpy().tolist() == by_pandas[column].tolist()


def test_row_order_should_not_matter() -> None:
    df = frame_of(regimes(1, n_series=6))
    shuffled = df.sample(fraction=1.0, shuffle=True, seed=0)
    assert small().fit(df).predict().equals(small().fit(shuffled).predict())


def test_custom_column_names_and_integer_stamps_should_come_back() -> None:
    values = regimes(2, n_series=5)
    df = pl.DataFrame(
        {
            "shop": np.repeat(np.arange(5), 150),
            "step": np.tile(np.arange(0, 300, 2), 5),
            "sales": values.ravel(),
        }
    )
    named = small(id_col="shop", time_col="step", target_col="sales", horizon=2)
    out = named.fit(df).predict()
    assert out.columns == ["shop", "step", NAME]
    assert out["shop"].to_list() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert out["step"].to_list() == [300, 302] * 5
    plain = small(horizon=2).fit(frame_of(values))
    assert np.array_equal(forecast(named), forecast(plain))
    windows = named.cross_validation(df, h=2, n_windows=2)
    assert windows.columns[:5] == ["shop", "step", "cutoff", "sales", NAME]


def test_the_callers_frame_and_panel_should_not_change() -> None:
    df = frame_of(regimes(3, n_series=5)).to_pandas()
    kept = df.copy(deep=True)
    small().fit(df).predict()
    pd.testing.assert_frame_equal(df, kept)


def test_ragged_series_should_be_forecast_from_their_own_ends() -> None:
    values = regimes(4, n_series=8)
    values[2, 140:] = np.nan
    values[5, :30] = np.nan
    forecaster = small(horizon=2, gate="none").fit(frame_of(values))
    out = forecaster.predict()
    stamps = out["ds"].to_numpy().reshape(8, 2)
    panel = forecaster.panel_
    assert stamps[2, 0] == panel.stamps[140]
    assert stamps[0, 0] == panel.stamps[-1] + np.timedelta64(1, "h")
    assert np.allclose(forecast(forecaster), naive_forecasts(forecaster, 2), rtol=1e-9)


def naive_forecasts(forecaster: ClusterForecaster, h: int) -> np.ndarray:
    """Recursive forecasts of the refitted linear models, series by series."""
    fitted, panel = forecaster.fitted_, forecaster.panel_
    scaling = fitted.final_scaling
    out = np.empty((panel.n_series, h))
    for i in range(panel.n_series):
        name = "global" if fitted.fallback[i] else fitted.report.chosen
        model = fitted.final[name]
        theta = model.theta[0][model.labels[i]]
        stop = panel.stop[i]
        history = ((panel.values[i, :stop] - scaling.center[i]) / scaling.scale[i]).tolist()
        for step in range(h):
            x = [history[-lag] for lag in fitted.final_design.lags]
            history.append(float(np.dot(theta, [*x, 1.0])))
            spread = 0.0 if scaling.constant[i] else scaling.scale[i]
            out[i, step] = scaling.center[i] + spread * history[-1]
    return out


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("gate", ["none", "crossfit"])
def test_forecasts_should_equal_the_recursion_of_the_refitted_models(loss: str, gate: str) -> None:
    values = regimes(5, n_series=10)
    values[3] = 4.0
    forecaster = quietly(small(loss=loss, gate=gate, horizon=4, lags=(1, 3)), frame_of(values))
    assert np.allclose(forecast(forecaster), naive_forecasts(forecaster, 4), rtol=1e-9)
    assert np.allclose(forecast(forecaster, 2), forecast(forecaster)[:, :2], rtol=1e-12)


@pytest.mark.parametrize("model", ["ridge", LinearRegression()])
def test_fewer_direct_steps_should_be_the_first_of_all_steps(model: Any) -> None:
    forecaster = small(model=model, horizon=3, strategy="direct").fit(frame_of(regimes(6, n_series=6)))
    whole = forecast(forecaster)
    for h in (1, 2):
        assert np.allclose(forecast(forecaster, h), whole[:, :h], rtol=1e-12)


def test_exogenous_columns_should_be_learned_and_asked_for() -> None:
    rng = np.random.default_rng(0)
    price = rng.normal(3.0, 2.0, size=(8, 160))
    values = regimes(7, n_series=8, n_steps=160) * 0.05 + np.arange(8)[:, None] - 2.0 * price
    df = frame_of(values, price=price)
    cut = df["ds"].unique().sort()[156]
    past, future = df.filter(pl.col("ds") < cut), df.filter(pl.col("ds") >= cut).drop("y")
    forecaster = small(horizon=4).fit(past)
    out = forecaster.predict(future=future)
    errors = out[NAME].to_numpy().reshape(8, 4) - values[:, 156:]
    assert np.abs(errors).mean() < 0.2
    shifted = forecaster.predict(future=future.with_columns(pl.col("price") + 1.0))
    # one step ahead only the price itself acts: -2 a unit
    step = (shifted[NAME] - out[NAME]).to_numpy().reshape(8, 4)[:, 0]
    assert np.allclose(step, -2.0, atol=0.1)
    with pytest.raises(ValueError, match=r"future holds the exogenous columns .*'price', got None"):
        forecaster.predict()
    windows = small(horizon=2).cross_validation(df, h=2, n_windows=2)
    assert (windows["y"] - windows[NAME]).abs().mean() < 0.2


def test_ragged_exogenous_columns_should_meet_their_own_stamps() -> None:
    rng = np.random.default_rng(1)
    price = rng.normal(size=(6, 160))
    values = 2.0 * price + 0.01 * rng.normal(size=(6, 160))
    past = values.copy()
    past[2, 140:] = np.nan
    past[:, 156:] = np.nan
    forecaster = small(horizon=3).fit(frame_of(past, price=price))
    out = forecaster.predict(future=frame_of(values, price=price).drop("y"))
    got = out[NAME].to_numpy().reshape(6, 3)
    for i in range(6):
        end = 140 if i == 2 else 156
        assert np.allclose(got[i], values[i, end : end + 3], atol=0.2)


def test_calendar_features_should_be_learned() -> None:
    rng = np.random.default_rng(2)
    hour = np.arange(24 * 12) % 24
    values = np.sin(2 * np.pi * hour / 24)[None] * np.arange(1, 7)[:, None] + 0.05 * rng.normal(size=(6, 288))
    past = values[:, :264]
    with_clock = small(calendar=("hour",), horizon=24, lags=1).fit(frame_of(past))
    without = small(horizon=24, lags=1).fit(frame_of(past))
    errors = [np.abs(forecast(f) - values[:, 264:]).mean() for f in (with_clock, without)]
    assert errors[0] < 0.15 < 0.5 < errors[1]


# levels and quantiles


def test_intervals_should_nest_and_reach_their_coverage() -> None:
    """640 values, 80 %: four standard errors of a share of independent values (error rate 6e-5)."""
    values = regimes(8, n_series=32, n_steps=220)
    out = small(horizon=1).cross_validation(frame_of(values), n_windows=20, h=1, level=(50, 80))
    lo, hi = out[f"{NAME}-lo-80"], out[f"{NAME}-hi-80"]
    assert (lo < out[f"{NAME}-lo-50"]).all()
    assert (out[f"{NAME}-hi-50"] < hi).all()
    inside = ((out["y"] >= lo) & (out["y"] <= hi)).mean()
    assert abs(inside - 0.8) < 4 * np.sqrt(0.16 / 640)


def test_pinball_should_forecast_its_quantiles_in_order() -> None:
    forecaster = small(loss="pinball", quantiles=(0.1, 0.5, 0.9), horizon=2).fit(frame_of(regimes(9)))
    out = forecaster.predict()
    columns = [f"{NAME}-ql0.1", f"{NAME}-ql0.5", f"{NAME}-ql0.9"]
    assert out.columns == ["unique_id", "ds", NAME, *columns]
    low, middle, high = (out[c].to_numpy() for c in columns)
    assert (low < middle).all()
    assert (middle < high).all()


def test_bands_should_refuse_more_steps_than_were_calibrated() -> None:
    forecaster = small(horizon=2).fit(frame_of(regimes(0, n_series=4)))
    assert forecaster.predict(5).height == 20
    with pytest.raises(
        ValueError, match=r"as far as the horizon .*h of at most 2, got h=5\. Fit with horizon=5\."
    ):
        forecaster.predict(5, level=(80,))


# the decision's record


def test_attributes_should_agree_with_each_other() -> None:
    values = regimes(10, n_series=12, gap=1.4)
    values[4] = -1.0
    forecaster = quietly(small(), frame_of(values))
    assert forecaster.decision_ is forecaster.gate_report_.decision
    assert forecaster.gate_report_.chosen == "clustered"
    labels = forecaster.assignment_.labels
    assert forecaster.assignment_.n_specialists == 3
    assert labels[4] == 2
    assert forecaster.partition_[4] == 2
    others = np.arange(12) != 4
    assert (labels[others] == forecaster.partition_[others]).all()
    matrix = forecaster.loss_matrix_
    assert matrix.shape == (12, 3)
    assert (matrix[others, :2].argmin(axis=1) == labels[others]).mean() > 0.8
    assert set(forecaster.candidates_) == {"global", "local", "clustered", "feature", "random"}
    assert [c.chosen for c in forecaster.candidates_.values()].count(True) == 1
    assert forecaster.ids_.tolist() == [f"s{i:03d}" for i in range(12)]
    assert {row[1] for row in forecaster.coverage_} == {0.8, 0.95}
    assert all(0.0 < share <= 1.0 and n > 0 for _, _, share, n in forecaster.coverage_)


def test_local_models_should_be_chosen_where_every_series_differs() -> None:
    """Statement 23."""
    rng = np.random.default_rng(0)
    coefficient = np.linspace(-0.95, 0.95, 12)
    values = rng.normal(size=(12, 500))
    for t in range(1, 500):
        values[:, t] += coefficient * values[:, t - 1]
    forecaster = small(lags=1, n_clusters=2).fit(frame_of(values))
    assert forecaster.gate_report_.chosen == "local"
    assert forecaster.assignment_.labels.tolist() == list(range(12))
    assert forecaster.assignment_.n_specialists == 13
    assert np.allclose(forecast(forecaster), naive_forecasts(forecaster, 1), rtol=1e-9)


def test_one_cluster_should_be_identical_and_not_adopted() -> None:
    """Statement 8."""
    forecaster = small(n_clusters=1).fit(frame_of(regimes(11, gap=0.0)))
    test = forecaster.gate_report_.tests["clustered"]
    assert (test.method, test.adopt) == ("identical", False)
    final = forecaster.fitted_.final
    assert np.allclose(final["clustered"].theta[0][0], final["global"].theta[0][0], rtol=1e-10, atol=1e-12)
    assert np.allclose(forecaster.loss_matrix_[:, 0], forecaster.loss_matrix_[:, 1], rtol=1e-10)


@pytest.mark.parametrize("scope", ["whole", "cluster"])
@pytest.mark.parametrize("gate", ["crossfit", "mean", "paper", "none"])
def test_a_decision_should_adopt_only_where_it_pays_whatever_the_gate(gate: str, scope: str) -> None:
    for gap in (0.0, 0.6):
        forecaster = quietly(small(gate=gate, scope=scope, n_clusters=3), frame_of(regimes(13, gap=gap)))
        report = forecaster.gate_report_
        for decision in (forecaster.decision_, *report.by_cluster, *report.tests.values()):
            assert decision.adopt == (decision.verdict == "pays")
        if gate in ("paper", "none"):
            assert (report.code, forecaster.decision_.method) == ("untested", "none")
            assert report.chosen == ("clustered" if report.keep.any() else "global")


# invariances


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scaling", ["standard", "robust"])
def test_affine_changes_of_series_should_keep_assignments_and_move_forecasts(loss: str, scaling: str) -> None:
    """Statement 11."""
    values = regimes(12, n_series=10)
    rng = np.random.default_rng(0)
    values[4] = 2.0
    a, c = 10.0 ** rng.uniform(-2, 3, size=(10, 1)), rng.normal(0.0, 50.0, size=(10, 1))
    one = quietly(small(loss=loss, scaling=scaling, horizon=2), frame_of(values))
    other = quietly(small(loss=loss, scaling=scaling, horizon=2), frame_of(a * values + c))
    assert one.partition_.tolist() == other.partition_.tolist()
    assert one.gate_report_.chosen == other.gate_report_.chosen
    moved = a * forecast(one) + c
    # relative to the series' own size: the forecast is a small difference around c
    size = np.abs(c) + a * np.abs(values).max(axis=1, keepdims=True)
    assert (np.abs(forecast(other) - moved) <= 1e-8 * size).all()


@given(order=st.permutations(range(8)))
@settings(max_examples=3, deadline=None)
def test_the_order_of_series_should_not_reach_the_global_and_local_models(order: list[int]) -> None:
    """Seeds are drawn by position, so that only what needs no seed is invariant; see the clustering tests."""
    values = regimes(13, n_series=8)
    one = small().fit_panel(panel_of(values)).fitted_
    other = small().fit_panel(panel_of(values[order])).fitted_
    assert np.allclose(one.final["global"].theta[0], other.final["global"].theta[0], rtol=1e-9)
    assert np.allclose(one.final["local"].theta[0][order], other.final["local"].theta[0], rtol=1e-9)


def test_equal_seeds_should_repeat_every_bit_and_refits_start_afresh() -> None:
    df = frame_of(regimes(14))
    forecaster = small(rng=5, n_clusters="auto", shrinkage="auto")
    first = forecaster.fit(df).predict()
    assert first.equals(forecaster.fit(df).predict())
    assert first.equals(clone(forecaster).fit(df).predict())


def test_a_generator_should_seed_a_fit() -> None:
    df = frame_of(regimes(14))
    one, same = (small(rng=np.random.default_rng(3)).fit(df) for _ in range(2))
    assert one.predict().equals(same.predict())


# base models


def test_linear_regression_should_equal_unpenalized_ridge() -> None:
    df = frame_of(regimes(15))
    ridge = small(penalty=0.0, gate="none", horizon=2).fit(df)
    learned = small(penalty=0.0, gate="none", horizon=2, model=LinearRegression()).fit(df)
    assert ridge.partition_.tolist() == learned.partition_.tolist()
    assert np.allclose(forecast(ridge), forecast(learned), rtol=1e-8)
    for name in ("global", "clustered", "random"):
        assert learned.candidates_["global"].name == "global"
        held = [f.fitted_.held.of(name) for f in (ridge, learned)]
        assert np.allclose(held[0], held[1], rtol=1e-8)


@pytest.mark.parametrize("loss", ["squared", pytest.param("huber", marks=pytest.mark.slow), "pinball"])
def test_boosted_trees_should_forecast_under_every_loss(loss: str) -> None:
    values = regimes(16, n_series=6, n_steps=120)
    forecaster = small(model="lightgbm", loss=loss, horizon=2, n_clusters=2).fit(frame_of(values))
    out = forecaster.predict(level=(80,))
    bands = [c for c in out.columns if c.startswith(NAME)]
    assert len(bands) == (6 if loss == "pinball" else 3)
    assert all(np.isfinite(out[c].to_numpy()).all() for c in bands)
    assert (out[f"{NAME}-lo-80"] < out[f"{NAME}-hi-80"]).all()
    if loss == "pinball":
        assert (out[f"{NAME}-ql0.1"] <= out[f"{NAME}-ql0.9"]).all()
    assert set(forecaster.candidates_) == {"global", "local", "clustered", "feature", "random"}


def test_count_models_should_never_forecast_below_zero() -> None:
    rng = np.random.default_rng(0)
    rate = np.where(np.arange(150) % 7 < 2, 4.0, 0.2)[None] * np.array(
        [[0.5], [1.0], [2.0], [1.0], [3.0], [0.2]]
    )
    counts = rng.poisson(rate).astype(np.float64)
    forecaster = small(model="lightgbm-poisson", lags=7, horizon=7).fit(frame_of(counts))
    got = forecast(forecaster)
    assert (got > -1e-12).all()
    assert got.max() > 1.5 * got.min() + 0.1


# degenerate panels

ALL = [("squared", "ridge"), ("huber", "ridge"), ("pinball", "ridge"), ("squared", LinearRegression())]


def spoil(kind: str) -> np.ndarray:
    values = regimes(17, n_series=9)
    if kind == "constant series":
        values[[2, 5]] = [[3.0], [0.0]]
    elif kind == "constant in TRAIN":
        values[2, :120] = 3.0
    elif kind == "all constant":
        values[:] = np.arange(9)[:, None]
    elif kind == "identical":
        values[:] = values[0]
    elif kind == "late start":
        values[2, :125] = np.nan
    elif kind == "early end":
        values[2, 100:] = np.nan
    elif kind.startswith("N="):
        values = values[: int(kind[2:])]
    return values


KINDS = ["constant series", "constant in TRAIN", "all constant", "identical", "late start", "early end"]
CASES = [
    (kind, loss, model)
    for kind in (*KINDS, "N=1", "N=2", "N=3")
    for loss, model in ALL
    if (kind, loss) != ("all constant", "pinball")  # no residual, so no quantile
]


OFTEN = ("constant in TRAIN", "early end", "N=2")


def degenerate() -> list[Any]:
    """Every case under every gate; the default suite has each kind, loss, model and gate in some of them."""
    found = []
    for kind, loss, model in CASES:
        for gate in ("crossfit", "paper", "none"):
            usual = loss == "squared" and model == "ridge"
            quick = usual or (gate == "crossfit" and kind in OFTEN)
            name = f"{kind}-{loss}-{model}-{gate}"
            found.append(
                pytest.param(kind, loss, model, gate, id=name, marks=[] if quick else pytest.mark.slow)
            )
    return found


@pytest.mark.parametrize(("kind", "loss", "model", "gate"), degenerate())
def test_degenerate_panels_should_give_finite_forecasts(kind: str, loss: str, model: Any, gate: str) -> None:
    forecaster = quietly(
        small(loss=loss, model=model, gate=gate, n_clusters=4, horizon=2), frame_of(spoil(kind))
    )
    assert np.isfinite(forecast(forecaster)).all()
    assert np.isfinite(forecaster.loss_matrix_).all()
    assert forecaster.gate_report_.reason
    for candidate in forecaster.candidates_.values():
        assert np.isfinite(candidate.loss) or kind == "all constant" or forecaster.fitted_.held is None
    out_of_play = ~forecaster.fitted_.active
    assert (forecaster.partition_[out_of_play] == forecaster.fitted_.n_clusters).all()
    last = forecaster.assignment_.n_specialists - 1
    assert (forecaster.assignment_.labels[out_of_play] == last).all()


@pytest.mark.parametrize("n_series", [1, 2, 5, 9, 10])
def test_auto_clusters_should_work_for_few_series(n_series: int) -> None:
    for gate in ("crossfit", "mean", "paper", "none"):
        forecaster = small(n_clusters="auto", gate=gate).fit(frame_of(regimes(18, n_series=n_series)))
        assert np.isfinite(forecast(forecaster)).all()
        assert (forecaster.fitted_.n_clusters == 0) == (n_series < 10)


def test_constant_series_should_be_named_and_forecast_at_their_level() -> None:
    values = regimes(19, n_series=8)
    values[3], values[6] = 7.0, 0.0
    with pytest.warns(UserWarning, match=r"2 series: 's003', 's006' hardly vary in TRAIN"):
        forecaster = small().fit(frame_of(values))
    got = forecast(forecaster)[:, 0]
    assert (got[3], got[6]) == (7.0, 0.0)
    bounds = forecaster.predict(level=(80,)).row(3)
    assert bounds[2:] == (7.0, 7.0, 7.0)
    untouched = small().fit(frame_of(np.delete(values, [3, 6], axis=0)))
    assert np.allclose(np.delete(got, [3, 6]), forecast(untouched)[:, 0], rtol=1e-9)


def test_series_without_train_rows_should_be_named() -> None:
    values = regimes(20, n_series=8)
    values[2, :119] = np.nan
    values[5, 110:] = np.nan
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forecaster = small().fit(frame_of(values))
    said = [str(w.message) for w in caught if w.category is UserWarning]
    assert "1 series: 's005' have no TRAIN or no VAL rows; the global model serves them." in said
    assert any("'s002'" in text for text in said)
    assert np.isfinite(forecast(forecaster)).all()


def test_a_short_history_should_keep_global_and_say_so() -> None:
    """Statement 20."""
    forecaster = small(lags=4).fit(frame_of(regimes(21, n_steps=40)))
    assert forecaster.gate_report_.chosen == "global"
    assert forecaster.decision_.code == "val_too_short"
    assert (forecaster.assignment_.labels == forecaster.fitted_.n_clusters).all()


def test_direct_steps_longer_than_the_history_should_not_crash() -> None:
    forecaster = small(lags=5, horizon=20, strategy="direct").fit(frame_of(regimes(22, n_steps=27)))
    assert np.isfinite(forecast(forecaster)).all()


def test_progress_should_be_reported_by_stage() -> None:
    seen: list[str] = []
    small().fit(frame_of(regimes(0, n_series=4)), progress=lambda stage, done, total: seen.append(stage))
    assert list(dict.fromkeys(seen)) == [
        "summing up the panel",
        "clustering",
        "fitting candidates",
        "judging on held-out blocks",
        "refitting on all data",
        "calibrating intervals",
    ]


# cross-validation


def test_cross_validation_should_hold_every_window_once() -> None:
    values = regimes(23, n_series=6)
    df = frame_of(values)
    out = small(horizon=2).cross_validation(df, h=3, n_windows=3, step_size=5)
    candidates = ["global", "local", "clustered", "feature", "random"]
    assert out.columns == ["unique_id", "ds", "cutoff", "y", NAME, *candidates]
    assert out.height == 6 * 3 * 3
    stamps = df["ds"].unique().sort().to_numpy()
    assert out["cutoff"].unique().sort().to_list() == [stamps[c - 1].item() for c in (137, 142, 147)]
    truth = df.join(out.select("unique_id", "ds", "y"), on=["unique_id", "ds"], how="inner", suffix="_seen")
    assert truth.height == out.height
    assert (truth["y"] == truth["y_seen"]).all()
    for cutoff in (137, 147):
        fitted = small(horizon=2).fit(df.filter(pl.col("ds") < stamps[cutoff]))
        mine = out.filter(pl.col("cutoff") == stamps[cutoff - 1])
        assert np.array_equal(mine[NAME].to_numpy().reshape(6, 3), forecast(fitted, 3))
        assert mine[fitted.gate_report_.chosen].to_numpy().tolist() == mine[NAME].to_numpy().tolist()


def test_cross_validation_should_leave_out_series_that_have_ended() -> None:
    values = regimes(24, n_series=6)
    values[1, 120:] = np.nan
    values[2, 149:] = np.nan
    out = quietly_cross_validate(values, h=2)
    counts = dict(out.group_by("unique_id").len().iter_rows())
    assert counts == {"s000": 2, "s002": 1, "s003": 2, "s004": 2, "s005": 2}


def quietly_cross_validate(values: np.ndarray, **options: Any) -> pl.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return small(horizon=2).cross_validation(frame_of(values), **options)


def test_cross_validation_should_leave_the_forecaster_unfitted() -> None:
    forecaster = small()
    forecaster.cross_validation(frame_of(regimes(0, n_series=4)))
    with pytest.raises(ValueError, match="has not been fitted"):
        forecaster.predict()


def test_scales_should_come_from_the_whole_history_at_the_end() -> None:
    values = regimes(25, n_series=4)
    forecaster = small().fit(frame_of(values))
    whole = fit_scaling(values, 150)
    assert np.array_equal(forecaster.fitted_.final_scaling.center, whole.center)
    assert np.array_equal(forecaster.fitted_.scaling.center, fit_scaling(values, 120).center)


def test_lags_should_be_taken_as_any_list() -> None:
    df = frame_of(regimes(26, n_series=4))
    given = [small(lags=lags).fit(df).predict() for lags in ((1, 3), [3, 1], np.array([1, 3]))]
    assert given[0].equals(given[1])
    assert given[0].equals(given[2])
