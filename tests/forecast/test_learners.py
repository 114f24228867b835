"""One contract for every base model, and what is special to each."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, SGDRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from metier.core import InputError, MissingExtraError
from metier.forecast.regression.learners import (
    LEARNERS,
    FittedLearner,
    Learner,
    LightGBMLearner,
    SklearnLearner,
    load_fitted,
    resolve_learner,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 5))
SIGNAL = X[:, 0] - 0.5 * X[:, 1]
COUNTS = RNG.poisson(np.exp(0.5 * SIGNAL)).astype(float)


def learners() -> dict[str, Learner]:
    named = {name: resolve_learner(name) for name in LEARNERS if name != "ridge"}
    more = {
        "lightgbm-huber": resolve_learner("lightgbm", loss="huber"),
        "lightgbm-pinball": resolve_learner("lightgbm", loss="pinball", quantiles=(0.1, 0.9)),
        "linear": resolve_learner(LinearRegression()),
        "forest": resolve_learner(RandomForestRegressor(n_estimators=20)),
        "pipeline": resolve_learner(make_pipeline(StandardScaler(), SGDRegressor())),
    }
    return {name: learner for name, learner in (named | more).items() if learner is not None}


def test_every_registered_name_should_meet_the_contract() -> None:
    assert set(LEARNERS) - set(learners()) == {"ridge"}


@pytest.mark.parametrize("name", list(learners()))
def test_learner_should_be_pure_and_learn(name: str) -> None:
    learner = learners()[name]
    y = COUNTS if learner.scale == "mean" else SIGNAL + 0.1 * RNG.normal(size=400)
    x_before, y_before = X.copy(), y.copy()
    fit = learner.fit(X, y, rng=3)
    assert isinstance(learner, Learner)
    assert isinstance(fit, FittedLearner)
    forecast = fit.predict(X)
    assert forecast.shape == (400,)
    assert forecast.dtype == np.float64
    np.testing.assert_array_equal(learner.fit(X, y, rng=3).predict(X), forecast)
    np.testing.assert_array_equal(learner.fit(X, y, rng=np.random.default_rng(3)).predict(X), forecast)
    np.testing.assert_array_equal(X, x_before)
    np.testing.assert_array_equal(y, y_before)
    assert np.mean((forecast - y) ** 2) < 0.8 * y.var()
    np.testing.assert_array_equal(fit.predict(X[:7]), forecast[:7])
    if learner.scale == "mean":
        assert forecast.min() >= 0


@pytest.mark.parametrize("name", [name for name in learners() if name.startswith("lightgbm")])
def test_lightgbm_should_survive_saving(name: str) -> None:
    learner = learners()[name]
    fit = learner.fit(X, COUNTS, rng=0)
    back = load_fitted(fit.to_bytes())
    np.testing.assert_array_equal(back.predict(X), fit.predict(X))
    assert back.quantiles == fit.quantiles
    if fit.quantiles:
        np.testing.assert_array_equal(back.predict_quantiles(X), fit.predict_quantiles(X))


@pytest.mark.parametrize("name", [name for name in learners() if name.startswith("lightgbm")])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_lightgbm_should_take_few_rows(name: str, n: int) -> None:
    fit = learners()[name].fit(X[:n], np.ones(n), rng=0)
    np.testing.assert_allclose(fit.predict(X[:3]), np.ones(3), atol=1e-6)


# On busy cores the threads wait for each other by spinning, which takes seconds of CPU time.
@pytest.mark.slow
def test_lightgbm_should_not_depend_on_threads() -> None:
    one = LightGBMLearner(n_trees=10, n_threads=1).fit(X, SIGNAL, rng=0)
    two = LightGBMLearner(n_trees=10, n_threads=2).fit(X, SIGNAL, rng=0)
    np.testing.assert_array_equal(one.predict(X), two.predict(X))


def test_lightgbm_should_be_silent(capfd: pytest.CaptureFixture[str]) -> None:
    resolve_learner("lightgbm-poisson").fit(X[:3], np.ones(3), rng=0)  # type: ignore[union-attr]
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_quantiles_should_be_ordered_and_cover() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(size=(3_000, 1))
    y = x[:, 0] + rng.normal(size=3_000)
    learner = resolve_learner("lightgbm", loss="pinball", quantiles=(0.1, 0.5, 0.9))
    assert learner is not None
    fit = learner.fit(x[:2_000], y[:2_000], rng=0)
    quantiles = fit.predict_quantiles(x[2_000:])
    assert quantiles.shape == (1_000, 3)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    inside = np.mean((quantiles[:, 0] <= y[2_000:]) & (y[2_000:] <= quantiles[:, 2]))
    # 0.8 is meant; sd of a share of 1,000 is 0.013, and trees overfit their quantiles a little
    assert 0.70 < inside < 0.86


def test_point_forecast_under_pinball_should_be_the_median() -> None:
    skewed = np.random.default_rng(2).exponential(size=2_000)
    x = np.zeros((2_000, 1))
    fit = LightGBMLearner(objective="quantile", quantiles=(0.1, 0.9)).fit(x, skewed, rng=0)
    assert fit.predict(x[:1])[0] == pytest.approx(np.median(skewed), abs=0.02)


def test_objective_should_follow_the_loss() -> None:
    chosen = {
        loss: resolve_learner("lightgbm", loss=loss, quantiles=(0.5,))
        for loss in ("squared", "huber", "pinball")
    }
    assert {loss: learner.objective for loss, learner in chosen.items()} == {  # type: ignore[union-attr]
        "squared": "regression",
        "huber": "huber",
        "pinball": "quantile",
    }
    assert resolve_learner("ridge", loss="huber") is None


def test_huber_should_resist_outliers() -> None:
    y = SIGNAL.copy()
    y[::20] += 200.0
    huber = resolve_learner("lightgbm", loss="huber").fit(X, y, rng=0)  # type: ignore[union-attr]
    squared = resolve_learner("lightgbm").fit(X, y, rng=0)  # type: ignore[union-attr]
    clean = np.arange(400) % 20 != 0
    errors = [np.abs(fit.predict(X) - SIGNAL)[clean].mean() for fit in (huber, squared)]
    assert errors[0] < 0.5 * errors[1]


def test_scales_should_fit_the_objective() -> None:
    assert {name: learner.scale for name, learner in learners().items() if learner.scale == "mean"} == {
        "lightgbm-poisson": "mean",
        "lightgbm-tweedie": "mean",
    }


@pytest.mark.parametrize("name", ["lightgbm-poisson", "lightgbm-tweedie"])
def test_counts_should_not_be_negative_and_may_be_all_zero(name: str) -> None:
    learner = resolve_learner(name)
    assert learner is not None
    with pytest.raises(
        InputError, match=rf"model='{name}' is for counts.*at least 0, got a smallest target of -1"
    ):
        learner.fit(X, SIGNAL - SIGNAL.min() - 1, rng=0)
    fit = learner.fit(X, np.zeros(400), rng=0)
    assert load_fitted(fit.to_bytes()).predict(X[:2]).tolist() == [0.0, 0.0]


def test_zeros_with_rounding_should_count_as_zero() -> None:
    y = np.tile([0.0, -1.2e-16, 2.0, 1.0], 25)
    X = np.arange(100.0)[:, None]
    model = LightGBMLearner(objective="poisson", n_trees=5)
    clean = model.fit(X, np.maximum(y, 0.0), rng=0)
    assert (model.fit(X, y, rng=0).predict(X) == clean.predict(X)).all()


def test_sklearn_should_be_cloned_and_seeded() -> None:
    forest = RandomForestRegressor(n_estimators=5)
    learner = SklearnLearner(forest)
    first, second = learner.fit(X, SIGNAL, rng=0), learner.fit(X, SIGNAL, rng=1)
    assert not hasattr(forest, "estimators_")
    assert forest.random_state is None
    assert (first.predict(X) != second.predict(X)).any()
    nested = SklearnLearner(make_pipeline(StandardScaler(), forest)).fit(X, SIGNAL, rng=0)
    assert nested.model.get_params()["randomforestregressor__random_state"] is not None


def test_sklearn_should_not_be_saved_or_asked_for_quantiles() -> None:
    fit = SklearnLearner(LinearRegression()).fit(X, SIGNAL, rng=0)
    with pytest.raises(
        InputError, match=r"no pickles.*model='ridge' or a 'lightgbm' model.*got LinearRegression"
    ):
        fit.to_bytes()
    with pytest.raises(InputError, match=r"LinearRegression was fitted for point forecasts"):
        fit.predict_quantiles(X)
    with pytest.raises(InputError, match=r"lightgbm was fitted for point forecasts"):
        LightGBMLearner(n_trees=1).fit(X, SIGNAL, rng=0).predict_quantiles(X)


def test_sklearn_should_predict_one_number_per_row() -> None:
    class Wide(LinearRegression):
        def predict(self, X: Any) -> Any:
            return np.zeros((len(X), 2))

    with pytest.raises(
        InputError, match=r"Wide must predict one number per row: expected shape \(400,\), got shape"
    ):
        SklearnLearner(Wide()).fit(X, SIGNAL, rng=0).predict(X)


@pytest.mark.parametrize(
    ("model", "got"),
    [(LinearRegression, "the class LinearRegression"), (3, "type int"), (None, "type NoneType")],
)
def test_other_models_should_be_refused(model: Any, got: str) -> None:
    with pytest.raises(InputError, match=rf"model is a name or a regressor.*{got}"):
        resolve_learner(model)


def test_names_and_settings_should_be_checked() -> None:
    with pytest.raises(InputError, match=r"Did you mean 'lightgbm'"):
        resolve_learner("lightgmb")
    with pytest.raises(InputError, match=r"loss is one of a fixed list"):
        resolve_learner("lightgbm", loss="absolute")
    with pytest.raises(InputError, match=r"quantiles belong to objective='quantile'.*got objective='huber'"):
        LightGBMLearner(objective="huber", quantiles=(0.1,))
    with pytest.raises(InputError, match=r"matching shapes, got \(400, 5\) and \(3,\)"):
        LightGBMLearner().fit(X, SIGNAL[:3], rng=0)
    with pytest.raises(InputError, match=r"got 1 in the features, 0 in the targets"):
        SklearnLearner(LinearRegression()).fit(
            np.where(np.arange(400)[:, None] + np.arange(5) == 0, np.nan, X), SIGNAL, rng=0
        )


@pytest.mark.parametrize("content", [b"\x80\x04", b"[]", b'{"kind": "pickle"}'])
def test_other_contents_should_not_be_loaded(content: bytes) -> None:
    with pytest.raises(InputError, match=r"a saved model must be one that metier wrote"):
        load_fitted(content)


def test_missing_lightgbm_should_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MissingExtraError, match=r'\(extra .forecast.\).*pip install .*"lightgbm>='):
        LightGBMLearner().fit(X, SIGNAL, rng=0)
