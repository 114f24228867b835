"""`ClusterForecaster`: one global model, or specialists for groups of series where that demonstrably pays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from metier.core import Assignment, Decision, InputError, open_fraction, positive_int
from metier.forecast.calendar import calendar_features
from metier.forecast.candidates import Data
from metier.forecast.describe import ClusterDescription, describe_fitted
from metier.forecast.design import Design
from metier.forecast.gate import Candidate, GateReport
from metier.forecast.models import PanelModel
from metier.forecast.panel import (
    Panel,
    exog_for_future,
    frame_like,
    future_stamps,
    panel_from_frame,
    require_length,
)
from metier.forecast.pipeline import Fitted, val_start
from metier.forecast.repair import named
from metier.forecast.settings import lags_of, pipeline_of
from metier.forecast.stream import is_path, panel_from_parquet

Floats = NDArray[np.float64]
NAME = "ClusterForecaster"


class ClusterForecaster(BaseEstimator):  # type: ignore[misc]
    """Group series by which model forecasts them best out of sample, and specialize only where it pays.

    Fitting splits time into TRAIN | VAL. Clusters of ridge models are fitted on TRAIN and every series moves
    to the cluster that forecasts it best on VAL. A gate then repeats the whole search without each block of
    VAL and adopts the clusters (or one local model per series) only if they beat the global model there.

    Args:
        model: base model: "ridge", "lightgbm", "lightgbm-poisson", "lightgbm-tweedie", or any regressor with
            scikit-learn's interface. Heavier models are fitted on the partition that the ridge path finds.
        n_clusters: K, or "auto" for the best of 2, 3, 4, 6, 8 with at least five series a cluster.
        lags: number of lags 1..p, or the lags themselves, in steps.
        season_length: steps per season; adds that lag.
        horizon: steps that `predict` forecasts and the gate judges.
        strategy: "recursive", or "direct" for one model per step.
        loss: "squared", "huber" or "pinball", on series scaled to unit variance.
        quantiles: levels of the pinball loss.
        delta: Huber threshold, in standard deviations.
        gate: "crossfit" (a test on cold held-out blocks), "mean" (their mean gain above zero), "paper" (per
            cluster, judged on the VAL that assigned it) or "none".
        se: long-run variance of the gain over time, "ewc" or "hac".
        alpha: level of the gate.
        scope: decide for the "whole" panel or per "cluster".
        assign_on: rows that assign the series: "val", "train" (in-sample) or "both".
        val_size: share of the time grid that is VAL, its newest part.
        n_blocks: held-out blocks of VAL.
        shrinkage: pull of the clusters to the global model in average series, or "auto" for 0, 1 or 4.
        penalty: ridge penalty on the standardized scale.
        n_starts: starting partitions per number of clusters; None for 3 (6 with pinball).
        assign_horizons: steps whose recursive forecasts assign the series.
        scaling: "standard" (mean and standard deviation of TRAIN) or "robust" (median and MAD).
        calendar: names of calendar features, for example ("hour", "dayofweek").
        freq: frequency of the time column; None infers it.
        repair: repairs of irregular input that you ask for; none by default.
        id_col, time_col, target_col: column names. Further numeric columns are inputs known in advance.
        max_search_series: in a larger panel, K, shrinkage and start are chosen on a random sample of so many
            series; the chosen clusters then continue on all.
        backend: where the sums over series are built: "serial", "joblib", "dask" or "ray".
        rng: seed; equal seeds give equal results.

    Attributes:
        assignment_: `metier.Assignment` of the series in use: K clusters, then the global model (one
            specialist per series where local models were adopted).
        partition_: (N,) cluster of each series, whether adopted or not; K for series outside it.
        decision_: `metier.Decision` behind the choice.
        loss_matrix_: (N, K + 1) mean VAL losses under each cluster's model and, last, the global one.
        candidates_: name -> `Candidate`: global, local, clustered, feature and random, judged alike.
        gate_report_: everything the gate saw.
        coverage_: rows (cluster, level, share inside, values), each held-out block judged by the others.
        ids_: (N,) series, in the order of all arrays.

    Raises:
        InputError: naming the parameter, column or series that is wrong.

    Example:
        >>> from metier import data
        >>> panel = data.simulate_regimes("strong", rng=0).to_panel().steps(0, 400)
        >>> forecaster = ClusterForecaster(lags=3, n_clusters=4).fit(panel.to_frame(backend="polars"))
        >>> forecaster.decision_.verdict, forecaster.predict(2).shape
        ('pays', (400, 3))

    Source: Ma, Lopez Oriona, Ombao, Sun, "Forecasting Multivariate Time Series under Predictive
    Heterogeneity", arXiv 2604.13748 (2026), for the clustering by validation loss; the cross-fitted gate,
    the sums and the calibration are ours.
    """

    def __init__(
        self,
        *,
        model: Any = "ridge",
        n_clusters: int | str = "auto",
        lags: int | Sequence[int] = 24,
        season_length: int | None = None,
        horizon: int = 1,
        strategy: str = "recursive",
        loss: str = "squared",
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        delta: float = 1.0,
        gate: str = "crossfit",
        se: str = "ewc",
        alpha: float = 0.05,
        scope: str = "whole",
        assign_on: str = "val",
        val_size: float = 0.2,
        n_blocks: int = 4,
        shrinkage: float | str = "auto",
        penalty: float = 1.0,
        n_starts: int | None = None,
        assign_horizons: Sequence[int] = (1,),
        scaling: str = "standard",
        calendar: Sequence[str] = (),
        freq: str | int | None = None,
        repair: str | Sequence[str] = (),
        id_col: str = "unique_id",
        time_col: str = "ds",
        target_col: str = "y",
        max_search_series: int = 20_000,
        backend: str = "serial",
        rng: int | np.random.Generator = 0,
    ) -> None:
        self.model = model
        self.n_clusters = n_clusters
        self.lags = lags
        self.season_length = season_length
        self.horizon = horizon
        self.strategy = strategy
        self.loss = loss
        self.quantiles = quantiles
        self.delta = delta
        self.gate = gate
        self.se = se
        self.alpha = alpha
        self.scope = scope
        self.assign_on = assign_on
        self.val_size = val_size
        self.n_blocks = n_blocks
        self.shrinkage = shrinkage
        self.penalty = penalty
        self.n_starts = n_starts
        self.assign_horizons = assign_horizons
        self.scaling = scaling
        self.calendar = calendar
        self.freq = freq
        self.repair = repair
        self.id_col = id_col
        self.time_col = time_col
        self.target_col = target_col
        self.max_search_series = max_search_series
        self.backend = backend
        self.rng = rng

    def fit(self, df: Any, *, progress: Callable[[str, int, int], None] | None = None) -> ClusterForecaster:
        """Divide, decide and refit on all of `df`.

        Args:
            df: long frame (pandas, polars or pyarrow) with the id, time and target columns; or the path of
                a parquet file, or of a folder of them that is read file by file (`panel_from_parquet`).
            progress: called as progress(stage, done, total).
        """
        self._panel_pipeline(1)
        return self.fit_panel(self._read(df), progress=progress)

    def fit_panel(
        self, panel: Panel, *, progress: Callable[[str, int, int], None] | None = None
    ) -> ClusterForecaster:
        """`fit` on a panel that `panel_from_frame` has read."""
        pipeline = self._panel_pipeline(panel.n_series, progress)
        panel = require_length(panel, self._min_length(), repair=self.repair)
        self.panel_ = panel
        self.fitted_: Fitted = pipeline.run(self._data(panel))
        self._warn_of_fallbacks()
        return self

    def predict(
        self, h: int | None = None, *, level: Sequence[float] | None = None, future: Any = None
    ) -> Any:
        """Forecast the `h` steps after each series' end.

        Args:
            h: steps; the fitted horizon by default. Recursive models forecast any number of steps, but
                intervals and quantiles reach as far as the fitted horizon.
            level: coverages of intervals in percent, for example (80, 95).
            future: frame with the exogenous columns of these steps.

        Returns:
            A frame of the kind that was fitted: id, time, `ClusterForecaster`, for each level
            `ClusterForecaster-lo-LEVEL` and `-hi-LEVEL`, and under loss="pinball" `-ql QUANTILE` columns.
        """
        steps = self._steps(h)
        exog = exog_for_future(future, self._fitted_panel(), steps)
        point = self._forecast(self.fitted_.model(), steps, exog)
        columns = {NAME: self._in_units(point).ravel(), **self._bands(point, level)}
        codes = np.repeat(np.arange(self.panel_.n_series), steps)
        return frame_like(self.panel_, columns, codes=codes, stamps=future_stamps(self.panel_, steps).ravel())

    def cross_validation(
        self,
        df: Any,
        *,
        h: int | None = None,
        n_windows: int = 1,
        step_size: int | None = None,
        level: Sequence[float] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Any:
        """Fit afresh before each of `n_windows` cutoffs and forecast the `h` steps after it.

        Nothing after a cutoff is seen before it: every window repeats scaling, clustering and gate.

        Args:
            df: as in `fit`; exogenous columns after a cutoff count as known.
            h: steps; the horizon by default.
            n_windows: cutoffs.
            step_size: steps between cutoffs; `h` by default.
            level: coverages of intervals in percent.

        Returns:
            A frame: id, time, `cutoff`, target, `ClusterForecaster` (and its intervals), and one column per
            candidate: `global`, `local`, `clustered`, `feature`, `random`.
        """
        self._panel_pipeline(1)
        steps = positive_int("h", self.horizon if h is None else h)
        n_windows = positive_int("n_windows", n_windows)
        stride = steps if step_size is None else positive_int("step_size", step_size)
        panel = self._read(df)
        cutoffs = [panel.n_steps - steps - stride * (n_windows - 1 - w) for w in range(n_windows)]
        if cutoffs[0] < self._min_length():
            raise InputError(
                "cross-validation needs a history before its first cutoff",
                expected=f"at least {self._min_length()} stamps before {n_windows} windows of {steps} steps",
                got=f"{max(cutoffs[0], 0)} stamps",
                next_step="Use fewer windows, a shorter h or step_size, or fewer lags.",
            )
        parts = []
        for w, cutoff in enumerate(cutoffs):
            if progress is not None:
                progress("cross-validation", w, n_windows)
            parts.append(self._window(panel, cutoff, steps, level))
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        codes, stamps = columns.pop("codes"), columns.pop("stamps")
        return frame_like(panel, columns, codes=codes, stamps=stamps)

    @property
    def assignment_(self) -> Assignment:
        """Who serves which series: K clusters, then the global model."""
        fitted = self._fit_result()
        if fitted.report.chosen == "local":
            return Assignment.from_labels(np.arange(len(fitted.active)), n_specialists=len(fitted.active))
        specialized = (fitted.report.chosen == "clustered") & ~fitted.fallback
        labels = np.where(specialized, fitted.labels, fitted.n_clusters)
        return Assignment.from_labels(labels, n_specialists=fitted.n_clusters + 1)

    @property
    def partition_(self) -> NDArray[np.intp]:
        """(N,) cluster of each series, adopted or not; K for series outside the partition."""
        return self._fit_result().groups

    @property
    def ids_(self) -> NDArray[Any]:
        """(N,) series names."""
        return self._fitted_panel().ids

    @property
    def decision_(self) -> Decision:
        """The decision behind the choice."""
        return self._fit_result().report.decision

    @property
    def gate_report_(self) -> GateReport:
        """What the gate saw and did."""
        return self._fit_result().report

    @property
    def loss_matrix_(self) -> Floats:
        """(N, K + 1) mean VAL losses, global last."""
        return self._fit_result().loss_matrix

    @property
    def candidates_(self) -> dict[str, Candidate]:
        """Every candidate, judged alike."""
        return dict(self._fit_result().candidates)

    @property
    def coverage_(self) -> tuple[tuple[int, float, float, int], ...]:
        """Rows (cluster, level, share of held-out values inside, values)."""
        calibration = self._fit_result().calibration
        return () if calibration is None else calibration.coverage

    def describe(self) -> tuple[ClusterDescription, ...]:
        """The clusters that were found, in numbers and words, whether they were adopted or not."""
        self._fitted_panel()
        return describe_fitted(self)

    def _window(
        self, panel: Panel, cutoff: int, steps: int, level: Sequence[float] | None
    ) -> dict[str, NDArray[Any]]:
        """Forecasts of one cutoff beside the values that came, by column."""
        past = require_length(panel.until(cutoff), self._min_length(), repair=self.repair)
        rows = np.flatnonzero(np.isin(panel.ids, past.ids))
        fitted = clone(self).fit_panel(past)
        exog = np.nan_to_num(panel.exog[rows, cutoff : cutoff + steps])
        point = fitted._forecast(fitted.fitted_.model(), steps, exog)
        columns: dict[str, NDArray[Any]] = {NAME: fitted._in_units(point), **fitted._bands(point, level)}
        for name in fitted.fitted_.final:
            columns[name] = fitted._in_units(fitted._forecast(fitted.fitted_.model(name), steps, exog))
        actual = panel.values[rows, cutoff : cutoff + steps]
        keep = (~np.isnan(actual) & (past.stop == cutoff)[:, None]).ravel()
        stamps = np.broadcast_to(panel.stamps[cutoff : cutoff + steps], actual.shape)
        named_columns = {
            "codes": np.repeat(rows, steps),
            "stamps": stamps.ravel(),
            "cutoff": np.full(actual.size, panel.stamps[cutoff - 1]),
            self.target_col: actual.ravel(),
            **{name: column.ravel() for name, column in columns.items()},
        }
        return {name: column[keep] for name, column in named_columns.items()}

    def _forecast(self, model: PanelModel, steps: int, exog: Floats) -> Floats:
        """Standardized forecasts (N, steps) after each series' end."""
        design = self._extended(steps, exog)
        out = np.empty((design.n_series, steps))
        ends = self.panel_.stop
        for end in np.unique(ends):
            series = np.flatnonzero(ends == end)
            parts = model.forecast(design, series, int(end), int(end) + 1, steps=steps)
            out[series] = np.concatenate(parts, axis=1)
        return out

    def _extended(self, steps: int, exog: Floats) -> Design:
        """The refitted design with `steps` further stamps, whose known features are filled in."""
        design, panel = self.fitted_.final_design, self.panel_
        ahead = panel.freq.advance(panel.stamps[-1], np.arange(1, steps + 1))
        common = np.concatenate([design.common, self._calendar(ahead)])
        ahead_values = np.zeros((design.n_series, steps), dtype=design.values.dtype)
        values = np.concatenate([design.values, ahead_values], axis=1)
        own = None
        if design.own is not None:
            own = np.concatenate([design.own, np.zeros((design.n_series, steps, design.n_own))], axis=1)
            columns = panel.stop[:, None] + np.arange(steps)
            own[np.arange(design.n_series)[:, None], columns] = (exog - self._exog_center) / self._exog_scale
        return replace(design, values=values, common=common, own=own, stop=design.stop + steps)

    def _bands(self, point: Floats, level: Sequence[float] | None) -> dict[str, Floats]:
        """Interval and quantile columns around standardized forecasts (N, steps)."""
        levels = [float(value) for value in level or ()]
        quantiles = list(self.quantiles) if self.loss == "pinball" else []
        if not levels and not quantiles:
            return {}
        calibration, groups, steps = self.fitted_.calibration, self.fitted_.groups, point.shape[1]
        if calibration is None or steps > calibration.steps:
            raise InputError(
                "intervals and quantiles reach as far as the horizon that was fitted",
                expected=f"h of at most {0 if calibration is None else calibration.steps}",
                got=f"h={steps}",
                next_step=f"Fit with horizon={steps}" + ("." if calibration else " and a longer history."),
            )
        columns: dict[str, Floats] = {}
        for value in levels:
            share = open_fraction("level", value, upper=100.0) / 100.0
            bounds = np.array(
                [
                    [calibration.interval(g, h, share) for h in range(1, steps + 1)]
                    for g in range(len(calibration.residuals))
                ]
            )[groups]
            columns[f"{NAME}-lo-{value:g}"] = self._in_units(point + bounds[:, :, 0]).ravel()
            columns[f"{NAME}-hi-{value:g}"] = self._in_units(point + bounds[:, :, 1]).ravel()
        for q in quantiles:
            shift = np.array(
                [
                    [calibration.quantile(g, h, q) for h in range(1, steps + 1)]
                    for g in range(len(calibration.residuals))
                ]
            )[groups]
            columns[f"{NAME}-ql{q:g}"] = self._in_units(point + shift).ravel()
        return columns

    def _in_units(self, standardized: Floats) -> Floats:
        return self.fitted_.final_scaling.invert(standardized)

    def _data(self, panel: Panel) -> Data:
        """Arrays of the pipeline; exogenous columns are scaled by what TRAIN shows."""
        own = None
        if panel.exog_names:
            train = slice(0, val_start(panel.n_steps, self.val_size))
            flat = panel.exog[:, train][~np.isnan(panel.values[:, train])]
            self._exog_center, spread = flat.mean(axis=0), flat.std(axis=0)
            self._exog_scale = np.where(spread > 0, spread, 1.0)
            own = np.nan_to_num((panel.exog - self._exog_center) / self._exog_scale)
        return Data(
            values=panel.values,
            first=panel.first.astype(np.intp),
            stop=panel.stop.astype(np.intp),
            common=self._calendar(panel.stamps),
            own=own,
            lags=lags_of(self),
            season_length=self.season_length,
        )

    def _calendar(self, stamps: NDArray[Any]) -> Floats:
        if not len(tuple(self.calendar)):
            return np.zeros((len(stamps), 0))
        return calendar_features(stamps, tuple(self.calendar))

    def _read(self, df: Any) -> Panel:
        read = panel_from_parquet if is_path(df) else panel_from_frame
        return read(
            df,
            id_col=self.id_col,
            time_col=self.time_col,
            target_col=self.target_col,
            freq=self.freq,
            repair=self.repair,
            min_length=self._min_length(),
        )

    def _min_length(self) -> int:
        """Stamps a series needs: its lags, one TRAIN row and the horizon."""
        return max(lags_of(self)) + positive_int("horizon", self.horizon) + 1

    def _panel_pipeline(self, n_series: int, progress: Callable[[str, int, int], None] | None = None) -> Any:
        lags_of(self)
        return pipeline_of(self, n_series=n_series, report=progress or (lambda stage, done, total: None))

    def _steps(self, h: int | None) -> int:
        self._fitted_panel()
        steps = positive_int("h", self.horizon if h is None else h)
        if self.strategy == "direct" and steps > self.horizon:
            raise InputError(
                "direct models forecast as many steps as they were fitted for",
                expected=f"h of at most {self.horizon}",
                got=f"h={steps}",
                next_step=f"Fit with horizon={steps}, or strategy='recursive'.",
            )
        return steps

    def _fit_result(self) -> Fitted:
        self._fitted_panel()
        return self.fitted_

    def _fitted_panel(self) -> Panel:
        if not hasattr(self, "fitted_"):
            raise InputError(
                "this forecaster has not been fitted",
                expected="fit(df) first",
                got="an unfitted ClusterForecaster",
                next_step="Call fit with a long frame.",
            )
        return self.panel_

    def _warn_of_fallbacks(self) -> None:
        fitted = self.fitted_
        constant = fitted.scaling.constant
        if constant.any():
            text = f"{named(self.panel_.ids, constant)} do not vary in TRAIN; the global model serves them."
            warnings.warn(text, stacklevel=3)
        silent = ~fitted.active & ~constant
        if silent.any():
            text = f"{named(self.panel_.ids, silent)} have no TRAIN or no VAL rows; the global model serves them."
            warnings.warn(text, stacklevel=3)
