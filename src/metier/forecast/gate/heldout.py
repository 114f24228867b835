"""Losses on the held-out blocks: every candidate on the same origins, none of which it was assigned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.forecast.gate.folds import Span
from metier.forecast.regression.design import Design
from metier.forecast.regression.gram import chunks
from metier.forecast.regression.learned import LearnedModel
from metier.forecast.regression.losses import ForecastLoss
from metier.forecast.regression.models import LinearModel, PanelModel
from metier.forecast.regression.rollout import linear_rollout, origin_valid, targets
from metier.forecast.regression.threads import over_blocks, single_threaded_blas

Floats = NDArray[np.float64]

MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeldOut:
    """Losses of every candidate on held-out origins.

    Attributes:
        names: candidates, in the order of the last axis.
        times: (T,) origins, as indices of the time grid.
        by_time: (T, M) mean loss over the series observed at each origin.
        by_series: (N, M) mean loss over each series' origins; NaN where it has none.
        by_group: (T, K, M) mean loss over each group of series; NaN where a group has none.
        n_series: (T,) series behind each origin.
    """

    names: tuple[str, ...]
    times: NDArray[np.intp]
    by_time: Floats
    by_series: Floats
    by_group: Floats
    n_series: NDArray[np.int64]

    def of(self, name: str) -> Floats:
        """(T,) mean losses of one candidate."""
        return self.by_time[:, self.names.index(name)]


def held_out_losses(
    design: Design,
    blocks: Sequence[Span],
    models: Sequence[Mapping[str, PanelModel]],
    *,
    loss: ForecastLoss,
    steps: int,
    active: NDArray[np.bool_],
    groups: NDArray[np.integer],
    n_groups: int,
) -> HeldOut:
    """Score the models of each fold on its block, averaged over `steps` horizons whose targets lie inside.

    Args:
        models: per block, candidate name to model; the same names in every block.
        active: (N,) series that count.
        groups: (N,) group of each series, 0..n_groups-1 (negative: in none).
    """
    scorer = _Scorer(design=design, loss=loss, steps=steps, active=active, groups=groups, n_groups=n_groups)
    with single_threaded_blas():
        sums = [scorer.block(span, fold) for span, fold in zip(blocks, models, strict=True)]
    times = np.concatenate([np.arange(start, stop - steps + 1) for start, stop in blocks])
    totals = np.concatenate([block.by_group for block in sums])
    rows = np.concatenate([block.group_rows for block in sums])
    series_rows = np.sum([block.series_rows for block in sums], axis=0)
    seen = rows.sum(axis=1) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return HeldOut(
            names=tuple(models[0]),
            times=times[seen],
            by_time=(totals.sum(axis=1) / rows.sum(axis=1)[:, None])[seen],
            by_series=np.sum([block.by_series for block in sums], axis=0) / series_rows[:, None],
            by_group=(totals[:, 1:] / rows[:, 1:, None])[seen],
            n_series=rows.sum(axis=1)[seen].astype(np.int64),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sums:
    """Loss sums of some series: by series (n, M), by origin and group (O, 1 + K, M); column 0 is no group."""

    by_series: Floats
    series_rows: Floats
    by_group: Floats
    group_rows: Floats


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Scorer:
    """What stays the same over blocks and parts of the panel; see `held_out_losses`."""

    design: Design
    loss: ForecastLoss
    steps: int
    active: NDArray[np.bool_]
    groups: NDArray[np.integer]
    n_groups: int

    def block(self, span: Span, fold: Mapping[str, PanelModel]) -> _Sums:
        """All series on one block, part by part over threads."""
        start, stop = span[0], span[1] - self.steps + 1
        per_series = 8 * (stop - start) * (self.design.n_features + len(fold) * (1 + self.steps))
        size = max(1, min(2048, MAX_BYTES // per_series))
        parts = over_blocks(
            lambda part: self._part(part, (start, stop), fold), chunks(self.design.n_series, size)
        )
        return _Sums(
            by_series=np.concatenate([part.by_series for part in parts]),
            series_rows=np.concatenate([part.series_rows for part in parts]),
            by_group=np.sum([part.by_group for part in parts], axis=0),
            group_rows=np.sum([part.group_rows for part in parts], axis=0),
        )

    def _part(self, part: slice, origins: Span, fold: Mapping[str, PanelModel]) -> _Sums:
        valid = origin_valid(self.design, part, *origins, step=self.steps) & self.active[part][:, None]
        losses = self._losses(part, origins, list(fold.values())) * valid[:, :, None]
        member = np.zeros((part.stop - part.start, self.n_groups + 1))
        member[np.arange(len(member)), np.maximum(self.groups[part], -1) + 1] = 1.0
        return _Sums(
            by_series=losses.sum(axis=1),
            series_rows=valid.sum(axis=1).astype(np.float64),
            by_group=np.einsum("nom,nk->okm", losses, member),
            group_rows=np.einsum("no,nk->ok", valid.astype(np.float64), member),
        )

    def _losses(self, part: slice, origins: Span, models: list[PanelModel]) -> Floats:
        """(n, origins, M) loss, averaged over the steps; linear models share their feature rows."""
        out = np.zeros((part.stop - part.start, origins[1] - origins[0], len(models)))
        linear = {i: model for i, model in enumerate(models) if isinstance(model, LinearModel)}
        if linear:
            out[:, :, list(linear)] = self._linear_losses(part, origins, list(linear.values()))
        for i, model in enumerate(models):
            if i not in linear:
                out[:, :, i] = self._model_losses(part, origins, model)
        return out

    def _linear_losses(self, part: slice, origins: Span, models: list[LinearModel]) -> Floats:
        per_model = [model.coefficients(part) for model in models]
        theta = [np.stack(step, axis=-1) for step in zip(*per_model, strict=True)]
        forecasts = linear_rollout(self.design, part, *origins, steps=self.steps, theta=theta)
        offsets = [o for o in (model.offsets_for(part) for model in models) if o is not None]
        stacked = np.stack(offsets, axis=-1)[:, :, None] if offsets else None
        steps = [self._target(part, origins, h)[:, :, None] - f for h, f in enumerate(forecasts, start=1)]
        return np.asarray(np.mean([self.loss(residual, stacked) for residual in steps], axis=0))

    def _model_losses(self, part: slice, origins: Span, model: PanelModel) -> Floats:
        if isinstance(model, LearnedModel) and self.loss.name == "pinball" and model.has_quantiles:
            levels = model.quantiles(self.design, part, *origins, steps=self.steps)
            return np.asarray(
                np.mean(
                    [
                        self.loss.of_quantiles(self._target(part, origins, h), forecast)
                        for h, forecast in enumerate(levels, start=1)
                    ],
                    axis=0,
                )
            )
        forecasts = model.forecast(self.design, part, *origins, steps=self.steps)
        offsets = model.offsets_for(part)
        stacked = None if offsets is None else offsets[:, :, None]
        steps = [self._target(part, origins, h) - f for h, f in enumerate(forecasts, start=1)]
        return np.asarray(np.mean([self.loss(residual, stacked) for residual in steps], axis=0))

    def _target(self, part: slice, origins: Span, step: int) -> Floats:
        return targets(self.design, part, *origins, step=step)
