"""What the forecaster says to wrong parameters, frames and calls: rule, expected, got, next step."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from panels import frame_of, regimes, small
from sklearn.base import clone

from metier.core import InputError
from metier.forecast import ClusterForecaster

VALUES = regimes(0, n_series=4)

WRONG: list[tuple[dict[str, Any], str]] = [
    (
        {"model": "lightgb"},
        r"model is one of a fixed list: expected 'ridge' .*got 'lightgb'\. Did you mean 'lightgbm'\?",
    ),
    (
        {"model": 3},
        r"expected 'ridge', .* or an object with fit, predict and get_params, got an object of type int",
    ),
    ({"model": dict}, r"got the class dict\. Pass an instance, dict\(\.\.\.\)"),
    ({"n_clusters": "many"}, r"n_clusters must be a number .*got 'many'\. Pass n_clusters='auto'\."),
    ({"n_clusters": 0}, r"n_clusters is a whole number: expected an integer of at least 1, got 0"),
    ({"n_clusters": 2.5}, r"n_clusters is a whole number: .*got 2\.5"),
    ({"lags": 0}, r"lags is a whole number: expected an integer of at least 1, got 0"),
    ({"lags": []}, r"lags must name at least one lag: .*got an empty list\. Pass for example lags=24"),
    ({"lags": (1, -2)}, r"lags is a whole number: .*got -2"),
    ({"lags": "24"}, r"lags is a whole number: .*got '24'"),
    ({"season_length": 0}, r"season_length is a whole number: .*got 0"),
    ({"horizon": 0}, r"horizon is a whole number: .*got 0"),
    ({"horizon": 1.0}, r"horizon is a whole number: .*got 1\.0"),
    ({"strategy": "recursiv"}, r"strategy is one of .*got 'recursiv'\. Did you mean 'recursive'\?"),
    ({"loss": "mse"}, r"loss is one of .*'squared' \| 'huber' \| 'pinball', got 'mse'"),
    ({"loss": "pinball", "quantiles": (0.9, 0.1)}, r"quantiles must increase: .*got \(0\.9, 0\.1\)"),
    ({"loss": "pinball", "quantiles": ()}, r"quantiles must increase: expected at least one level"),
    ({"loss": "pinball", "quantiles": (0.5, 1.0)}, r"quantiles is a fraction: .*got 1\.0"),
    ({"delta": 0}, r"delta, the Huber threshold, must be above 0: .*got 0\. Pass delta=1\.0"),
    ({"delta": -1.0}, r"delta has no negative values: .*got -1\.0"),
    ({"gate": "crossfitted"}, r"gate is one of .*got 'crossfitted'\. Did you mean 'crossfit'\?"),
    ({"se": "newey"}, r"se is one of .*'ewc' \| 'hac', got 'newey'"),
    ({"alpha": 0.5}, r"alpha is a fraction: expected 0 < alpha < 0\.5, got 0\.5"),
    ({"alpha": 0}, r"alpha is a fraction: .*got 0\."),
    ({"scope": "panel"}, r"scope is one of .*'whole' \| 'cluster', got 'panel'"),
    ({"assign_on": "test"}, r"assign_on is one of .*'val' \| 'train' \| 'both', got 'test'"),
    (
        {"assign_on": "both", "loss": "huber"},
        r"assign_on='both' leaves each series out .*got loss='huber'\. Pass assign_on='val'",
    ),
    ({"val_size": 1.0}, r"val_size is a fraction: expected 0 < val_size < 1, got 1\.0"),
    ({"val_size": 20}, r"val_size is a fraction: .*got 20"),
    ({"n_blocks": 1}, r"n_blocks must be at least 2, .*got 1\. Pass n_blocks=4, or gate='none'\."),
    ({"shrinkage": "lots"}, r"shrinkage is one of .*'auto', got 'lots'"),
    ({"shrinkage": -1}, r"shrinkage has no negative values: .*got -1"),
    ({"shrinkage": float("nan")}, r"shrinkage has no negative values: expected a finite number .*got nan"),
    ({"penalty": -0.1}, r"penalty has no negative values: .*got -0\.1"),
    ({"n_starts": 0}, r"n_starts is a whole number: .*got 0"),
    ({"assign_horizons": (0,)}, r"assign_horizons is a whole number: .*got 0"),
    ({"assign_horizons": ()}, r"assign_horizons must lie within the horizon: .*got \(\)"),
    (
        {"assign_horizons": (1, 3), "horizon": 2},
        r"within the horizon: expected steps from 1 to horizon=2, got \(1, 3\)",
    ),
    (
        {"assign_horizons": (1, 2), "horizon": 2, "strategy": "direct"},
        r"beyond one step needs recursive forecasts: .*got \(1, 2\)",
    ),
    ({"scaling": "minmax"}, r"scaling is one of .*'standard' \| 'robust', got 'minmax'"),
    ({"calendar": ("hours",)}, r"calendar .*got 'hours'\. Did you mean 'hour'\?"),
    ({"freq": "D"}, r"(?i)grid|stamp"),
    ({"repair": "fill"}, r"repair is one of .*got 'fill'"),
    (
        {"id_col": "series"},
        r"the frame must have the columns named: .*no 'series' among .*id_col, time_col and target_col",
    ),
    ({"target_col": "sales"}, r"no 'sales' among"),
    ({"backend": "spark"}, r"backend is one of .*got 'spark'"),
    ({"rng": -1}, r"rng decides every random draw.*got -1"),
    ({"rng": "0"}, r"rng decides every random draw: .*got '0'\. Pass rng=0"),
    ({"rng": True}, r"rng decides every random draw: .*got True"),
]


@pytest.mark.parametrize(("parameters", "message"), WRONG, ids=[str(p) for p, _ in WRONG])
def test_a_wrong_parameter_should_be_named(parameters: dict[str, Any], message: str) -> None:
    forecaster = small(**parameters)
    with pytest.raises(InputError, match=message) as caught:
        forecaster.fit(frame_of(VALUES))
    assert not hasattr(forecaster, "fitted_")
    text = str(caught.value)
    assert re.fullmatch(r".+: expected .+, got .+\. .+", text), text


def test_every_parameter_should_have_a_wrong_value_here() -> None:
    named = {name for parameters, _ in WRONG for name in parameters}
    free = {"time_col", "max_search_series"}
    assert set(inspect.signature(ClusterForecaster).parameters) == named | free


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lags": 3.5}, r"got 3\.5"),
        (
            {"quantiles": 0.5, "loss": "pinball"},
            r"quantiles is a list: .*got 0\.5\. Pass quantiles=\(0\.5,\)",
        ),
        ({"assign_horizons": 1}, r"assign_horizons is a list: .*got 1"),
        ({"calendar": "hour"}, r"calendar is a list: .*got 'hour'\. Pass calendar=\('hour',\)"),
        ({"max_search_series": 0}, r"max_search_series is a whole number"),
    ],
)
def test_a_scalar_for_a_list_should_be_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**parameters).fit(frame_of(VALUES))


def test_an_unfitted_forecaster_should_say_so_everywhere() -> None:
    forecaster = small()
    message = r"has not been fitted: expected fit\(df\) first, got .*\. Call fit with a long frame\."
    with pytest.raises(InputError, match=message):
        forecaster.predict()
    for name in (
        "assignment_",
        "partition_",
        "ids_",
        "decision_",
        "gate_report_",
        "loss_matrix_",
        "candidates_",
        "coverage_",
    ):
        with pytest.raises(InputError, match=message):
            getattr(forecaster, name)


FITTED = small(horizon=2, strategy="direct").fit(frame_of(VALUES))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"h": 3}, r"direct models forecast as many steps .*h of at most 2, got h=3\. Fit with horizon=3"),
        ({"h": 0}, r"h is a whole number: .*got 0"),
        ({"level": (0,)}, r"level is a coverage in percent: expected numbers from 1 to below 100, got 0"),
        ({"level": (100,)}, r"level is a coverage in percent: .*got 100"),
        (
            {"level": (99.9,)},
            r"an interval of level 99\.9 needs enough held-out residuals: expected at least 1999",
        ),
        (
            {"future": pl.DataFrame({"unique_id": ["s000"], "ds": [1]})},
            r"expected no future: fit saw no exogenous",
        ),
    ],
)
def test_a_wrong_call_of_predict_should_be_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FITTED.predict(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_windows": 0}, r"n_windows is a whole number: .*got 0"),
        ({"step_size": 0}, r"step_size is a whole number: .*got 0"),
        ({"h": 0}, r"h is a whole number: .*got 0"),
        (
            {"n_windows": 200},
            r"needs a history before its first cutoff: expected at least \d+ stamps before 200 windows",
        ),
    ],
)
def test_a_wrong_cross_validation_should_be_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small().cross_validation(frame_of(VALUES), **arguments)


def test_direct_cross_validation_beyond_the_horizon_should_be_refused() -> None:
    with pytest.raises(InputError, match=r"direct models forecast .*at most 2, got h=3"):
        small(horizon=2, strategy="direct").cross_validation(frame_of(VALUES), h=3)


def test_short_series_should_be_named_or_dropped() -> None:
    values = regimes(0, n_series=4)
    values[2, :147] = np.nan
    with pytest.raises(
        InputError, match=r"at least 4, got fewer \(the shortest has 3\) in 1 series: 's002'\. Pass repair"
    ):
        small().fit(frame_of(values))
    assert small(repair="drop_short").fit(frame_of(values)).ids_.tolist() == ["s000", "s001", "s003"]


def test_holes_should_be_named_and_mended_on_request() -> None:
    values = regimes(0, n_series=4)
    values[1, 50] = np.nan
    with pytest.raises(InputError, match=r"gap inside a series: .*'s001'.*interpolate"):
        small().fit(frame_of(values))
    out = small(repair="interpolate").fit(frame_of(values)).predict()
    assert np.isfinite(out["ClusterForecaster"].to_numpy()).all()


def test_parameters_should_survive_clone_and_get_params() -> None:
    odd = {"lags": (1, 7), "n_clusters": 3, "loss": "huber", "delta": 0.5, "rng": 9, "calendar": ("hour",)}
    forecaster = ClusterForecaster(**odd)
    copy = clone(forecaster)
    assert copy is not forecaster
    assert copy.get_params() == forecaster.get_params()
    assert {name: copy.get_params()[name] for name in odd} == odd
    assert ClusterForecaster(**forecaster.get_params()).get_params() == forecaster.get_params()
    assert copy.set_params(lags=3).lags == 3
    assert forecaster.lags == (1, 7)


def test_fitting_should_not_change_parameters() -> None:
    forecaster = small(horizon=2)
    before = forecaster.get_params()
    forecaster.fit(frame_of(VALUES))
    assert forecaster.get_params() == before
    assert not hasattr(clone(forecaster), "fitted_")
