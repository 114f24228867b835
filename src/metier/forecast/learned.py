"""Heavier base models on the partition that the ridge path chose: one fitted learner per cluster and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metier.core import derive_seed
from metier.forecast.base_model import FittedLearner, Learner
from metier.forecast.design import Design, Index
from metier.forecast.folds import Span
from metier.forecast.models import Division
from metier.forecast.rollout import recursive_rollout
from metier.forecast.scaling import Scaling

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TargetScale:
    """From the standardized scale of the engine to the scale a learner wants, and back.

    Args:
        standard: the engine's scaling.
        learner: the learner's scaling of the same series.
    """

    standard: Scaling
    learner: Scaling

    def design(self, design: Design, series: Index) -> Design:
        """The series' design with values on the learner's scale; unobserved values stay zero."""
        part = design.take(series)
        t = np.arange(part.n_steps)
        observed = (t >= part.first[:, None]) & (t < part.stop[:, None])
        raw = self.standard.invert(np.asarray(part.values, dtype=np.float64), series)
        scaled = (raw - self.learner.center[series][:, None]) / self.learner.scale[series][:, None]
        return replace(part, values=np.where(observed, scaled, 0.0))

    def back(self, forecast: Floats, series: Index) -> Floats:
        """(n, ...) forecasts on the learner's scale to the standardized one."""
        shape = (-1,) + (1,) * (forecast.ndim - 1)
        center, scale = (
            self.standard.center[series].reshape(shape),
            self.standard.scale[series].reshape(shape),
        )
        return np.asarray((self.learner.invert(forecast, series) - center) / scale)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LearnedModel:
    """Fitted learners shared by groups of series.

    Attributes:
        learners: one row per cluster: a single learner, or one per step for a direct model.
        labels: (N,) cluster of each series.
        scale: the learner's target scale.
    """

    learners: tuple[tuple[FittedLearner, ...], ...]
    labels: NDArray[np.integer]
    scale: TargetScale

    def forecast(self, design: Design, series: Index, start: int, stop: int, *, steps: int) -> list[Floats]:
        """See `PanelModel`."""
        return self._each(design, series, start, stop, steps, quantile=False)

    def quantiles(self, design: Design, series: Index, start: int, stop: int, *, steps: int) -> list[Floats]:
        """Quantile forecasts (n, origins, Q) per step; recursions feed the point forecast."""
        return self._each(design, series, start, stop, steps, quantile=True)

    def offsets_for(self, series: Index) -> Floats | None:
        """None: learners bring their own quantiles."""
        return None

    def _each(
        self, design: Design, series: Index, start: int, stop: int, steps: int, quantile: bool
    ) -> list[Floats]:
        index = np.arange(design.n_series)[series]
        n_levels = len(self.learners[0][0].quantiles)
        shape = (len(index), stop - start, n_levels) if quantile else (len(index), stop - start)
        out = [np.empty(shape) for _ in range(steps)]
        for k in np.unique(self.labels[index]):
            place = np.flatnonzero(self.labels[index] == k)
            own = self.scale.design(design, index[place])
            for h, forecast in enumerate(self._cluster(own, self.learners[k], start, stop, steps, quantile)):
                out[h][place] = self.scale.back(forecast, index[place])
        return out

    def _cluster(
        self,
        design: Design,
        learners: Sequence[FittedLearner],
        start: int,
        stop: int,
        steps: int,
        quantile: bool,
    ) -> list[Floats]:
        levels: list[Floats] = []

        def predict(X: Floats, h: int) -> Floats:
            learner = learners[min(h - 1, len(learners) - 1)]
            flat = X.reshape(-1, X.shape[-1])
            if quantile:
                levels.append(learner.predict_quantiles(flat).reshape(*X.shape[:2], -1))
            return learner.predict(flat).reshape(X.shape[:2])

        everyone = slice(None)
        if len(learners) == 1:
            points = recursive_rollout(design, everyone, start, stop, steps=steps, predict=predict)
        else:
            points = [
                predict(design.at_horizon(h).rows(everyone, start + h - 1, stop + h - 1)[0], h)
                for h in range(1, steps + 1)
            ]
        return levels if quantile else points


def fit_learned(
    learner: Learner,
    design: Design,
    spans: Sequence[Span],
    division: Division,
    *,
    scale: TargetScale,
    steps: int,
    active: NDArray[np.bool_],
    rng: int,
) -> LearnedModel:
    """Fit one learner per cluster (and per step, if `steps` > 1 asks for direct models) on the rows of `spans`.

    A cluster without active series is an error of the caller: partitions have no empty cluster.
    """
    fitted = []
    for k in range(division.n_clusters):
        members = np.flatnonzero((division.labels == k) & active)
        own = scale.design(design, members)
        row = []
        for h in range(1, steps + 1):
            X, y = _stacked_rows(own.at_horizon(h) if steps > 1 else own, spans)
            row.append(learner.fit(X, y, rng=derive_seed(rng, "learner", k, h)))
        fitted.append(tuple(row))
    return LearnedModel(learners=tuple(fitted), labels=division.labels, scale=scale)


def _stacked_rows(design: Design, spans: Sequence[Span]) -> tuple[Floats, Floats]:
    X, y = [], []
    for start, stop in spans:
        rows, targets, valid = design.rows(slice(None), start, stop)
        X.append(rows[valid])
        y.append(targets[valid])
    return np.concatenate(X), np.concatenate(y)
