"""New series: choose a cluster on the first half of a history, test it on the second, else stay global."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metier.core import Decision, specialize_or_fall_back
from metier.forecast.gate.candidates import Candidates
from metier.forecast.panels.panel import Panel
from metier.forecast.regression.design import Design
from metier.forecast.regression.learned import LearnedModel, TargetScale
from metier.forecast.regression.losses import ForecastLoss
from metier.forecast.regression.models import LinearModel, PanelModel
from metier.forecast.regression.rollout import targets
from metier.forecast.regression.scaling import Scaling, fit_scaling
from metier.forecast.serving import Served

Floats = NDArray[np.float64]

MIN_HALF = 8
"""Rows of each half below which a new series stays with the global model."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NewSeries:
    """Where new series go.

    Attributes:
        labels: (n,) cluster, K for the global model.
        decisions: the test of each series on its second half; None where there was nothing to test.
    """

    labels: NDArray[np.intp]
    decisions: tuple[Decision | None, ...]


def assign_new(
    served: Served, panel: Panel, *, loss: ForecastLoss, se: str, alpha: float, scaling: str
) -> NewSeries:
    """Choose and test a cluster for every series of `panel`, one step ahead.

    The scale of a series comes from its first half only. Where the gate kept the global model no cluster
    has earned its place, and every new series goes to the global model; where it chose local models, which
    a new series does not have, all clusters stand for the test.
    """
    k = served.n_clusters
    labels = np.full(panel.n_series, k, dtype=np.intp)
    decisions: list[Decision | None] = [None] * panel.n_series
    if served.report.chosen != "global" and k:
        kept = np.flatnonzero(served.report.keep)
        for i in range(panel.n_series):
            one = panel.select(np.array([i]))
            begin = int(one.first[0]) + max(served.lags)
            middle = begin + (int(one.stop[0]) - begin) // 2
            if middle - begin < MIN_HALF:
                continue
            losses = _losses(served, one, (begin, middle), loss, scaling)
            best = int(kept[np.argmin(losses[kept, : middle - begin].mean(axis=1))])
            second = losses[:, middle - begin :]
            decision = specialize_or_fall_back(second[best], second[k], dependence="time", se=se, alpha=alpha)
            decisions[i] = decision
            labels[i] = best if decision.adopt else k
    return NewSeries(labels=labels, decisions=tuple(decisions))


def serve_new(served: Served, panel: Panel, labels: NDArray[np.intp], *, scaling: str) -> Served:
    """The forecaster of new series: the fitted models on the new series' own scale."""
    scale = fit_scaling(panel.values, panel.n_steps, kind=scaling)
    back = labels == served.n_clusters
    return replace(
        served,
        panel=panel,
        scaling=scale,
        models=_moved(served.models, np.where(back, 0, labels), panel, scale, panel.n_steps),
        labels=labels,
        fallback=back,
        report=replace(served.report, chosen="global" if back.all() else "clustered"),
    )


def _losses(served: Served, one: Panel, halves: tuple[int, int], loss: ForecastLoss, scaling: str) -> Floats:
    """(K + 1, rows) one-step losses of one series under every cluster and, last, the global model."""
    begin, middle = halves
    stop = int(one.stop[0])
    scale = fit_scaling(one.values, middle, kind=scaling)
    moved = replace(served, panel=one, scaling=scale)
    design = moved.design()
    out = []
    for k in range(served.n_clusters + 1):
        name, label = ("global", 0) if k == served.n_clusters else ("clustered", k)
        model = _moved(served.models, np.array([label]), one, scale, middle)[name]
        out.append(_row_losses(model, design, (begin, stop), loss))
    return np.array(out)


def _row_losses(model: PanelModel, design: Design, span: tuple[int, int], loss: ForecastLoss) -> Floats:
    everyone = slice(None)
    y = targets(design, everyone, *span, step=1)
    if isinstance(model, LearnedModel) and loss.name == "pinball" and model.has_quantiles:
        return np.asarray(loss.of_quantiles(y, model.quantiles(design, everyone, *span, steps=1)[0])[0])
    offsets = model.offsets_for(everyone)
    residual = y - model.forecast(design, everyone, *span, steps=1)[0]
    return np.asarray(loss(residual, None if offsets is None else offsets[:, :, None])[0])


def _moved(
    models: Candidates, labels: NDArray[np.intp], panel: Panel, scale: Scaling, stop: int
) -> Candidates:
    """The global and the clustered model for other series: the same coefficients, the series' own scale."""
    out: Candidates = {}
    for name, chosen in (("global", np.zeros_like(labels)), ("clustered", labels)):
        model = models.get(name)
        if isinstance(model, LinearModel):
            out[name] = replace(model, labels=chosen)
        elif isinstance(model, LearnedModel):
            learner = fit_scaling(panel.values, stop, kind=model.scale.kind)
            out[name] = replace(
                model,
                labels=chosen,
                scale=TargetScale(standard=scale, learner=learner, kind=model.scale.kind),
            )
    return out
