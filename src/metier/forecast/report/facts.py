"""What a report reads from a fitted forecaster: frozen models, the naive forecast, the search."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.forecast.forecaster import ClusterForecaster
from metier.forecast.panels.panel import Panel
from metier.forecast.pipeline import Fitted
from metier.forecast.regression.design import Design
from metier.forecast.settings import loss_of

Floats = NDArray[np.float64]
IN_USE = "in use"
"""Name of whatever the forecaster serves, beside its candidates."""


def fit_quietly(
    forecaster: ClusterForecaster, panel: Panel, progress: Callable[[str, int, int], None] | None = None
) -> list[str]:
    """Fit and return the warnings as texts, for the notes of a report."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forecaster.fit_panel(panel, progress=progress)
    return list(dict.fromkeys(str(w.message) for w in caught))


def frozen_design(fitted: Fitted, panel: Panel) -> Design:
    """All of the panel on the scale of the fit's past."""
    if panel.exog_names:
        raise ValueError("a frozen design has no exogenous columns")
    past = fitted.data
    extra = panel.n_steps - past.values.shape[1]
    common = np.concatenate([past.common, np.zeros((extra, past.common.shape[1]))])
    first, stop = panel.first.astype(np.intp), panel.stop.astype(np.intp)
    data = replace(past, values=panel.values, first=first, stop=stop, common=common)
    return data.design(fitted.final_scaling)


def naive_losses(
    forecaster: ClusterForecaster, design: Design, active: NDArray[np.bool_], times: NDArray[np.intp]
) -> Floats:
    """(T,) mean loss of the value one season (or one step) before, over the horizon."""
    loss, total = loss_of(forecaster), np.zeros(len(times))
    season = forecaster.season_length or 1
    values = np.asarray(design.values, dtype=np.float64)[active]
    offsets = np.zeros((len(loss.quantiles), 1, 1)) if loss.quantiles else None
    for step in range(forecaster.horizon):
        back = season * (1 + step // season)
        residual = values[:, times + step] - values[:, times + step - back]
        total += np.asarray(loss(residual, offsets)).mean(axis=0)
    return total / forecaster.horizon


def trace_of(fitted: Fitted) -> dict[str, Any]:
    """The objective of the chosen clustering run, raw and best so far, relative to the global model's."""
    partition = fitted.found.partitions[0] if fitted.found.partitions else None
    if partition is None:
        return {"raw": [], "best": [], "runs": 0}
    base = float(fitted.found.base_loss[0])
    window = [run for run in fitted.found.runs if run.key.window == 0]
    rises = sum(bool(np.any(np.diff(run.trace) > 0)) for run in window)
    return {
        "raw": np.array(partition.trace) / base,
        "best": partition.best_so_far / base,
        "n_clusters": partition.n_clusters,
        "shrinkage": partition.key.shrinkage,
        "runs": len(window),
        "rises": rises,
        "converged": sum(run.converged for run in window),
    }
