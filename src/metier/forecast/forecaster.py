"""`ClusterForecaster`: one global model, or specialists for groups of series where that demonstrably pays."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone

from metier.core import Assignment, Decision, InputError, positive_int, seed_of
from metier.core.rng import check_rng
from metier.forecast.assigning import assign_new, serve_new
from metier.forecast.backtest import backtest, cutoffs_of
from metier.forecast.gate.candidates import Data
from metier.forecast.gate.judge import Candidate, GateReport
from metier.forecast.panels.panel import (
    Panel,
    exog_for_future,
    frame_like,
    future_stamps,
    panel_from_frame,
    require_length,
)
from metier.forecast.panels.repair import named
from metier.forecast.panels.stream import is_path, panel_from_parquet
from metier.forecast.persistence import read_forecaster, write_forecaster
from metier.forecast.pipeline import Fitted, val_start
from metier.forecast.serving import Known, Served
from metier.forecast.settings import lags_of, loss_of, pipeline_of
from metier.forecast.words.describe import ClusterDescription, describe_fitted

Floats = NDArray[np.float64]
Progress = Callable[[str, int, int], None]


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
        assignment_: `metier.Assignment` of the series in use: K clusters (or, where local models were
            adopted, one model per series), then the global model.
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

    def fit(self, df: Any, *, progress: Progress | None = None) -> ClusterForecaster:
        """Divide, decide and refit on all of `df`.

        Args:
            df: long frame (pandas, polars or pyarrow) with the id, time and target columns; or the path of
                a parquet file, or of a folder of them that is read file by file (`panel_from_parquet`).
            progress: called as progress(stage, done, total).
        """
        self._check()
        return self.fit_panel(self._read(df), progress=progress)

    def fit_panel(self, panel: Panel, *, progress: Progress | None = None) -> ClusterForecaster:
        """`fit` on a panel that `panel_from_frame` has read."""
        self._check()
        seed = seed_of(self.rng)
        pipeline = pipeline_of(self, n_series=panel.n_series, seed=seed, report=progress or _silent)
        panel = require_length(panel, self._min_length(), repair=self.repair)
        known = self._known(panel)
        fitted = pipeline.run(self._data(panel, known))
        self.panel_, self.fitted_, self.seed_ = panel, fitted, seed
        self.served_: Served = self._served(panel, known, fitted)
        self._warn_of_fallbacks()
        return self

    def predict(
        self,
        h: int | None = None,
        *,
        level: Sequence[float] | None = None,
        future: Any = None,
        new_df: Any = None,
    ) -> Any:
        """Forecast the `h` steps after each series' end.

        Args:
            h: steps; the fitted horizon by default. Recursive models forecast any number of steps, but
                intervals and quantiles reach as far as the fitted horizon.
            level: coverages of intervals in percent, for example (80, 95).
            future: frame with the exogenous columns of these steps.
            new_df: histories of other series, to be forecast instead of the fitted ones; `assign` says
                which cluster serves them.

        Returns:
            A frame of the kind that was fitted: id, time, `ClusterForecaster`, for each level
            `ClusterForecaster-lo-LEVEL` and `-hi-LEVEL`, and under loss="pinball" a
            `ClusterForecaster-qlQUANTILE` column per quantile.
        """
        steps = self._steps(h)
        served = self._serving() if new_df is None else self._serve_new(new_df)
        exog = exog_for_future(future, served.panel, steps)
        columns = served.columns(steps, exog, level)
        codes = np.repeat(np.arange(served.panel.n_series), steps)
        stamps = future_stamps(served.panel, steps).ravel()
        flat = {name: column.ravel() for name, column in columns.items()}
        return frame_like(served.panel, flat, codes=codes, stamps=stamps)

    def cross_validation(
        self,
        df: Any,
        *,
        h: int | None = None,
        n_windows: int = 1,
        step_size: int | None = None,
        level: Sequence[float] | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """Fit afresh before each of `n_windows` cutoffs and forecast the `h` steps after it.

        Nothing after a cutoff is seen before it: every window repeats scaling, clustering and gate.

        Args:
            df: as in `fit`; exogenous columns after a cutoff count as known.
            h: steps; the horizon by default.
            n_windows: cutoffs.
            step_size: steps between cutoffs; `h` by default.
            level: coverages of intervals in percent.
            progress: called as progress(stage, done, total).

        Returns:
            A frame: id, time, `cutoff`, target, `ClusterForecaster` (and its intervals), and one column per
            candidate: `global`, `local`, `clustered`, `feature`, `random`.
        """
        self._check()
        steps = self._steps(h)
        panel = self._read(df)
        cutoffs = cutoffs_of(
            panel.n_steps,
            steps=steps,
            n_windows=positive_int("n_windows", n_windows),
            step_size=steps if step_size is None else positive_int("step_size", step_size),
            min_length=self._min_length(),
        )
        return backtest(
            panel,
            cutoffs,
            steps=steps,
            level=level,
            min_length=self._min_length(),
            repair=self.repair,
            fit=lambda past: clone(self).fit_panel(past),
            progress=progress or _silent,
        )

    def assign(self, df: Any) -> Any:
        """Where series that were not fitted belong.

        Each series chooses the cluster that forecasts the first half of its history best; a one-sided test
        at `alpha` on the second half must then find a gain over the global model, or it goes there.

        Args:
            df: long frame with the columns that were fitted.

        Returns:
            A frame with one row per series: id, `cluster` (K stands for the global model), `adopted`,
            `gain` (mean loss saved on the second half, standardized scale) and `p_value`; the last two are
            missing where there was nothing to test.
        """
        served = self._serving()
        panel = self._read_new(df)
        found = assign_new(
            served, panel, loss=loss_of(self), se=self.se, alpha=self.alpha, scaling=self.scaling
        )
        columns = {
            "cluster": found.labels,
            "adopted": found.labels < served.n_clusters,
            "gain": np.array([np.nan if d is None else d.gain for d in found.decisions]),
            "p_value": np.array([np.nan if d is None else d.p_value for d in found.decisions]),
        }
        return frame_like(panel, columns, codes=np.arange(panel.n_series))

    def save(self, folder: str | Path) -> None:
        """Write the forecaster to a folder: JSON and safetensors, no pickle.

        An existing folder is replaced as a whole, and only if it holds a saved forecaster.
        """
        write_forecaster(self, self._serving(), Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> ClusterForecaster:
        """Read a saved forecaster; it forecasts and assigns, and keeps the record of its decision."""
        parameters, served = read_forecaster(Path(folder))
        forecaster = cls(**parameters)
        forecaster.served_ = served
        return forecaster

    @property
    def assignment_(self) -> Assignment:
        """Who serves which series: K clusters, then the global model."""
        served = self._serving()
        n_series = len(served.labels)
        if served.report.chosen == "local":
            own = np.where(served.fallback, n_series, np.arange(n_series))
            return Assignment.from_labels(own, n_specialists=n_series + 1)
        specialized = (served.report.chosen == "clustered") & ~served.fallback
        labels = np.where(specialized, served.labels, served.n_clusters)
        return Assignment.from_labels(labels, n_specialists=served.n_clusters + 1)

    @property
    def partition_(self) -> NDArray[np.intp]:
        """(N,) cluster of each series, adopted or not; K for series outside the partition."""
        return self._serving().labels

    @property
    def ids_(self) -> NDArray[Any]:
        """(N,) series names."""
        return self._serving().panel.ids

    @property
    def decision_(self) -> Decision:
        """The decision behind the choice."""
        return self._serving().report.decision

    @property
    def gate_report_(self) -> GateReport:
        """What the gate saw and did."""
        return self._serving().report

    @property
    def loss_matrix_(self) -> Floats:
        """(N, K + 1) mean VAL losses, global last."""
        return self._serving().loss_matrix

    @property
    def candidates_(self) -> dict[str, Candidate]:
        """Every candidate, judged alike."""
        return dict(self._serving().candidates)

    @property
    def coverage_(self) -> tuple[tuple[int, float, float, int], ...]:
        """Rows (cluster, level, share of held-out values inside, values)."""
        calibration = self._serving().calibration
        return () if calibration is None else calibration.coverage

    def describe(self) -> tuple[ClusterDescription, ...]:
        """The clusters that were found, in numbers and words, whether they were adopted or not."""
        self._serving()
        if not hasattr(self, "fitted_"):
            raise InputError(
                "a loaded forecaster keeps no training data to describe clusters by",
                expected="a forecaster fitted in this session",
                got="one read by load",
                next_step="Call fit again, or describe before save.",
            )
        return describe_fitted(self)

    def _known(self, panel: Panel) -> Known:
        """Exogenous columns are scaled by what TRAIN shows."""
        train = slice(0, val_start(panel.n_steps, self.val_size))
        flat = np.empty((0, len(panel.exog_names)))
        if panel.exog_names:  # even without columns the mask costs 16 bytes a cell
            flat = panel.exog[:, train][~np.isnan(panel.values[:, train])]
        spread = flat.std(axis=0) if len(flat) else np.zeros(len(panel.exog_names))
        return Known(
            calendar=tuple(self.calendar),
            exog_center=flat.mean(axis=0) if len(flat) else np.zeros(len(panel.exog_names)),
            exog_scale=np.where(spread > 0, spread, 1.0),
        )

    def _data(self, panel: Panel, known: Known) -> Data:
        return Data(
            values=panel.values,
            first=panel.first.astype(np.intp),
            stop=panel.stop.astype(np.intp),
            common=known.common(panel.stamps),
            own=known.own(panel.exog),
            lags=lags_of(self),
            season_length=self.season_length,
        )

    def _served(self, panel: Panel, known: Known, fitted: Fitted) -> Served:
        return Served(
            panel=panel,
            lags=lags_of(self),
            season_length=self.season_length,
            known=known,
            scaling=fitted.final_scaling,
            models=fitted.final,
            labels=fitted.groups,
            n_clusters=fitted.n_clusters,
            fallback=fitted.fallback,
            report=fitted.report,
            candidates=fitted.candidates,
            loss_matrix=fitted.loss_matrix,
            calibration=fitted.calibration,
            levels=loss_of(self).quantiles,
        )

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

    def _read_new(self, df: Any) -> Panel:
        """A panel of other series with the columns that were fitted."""
        panel, fitted = self._read(df), self._serving().panel
        if panel.exog_names != fitted.exog_names:
            raise InputError(
                "new series need the exogenous columns that were fitted",
                expected=", ".join(fitted.exog_names) or "none",
                got=", ".join(panel.exog_names) or "none",
                next_step="Pass the same columns, in the same order.",
            )
        return panel

    def _serve_new(self, new_df: Any) -> Served:
        served, panel = self._serving(), self._read_new(new_df)
        labels = assign_new(
            served, panel, loss=loss_of(self), se=self.se, alpha=self.alpha, scaling=self.scaling
        ).labels
        return serve_new(served, panel, labels, scaling=self.scaling)

    def _min_length(self) -> int:
        """Stamps a series needs: its lags, one TRAIN row and the horizon."""
        return max(lags_of(self)) + positive_int("horizon", self.horizon) + 1

    def _check(self) -> None:
        """Refuse wrong parameters before any data is read; draws nothing from a Generator."""
        lags_of(self)
        pipeline_of(self, n_series=1, seed=check_rng(self.rng), report=_silent)

    def _steps(self, h: int | None) -> int:
        steps = positive_int("h", self.horizon if h is None else h)
        if self.strategy == "direct" and steps > self.horizon:
            raise InputError(
                "direct models forecast as many steps as they were fitted for",
                expected=f"h of at most {self.horizon}",
                got=f"h={steps}",
                next_step=f"Fit with horizon={steps}, or strategy='recursive'.",
            )
        return steps

    def _serving(self) -> Served:
        if not hasattr(self, "served_"):
            raise InputError(
                "this forecaster has not been fitted",
                expected="fit(df) first",
                got="an unfitted ClusterForecaster",
                next_step="Call fit with a long frame.",
            )
        return self.served_

    def _warn_of_fallbacks(self) -> None:
        fitted = self.fitted_
        if fitted.still.any():
            names = named(self.panel_.ids, fitted.still)
            warnings.warn(f"{names} hardly vary in TRAIN; the global model serves them.", stacklevel=3)
        silent = ~fitted.active & ~fitted.still
        if silent.any():
            names = named(self.panel_.ids, silent)
            warnings.warn(
                f"{names} have no TRAIN or no VAL rows; the global model serves them.", stacklevel=3
            )


def _silent(stage: str, done: int, total: int) -> None:
    """Report nothing."""
