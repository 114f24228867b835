"""Heavier base models on the partition that the ridge path chose: one fitted learner per cluster and step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metier.core import derive_seed
from metier.forecast.gate.folds import Span
from metier.forecast.regression.base_model import FittedLearner, Learner
from metier.forecast.regression.design import Design, Index
from metier.forecast.regression.models import Division
from metier.forecast.regression.rollout import recursive_rollout
from metier.forecast.regression.scaling import Scaling
from metier.forecast.regression.threads import over_blocks, single_threaded

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TargetScale:
    """From the standardized scale of the engine to the scale a learner wants, and back.

    Args:
        standard: the engine's scaling.
        learner: the learner's scaling of the same series.
        kind: kind of the learner's scaling.
    """

    standard: Scaling
    learner: Scaling
    kind: str

    def design(self, design: Design, series: Index) -> Design:
        """The series' design with values on the learner's scale; unobserved values stay zero."""
        part = design.take(series)
        t = np.arange(part.n_steps)
        observed = (t >= part.first[:, None]) & (t < part.stop[:, None])
        raw = self.standard.center[series][:, None] + self.standard.scale[series][:, None] * part.values
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
        offsets: (Q, K) quantiles of TRAIN residuals, where the loss needs quantiles that the learner
            does not bring itself.
    """

    learners: tuple[tuple[FittedLearner, ...], ...]
    labels: NDArray[np.integer]
    scale: TargetScale
    offsets: Floats | None = None

    @property
    def has_quantiles(self) -> bool:
        """Whether the learners forecast quantiles themselves."""
        return bool(self.learners[0][0].quantiles)

    def forecast(self, design: Design, series: Index, start: int, stop: int, *, steps: int) -> list[Floats]:
        """See `PanelModel`."""
        return self._each(design, series, start, stop, steps, quantile=False)

    def quantiles(self, design: Design, series: Index, start: int, stop: int, *, steps: int) -> list[Floats]:
        """Quantile forecasts (n, origins, Q) per step; recursions feed the point forecast."""
        return self._each(design, series, start, stop, steps, quantile=True)

    def offsets_for(self, series: Index) -> Floats | None:
        """See `PanelModel`."""
        return None if self.offsets is None else self.offsets[:, self.labels[series]]

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
    divisions: Sequence[Division],
    *,
    scale: TargetScale,
    steps: int,
    active: NDArray[np.bool_],
    quantiles: Sequence[float] = (),
    rng: int,
    report: Callable[[str, int, int], None],
) -> list[LearnedModel]:
    """Fit one learner per cluster of every division, on the rows of `spans`; over threads.

    Equal divisions (the folds often agree) are fitted once.

    Args:
        divisions: partitions without empty clusters.
        steps: direct models to fit per cluster, 1 for a recursive one.
        quantiles: levels that the loss needs; where the learner has none of its own, those of its
            residuals on `spans` stand in.
        report: called as report(stage, done, total).
    """
    distinct = {division.labels.tobytes(): division for division in divisions}
    tasks = [
        (name, k, h)
        for name, division in distinct.items()
        for k in range(division.n_clusters)
        for h in range(1, steps + 1)
    ]
    done = itertools.count(1)

    def fit(task: tuple[bytes, int, int]) -> FittedLearner:
        name, k, h = task
        members = np.flatnonzero((distinct[name].labels == k) & active)
        own = scale.design(design, members)
        X, y = _stacked_rows(own.at_horizon(h) if steps > 1 else own, spans)
        with single_threaded():
            fitted = learner.fit(X, y, rng=derive_seed(rng, "learner", k, h))
        report("fitting base models", next(done), len(tasks))
        return fitted

    fitted = dict(zip(tasks, over_blocks(fit, tasks), strict=True))
    models = {}
    for name, division in distinct.items():
        rows = [[fitted[name, k, h] for h in range(1, steps + 1)] for k in range(division.n_clusters)]
        model = LearnedModel(learners=tuple(map(tuple, rows)), labels=division.labels, scale=scale)
        if quantiles and not model.has_quantiles:
            offsets = _residual_quantiles(model, design, spans, division, active, quantiles)
            model = replace(model, offsets=offsets)
        models[name] = model
    return [models[division.labels.tobytes()] for division in divisions]


def _residual_quantiles(
    model: LearnedModel,
    design: Design,
    spans: Sequence[Span],
    division: Division,
    active: NDArray[np.bool_],
    quantiles: Sequence[float],
) -> Floats:
    """(Q, K) quantiles of one-step residuals on the standardized scale."""
    out = np.empty((len(quantiles), division.n_clusters))
    for k in range(division.n_clusters):
        members = np.flatnonzero((division.labels == k) & active)
        parts = []
        for start, stop in spans:
            forecast = model.forecast(design, members, start, stop, steps=1)[0]
            _, y, valid = design.rows(members, start, stop)
            parts.append((y - forecast)[valid])
        out[:, k] = np.quantile(np.concatenate(parts), quantiles)
    return out


def _stacked_rows(design: Design, spans: Sequence[Span]) -> tuple[Floats, Floats]:
    X, y = [], []
    for start, stop in spans:
        rows, targets, valid = design.rows(slice(None), start, stop)
        X.append(rows[valid])
        y.append(targets[valid])
    return np.concatenate(X), np.concatenate(y)
