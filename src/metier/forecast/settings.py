"""Check a forecaster's parameters once, in the user's words, and turn them into a pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from metier.core import InputError, non_negative, one_of, open_fraction, positive_int
from metier.forecast.gate.candidates import Report
from metier.forecast.gate.judge import GATES, SCOPES, Judge
from metier.forecast.partition.search import AUTO_CLUSTERS, AUTO_SHRINKAGE, Search
from metier.forecast.pipeline import Pipeline
from metier.forecast.regression.design import lag_set
from metier.forecast.regression.learners import resolve_learner
from metier.forecast.regression.losses import ForecastLoss

if TYPE_CHECKING:
    from metier.forecast.forecaster import ClusterForecaster

STARTS = {"squared": 3, "huber": 3, "pinball": 6}
SERIES_PER_CLUSTER = 5
"""Series that "auto" wants per cluster."""


def pipeline_of(forecaster: ClusterForecaster, *, n_series: int, seed: int, report: Report) -> Pipeline:
    """The pipeline a forecaster's parameters describe, with all its streams derived from `seed`.

    Raises:
        InputError: naming the parameter that is wrong.
    """
    f = forecaster
    steps = positive_int("horizon", f.horizon)
    several("calendar", f.calendar, "('hour', 'dayofweek')")
    loss = loss_of(f)
    search = Search(
        n_clusters=cluster_counts(f.n_clusters, n_series),
        shrinkage=shrinkages(f.shrinkage),
        n_starts=STARTS[loss.name] if f.n_starts is None else positive_int("n_starts", f.n_starts),
        random_starts=loss.name == "pinball",
        loss=loss,
        horizons=horizon_set(f),
        assign_on=assign_on(f.assign_on, loss),
        penalty=non_negative("penalty", f.penalty),
        rng=seed,
        max_search_series=positive_int("max_search_series", f.max_search_series),
    )
    return Pipeline(
        search=search,
        judge=Judge(
            gate=one_of("gate", f.gate, GATES),
            scope=one_of("scope", f.scope, SCOPES),
            se=one_of("se", f.se, ("ewc", "hac")),
            alpha=open_fraction("alpha", f.alpha, upper=0.5),
        ),
        learner=resolve_learner(f.model, loss=loss.name, quantiles=loss.quantiles, delta=loss.delta),
        steps=steps,
        direct=one_of("strategy", f.strategy, ("recursive", "direct")) == "direct",
        val_size=open_fraction("val_size", f.val_size),
        n_blocks=blocks(f.n_blocks),
        scaling=one_of("scaling", f.scaling, ("standard", "robust")),
        backend=one_of("backend", f.backend, ("serial", "joblib", "dask", "ray")),
        keep_sums=None,
        report=report,
    )


def loss_of(forecaster: ClusterForecaster) -> ForecastLoss:
    """The forecast loss, with its threshold or quantiles."""
    name = one_of("loss", forecaster.loss, tuple(STARTS))
    listed = several("quantiles", forecaster.quantiles, "(0.1, 0.5, 0.9)") if name == "pinball" else ()
    levels = tuple(open_fraction("quantiles", q) for q in listed)
    if name == "pinball" and (not levels or list(levels) != sorted(set(levels))):
        raise InputError(
            "quantiles must increase",
            expected="at least one level between 0 and 1, in increasing order",
            got=repr(forecaster.quantiles),
            next_step="Pass for example quantiles=(0.1, 0.5, 0.9).",
        )
    delta = non_negative("delta", forecaster.delta)
    if delta == 0:
        raise InputError(
            "delta, the Huber threshold, must be above 0",
            expected="standard deviations of a series, for example 1.0",
            got="0",
            next_step="Pass delta=1.0, or loss='pinball' for absolute errors.",
        )
    return ForecastLoss(name=name, delta=delta, quantiles=levels)


def lags_of(forecaster: ClusterForecaster) -> tuple[int, ...]:
    """The lags, with the seasonal one."""
    f = forecaster
    season = None if f.season_length is None else positive_int("season_length", f.season_length)
    if isinstance(f.lags, Iterable) and not isinstance(f.lags, str) and np.ndim(f.lags) > 0:
        chosen = tuple(positive_int("lags", lag) for lag in f.lags)
        if not chosen:
            raise InputError(
                "lags must name at least one lag",
                expected="a number of lags, or a list of lags in steps",
                got="an empty list",
                next_step="Pass for example lags=24 or lags=(1, 2, 24).",
            )
        return lag_set(chosen, season)
    return lag_set(positive_int("lags", f.lags), season)


def several(name: str, value: Any, example: str) -> tuple[Any, ...]:
    """The values of a parameter that is a list."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return tuple(value)
    raise InputError(
        f"{name} is a list",
        expected=f"values such as {example}",
        got=repr(value),
        next_step=f"Pass {name}=({value!r},).",
    )


def cluster_counts(n_clusters: Any, n_series: int) -> tuple[int, ...]:
    """K to try: the given one, or those of 2, 3, 4, 6, 8 with at least five series a cluster."""
    if isinstance(n_clusters, str) and n_clusters == "auto":
        return tuple(k for k in AUTO_CLUSTERS if k <= n_series // SERIES_PER_CLUSTER)
    if isinstance(n_clusters, str):
        raise InputError(
            "n_clusters must be a number of clusters or 'auto'",
            expected="an integer of at least 1, or 'auto'",
            got=repr(n_clusters),
            next_step="Pass n_clusters='auto'.",
        )
    return (min(positive_int("n_clusters", n_clusters), n_series),)


def shrinkages(shrinkage: Any) -> tuple[float, ...]:
    """g to try: the given one, or 0, 1 and 4 average series."""
    if isinstance(shrinkage, str):
        one_of("shrinkage", shrinkage, ("auto",))
        return AUTO_SHRINKAGE
    return (non_negative("shrinkage", shrinkage),)


def horizon_set(forecaster: ClusterForecaster) -> tuple[int, ...]:
    """Steps ahead whose loss assigns the series."""
    listed = several("assign_horizons", forecaster.assign_horizons, "(1, 2)")
    steps = tuple(positive_int("assign_horizons", step) for step in listed)
    if steps != (1,) and forecaster.strategy == "direct":
        raise InputError(
            "assign_horizons beyond one step needs recursive forecasts",
            expected="assign_horizons=(1,) with strategy='direct'",
            got=f"{steps}",
            next_step="Pass strategy='recursive', or leave assign_horizons out.",
        )
    if not steps or max(steps) > max(forecaster.horizon, 1):
        raise InputError(
            "assign_horizons must lie within the horizon",
            expected=f"steps from 1 to horizon={forecaster.horizon}",
            got=f"{steps}",
            next_step="Pass fewer steps or a longer horizon.",
        )
    return steps


def assign_on(value: str, loss: ForecastLoss) -> str:
    """Which rows assign the series."""
    chosen = one_of("assign_on", value, ("val", "train", "both"))
    if chosen == "both" and not loss.from_sums:
        raise InputError(
            "assign_on='both' leaves each series out of its cluster exactly, which needs sums",
            expected="loss='squared' with assign_on='both'",
            got=f"loss={loss.name!r}",
            next_step="Pass assign_on='val' or 'train', or loss='squared'.",
        )
    return chosen


def blocks(n_blocks: Any) -> int:
    """Held-out blocks, at least two."""
    count = positive_int("n_blocks", n_blocks)
    if count < 2:
        raise InputError(
            "n_blocks must be at least 2, so that something is left to assign on",
            expected="an integer of at least 2",
            got=repr(n_blocks),
            next_step="Pass n_blocks=4, or gate='none'.",
        )
    return count
