"""One origin of a forecasting study: fit on the past, freeze, judge every candidate on the steps after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metier.forecast import ClusterForecaster
from metier.forecast.gate.heldout import HeldOut, held_out_losses
from metier.forecast.panels.panel import Panel
from metier.forecast.pipeline import Fitted
from metier.forecast.regression.design import Design
from metier.forecast.regression.models import PanelModel
from metier.forecast.regression.rollout import origin_valid, targets
from metier.forecast.report import IN_USE, fit_quietly, frozen_design, naive_losses, trace_of
from metier.forecast.settings import loss_of

if TYPE_CHECKING:
    pass

Floats = NDArray[np.float64]
LEVELS = (0.8, 0.95)
WINDOW = 72
"""Steps of an example that are drawn."""


def judge_origin(forecaster: ClusterForecaster, panel: Panel, cutoff: int, stop: int) -> dict[str, Any]:
    """Fit on the steps before `cutoff`; judge the frozen models on the steps from `cutoff` to `stop`.

    Every loss is on the scale that the past set for its series; series that did not vary there are left out.

    Returns:
        Plain values: losses by time and by series of every candidate and of the model in use, coverage of
        the intervals, the partition and its description, the fit's own decision, and examples.
    """
    notes = fit_quietly(forecaster, panel.until(cutoff))
    fitted = forecaster.fitted_
    design = frozen_design(fitted, panel)
    models: dict[str, PanelModel] = {name: fitted.model(name) for name in fitted.final}
    models[IN_USE] = fitted.model()
    active = fitted.active & ~fitted.final_scaling.constant
    held = judge(forecaster, design, models, active, cutoff, stop)
    return {
        "cutoff": cutoff,
        "stamps": [str(stamp) for stamp in panel.stamps[held.times]],
        "losses": {name: held.of(name) for name in held.names},
        "by_series": {name: held.by_series[active, j] for j, name in enumerate(held.names)},
        "naive": naive_losses(forecaster, design, active, held.times),
        "series": [str(name) for name in panel.ids[active]],
        "level": np.nanmean(panel.values[active, :cutoff], axis=1),
        "labels": fitted.labels[active],
        "n_clusters": fitted.n_clusters,
        "chosen": fitted.report.chosen,
        "reason": fitted.report.reason,
        "decision": fitted.report.decision.reason,
        "gate_gains": {c.name: c.relative_gain for c in forecaster.candidates_.values()},
        "descriptions": [found.to_dict() for found in forecaster.describe()],
        "trace": trace_of(fitted),
        "coverage": coverage(fitted, design, active, cutoff, stop, forecaster.horizon),
        "examples": examples(forecaster, panel, design, active, stop),
        "notes": notes,
    }


def judge(
    forecaster: ClusterForecaster,
    design: Design,
    models: dict[str, PanelModel],
    active: NDArray[np.bool_],
    start: int,
    stop: int,
) -> HeldOut:
    """Losses of frozen models whose targets lie in [start, stop)."""
    return held_out_losses(
        design,
        [(start, stop)],
        [models],
        loss=loss_of(forecaster),
        steps=forecaster.horizon,
        active=active,
        groups=np.where(active, 0, -1),
        n_groups=1,
    )


def coverage(
    fitted: Fitted, design: Design, active: NDArray[np.bool_], start: int, stop: int, steps: int
) -> dict[str, Any]:
    """Share of TEST values inside the intervals of the model in use, by time and by group."""
    calibration = fitted.calibration
    if calibration is None:
        return {}
    series, last = np.flatnonzero(active), stop - steps + 1
    groups = fitted.groups[series]
    forecasts = fitted.model().forecast(design, series, start, last, steps=steps)
    inside = np.zeros((len(LEVELS), len(series), last - start))
    valid = origin_valid(design, series, start, last, step=steps)
    for h, forecast in enumerate(forecasts, start=1):
        residual = targets(design, series, start, last, step=h) - forecast
        for i, level in enumerate(LEVELS):
            low, high = interval_bounds(fitted, groups, h, level)
            inside[i] += ((residual >= low[:, None]) & (residual <= high[:, None])) / steps
    inside *= valid
    seen = valid.any(axis=0)
    used = np.unique(groups)
    return {
        "by_time": {
            f"{level:g}": (inside[i].sum(axis=0)[seen] / valid.sum(axis=0)[seen])
            for i, level in enumerate(LEVELS)
        },
        "groups": [
            {
                "cluster": int(k),
                "values": int(valid[groups == k].sum()) * steps,
                **{
                    f"{level:g}": float(inside[i][groups == k].sum() / valid[groups == k].sum())
                    for i, level in enumerate(LEVELS)
                },
            }
            for k in used
            if valid[groups == k].any()
        ],
    }


def interval_bounds(
    fitted: Fitted, groups: NDArray[np.intp], step: int, level: float
) -> tuple[Floats, Floats]:
    """(n,) residual bounds of each series' calibration group."""
    calibration = fitted.calibration
    if calibration is None:
        raise ValueError("this fit has no calibration")
    pairs = {int(k): calibration.interval(int(k), step, level) for k in np.unique(groups)}
    bounds = np.array([pairs[int(k)] for k in groups])
    return bounds[:, 0], bounds[:, 1]


def examples(
    forecaster: ClusterForecaster, panel: Panel, design: Design, active: NDArray[np.bool_], stop: int
) -> list[dict[str, Any]]:
    """The last steps of each cluster's largest series with one-step forecasts and 80 % intervals."""
    fitted = forecaster.fitted_
    if fitted.calibration is None:
        return []
    level = np.nanmean(panel.values, axis=1)
    start = max(stop - WINDOW, int(design.first.max()) + design.max_lag)
    out = []
    for k in range(max(fitted.n_clusters, 1)):
        members = np.flatnonzero(active & (fitted.labels == k))
        if not len(members):
            continue
        one = members[[np.argmax(level[members])]]
        forecast = fitted.model().forecast(design, one, start, stop, steps=1)[0]
        low, high = interval_bounds(fitted, fitted.groups[one], 1, LEVELS[0])
        scaling = fitted.final_scaling
        out.append(
            {
                "cluster": k,
                "series": str(panel.ids[one[0]]),
                "stamps": [str(stamp) for stamp in panel.stamps[start:stop]],
                "actual": panel.values[one[0], start:stop],
                "forecast": scaling.invert(forecast, one)[0],
                "low": scaling.invert(forecast + low[:, None], one)[0],
                "high": scaling.invert(forecast + high[:, None], one)[0],
            }
        )
    return out
