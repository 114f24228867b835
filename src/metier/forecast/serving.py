"""What a fitted forecaster keeps in order to forecast: the panel's tail, the models, the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError
from metier.forecast.gate.candidates import Candidates, RoutedModel, routed
from metier.forecast.gate.conformal import Calibration
from metier.forecast.gate.judge import Candidate, GateReport
from metier.forecast.panels.calendar import calendar_features
from metier.forecast.panels.panel import Panel
from metier.forecast.regression.design import Design
from metier.forecast.regression.learned import LearnedModel
from metier.forecast.regression.models import PanelModel
from metier.forecast.regression.scaling import Scaling

Floats = NDArray[np.float64]
NAME = "ClusterForecaster"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Known:
    """How known features are made: calendar names, and the scale of exogenous columns (E,)."""

    calendar: tuple[str, ...]
    exog_center: Floats
    exog_scale: Floats

    def common(self, stamps: NDArray[Any]) -> Floats:
        """(T, C) calendar features."""
        if not self.calendar:
            return np.zeros((len(stamps), 0))
        return calendar_features(stamps, self.calendar)

    def own(self, exog: Floats) -> Floats | None:
        """(N, T, E) scaled exogenous features, zero where not observed; None without any."""
        if not len(self.exog_center):
            return None
        return np.nan_to_num((exog - self.exog_center) / self.exog_scale)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Served:
    """A decided forecaster, ready to forecast and to be saved.

    Attributes:
        panel: the series; only what their lags reach is needed.
        lags, season_length: of the design.
        known: calendar and exogenous features.
        scaling: of all that was fitted.
        models: every candidate, refitted on all data.
        labels: (N,) cluster of each series, K for series outside the partition.
        n_clusters: K.
        fallback: (N,) series that the global model serves where the clusters are in use.
        report, candidates, loss_matrix: the gate's record.
        calibration: held-out residuals, or None where VAL has no origin.
        levels: quantile levels to forecast (pinball).
    """

    panel: Panel
    lags: tuple[int, ...]
    season_length: int | None
    known: Known
    scaling: Scaling
    models: Candidates
    labels: NDArray[np.intp]
    n_clusters: int
    fallback: NDArray[np.bool_]
    report: GateReport
    candidates: Mapping[str, Candidate]
    loss_matrix: Floats
    calibration: Calibration | None
    levels: tuple[float, ...]

    @property
    def chosen(self) -> PanelModel:
        """The candidate in use, with the global model where series fall back."""
        return routed(self.models, self.report.chosen, self.fallback)

    def candidate(self, name: str) -> PanelModel:
        """A candidate for every series of the partition; the others get the global model."""
        return routed(self.models, name, self.labels == self.n_clusters)

    def forecast(self, model: PanelModel, steps: int, exog: Floats) -> Floats:
        """Standardized forecasts (N, steps) after each series' end; exog (N, steps, E) in its own units."""
        tail = self.tail()
        design = tail._extended(steps, exog)
        out = np.empty((design.n_series, steps))
        for end in np.unique(tail.panel.stop):
            series = np.flatnonzero(tail.panel.stop == end)
            parts = model.forecast(design, series, int(end), int(end) + 1, steps=steps)
            out[series] = np.concatenate(parts, axis=1)
        return out

    def own_quantiles(self, steps: int, exog: Floats) -> Floats | None:
        """Standardized quantiles (N, steps, Q) of base models that forecast them; None for the others."""
        model = self.chosen
        if not self.levels or not isinstance(model, LearnedModel | RoutedModel) or not model.has_quantiles:
            return None
        tail = self.tail()
        design = tail._extended(steps, exog)
        out = np.empty((design.n_series, steps, len(self.levels)))
        for end in np.unique(tail.panel.stop):
            series = np.flatnonzero(tail.panel.stop == end)
            parts = model.quantiles(design, series, int(end), int(end) + 1, steps=steps)
            out[series] = np.concatenate(parts, axis=1)
        return out

    def columns(self, steps: int, exog: Floats, level: Sequence[float] | None) -> dict[str, Floats]:
        """Point forecasts, intervals and quantiles (N, steps) by column name, in units of the target."""
        point = self.forecast(self.chosen, steps, exog)
        own = self.own_quantiles(steps, exog)
        return {NAME: self.scaling.invert(point), **self._bands(point, level, own)}

    def design(self) -> Design:
        """The rows of the kept panel."""
        return Design(
            values=self.scaling.apply(self.panel.values),
            first=self.panel.first.astype(np.intp),
            stop=self.panel.stop.astype(np.intp),
            lags=self.lags,
            season_length=self.season_length,
            common=self.known.common(self.panel.stamps),
            own=self.known.own(self.panel.exog),
        )

    def tail(self) -> Served:
        """The same forecaster on the stamps that its lags reach."""
        cut = max(0, int(self.panel.stop.min()) - max(self.lags))
        panel = replace(
            self.panel,
            stamps=self.panel.stamps[cut:].copy(),
            values=self.panel.values[:, cut:].copy(),
            first=np.maximum(self.panel.first - cut, 0),
            stop=self.panel.stop - cut,
            exog=self.panel.exog[:, cut:].copy(),
        )
        return replace(self, panel=panel)

    def _extended(self, steps: int, exog: Floats) -> Design:
        """The design with `steps` further stamps, whose known features are filled in."""
        design, panel = self.design(), self.panel
        ahead = panel.freq.advance(panel.stamps[-1], np.arange(1, steps + 1))
        common = np.concatenate([design.common, self.known.common(ahead)])
        ahead_values = np.zeros((design.n_series, steps), dtype=design.values.dtype)
        values = np.concatenate([design.values, ahead_values], axis=1)
        future, own = self.known.own(exog), None
        if design.own is not None and future is not None:
            own = np.concatenate([design.own, np.zeros_like(future)], axis=1)
            own[np.arange(design.n_series)[:, None], panel.stop[:, None] + np.arange(steps)] = future
        return replace(design, values=values, common=common, own=own, stop=design.stop + steps)

    def _bands(self, point: Floats, level: Sequence[float] | None, own: Floats | None) -> dict[str, Floats]:
        """Interval and quantile columns around standardized forecasts (N, steps).

        Quantiles are `own` (N, steps, Q), as the gate judged them, where the base models bring them;
        otherwise the point forecast plus the quantiles of held-out residuals.
        """
        shares = {value: value / 100.0 for value in _percents(level)}
        if not shares and not self.levels:
            return {}
        calibration, steps = self.calibration, point.shape[1]
        if self.scaling.constant.all():
            names = [f"{NAME}-{side}-{value:g}" for value in shares for side in ("lo", "hi")]
            names += [f"{NAME}-ql{q:g}" for q in self.levels]
            return dict.fromkeys(names, self.scaling.invert(point))
        if calibration is None or steps > calibration.steps:
            raise InputError(
                "intervals and quantiles reach as far as the horizon that was fitted",
                expected=f"h of at most {0 if calibration is None else calibration.steps}",
                got=f"h={steps}",
                next_step=f"Fit with horizon={steps}" + ("." if calibration else " and a longer history."),
            )
        columns: dict[str, Floats] = {}
        for value, share in shares.items():
            bounds = calibration.intervals(share, steps)[self.labels]
            columns[f"{NAME}-lo-{value:g}"] = self.scaling.invert(point + bounds[:, :, 0])
            columns[f"{NAME}-hi-{value:g}"] = self.scaling.invert(point + bounds[:, :, 1])
        for j, q in enumerate(self.levels):
            shift = calibration.quantiles(q, steps)[self.labels]
            forecast = point + shift if own is None else own[:, :, j]
            columns[f"{NAME}-ql{q:g}"] = self.scaling.invert(forecast)
        return columns


def _percents(level: Sequence[float] | float | None) -> tuple[float, ...]:
    """Levels in percent; a share such as 0.8 is a slip that would give useless intervals."""
    values = (level,) if isinstance(level, (int, float)) else tuple(level or ())
    for value in values:
        number = float(value) if isinstance(value, (int, float, np.number)) else np.nan
        if not 1 <= number < 100:
            raise InputError(
                "level is a coverage in percent",
                expected="numbers from 1 to below 100",
                got=repr(value),
                next_step=f"Pass level={100 * number:g}." if 0 < number < 1 else "Pass level=80.",
            )
    return tuple(float(value) for value in values)
