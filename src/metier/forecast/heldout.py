"""Losses on the held-out blocks: every candidate on the same origins, none of which it was assigned on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.forecast.design import Design
from metier.forecast.folds import Span
from metier.forecast.gram import chunks
from metier.forecast.losses import ForecastLoss
from metier.forecast.models import LinearModel, PanelModel
from metier.forecast.rollout import linear_rollout, origin_valid, targets
from metier.forecast.threads import over_blocks, single_threaded_blas

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
    names = tuple(models[0])
    parts: list[tuple[NDArray[np.intp], Floats, Floats]] = []
    series_sum, series_count = np.zeros((design.n_series, len(names))), np.zeros(design.n_series)
    with single_threaded_blas():
        for (start, stop), fold in zip(blocks, models, strict=True):
            last = stop - steps + 1
            size = max(1, min(2048, MAX_BYTES // (8 * (last - start) * (design.n_features + len(names)))))

            def score(
                part: slice, span: Span = (start, last), fold: Mapping[str, PanelModel] = fold
            ) -> _Sums:
                return _score(design, part, span, fold, loss, steps, active, groups, n_groups)

            totals = over_blocks(score, chunks(design.n_series, size))
            for part, sums in zip(chunks(design.n_series, size), totals, strict=True):
                series_sum[part] += sums.by_series
                series_count[part] += sums.series_rows
            group_sum = np.sum([sums.by_group for sums in totals], axis=0)
            group_rows = np.sum([sums.group_rows for sums in totals], axis=0)
            parts.append((np.arange(start, last), group_sum, group_rows))
    times, sums, rows = (np.concatenate([p[i] for p in parts]) for i in range(3))
    seen = rows.sum(axis=1) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return HeldOut(
            names=names,
            times=times[seen],
            by_time=(sums.sum(axis=1) / rows.sum(axis=1)[:, None])[seen],
            by_series=series_sum / series_count[:, None],
            by_group=(sums[:, 1:] / rows[:, 1:, None])[seen],
            n_series=rows.sum(axis=1)[seen].astype(np.int64),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Sums:
    """Loss sums of some series: by series (n, M), by origin and group (O, 1 + K, M); column 0 is no group."""

    by_series: Floats
    series_rows: Floats
    by_group: Floats
    group_rows: Floats


def _score(
    design: Design,
    part: slice,
    span: Span,
    fold: Mapping[str, PanelModel],
    loss: ForecastLoss,
    steps: int,
    active: NDArray[np.bool_],
    groups: NDArray[np.integer],
    n_groups: int,
) -> _Sums:
    start, stop = span
    valid = origin_valid(design, part, start, stop, step=steps) & active[part][:, None]
    offsets = [model.offsets_for(part) for model in fold.values()]
    stacked = (
        None if offsets[0] is None else np.stack([o for o in offsets if o is not None], axis=-1)[:, :, None]
    )
    total = np.zeros((*valid.shape, len(fold)))
    for h, forecasts in enumerate(_forecasts(design, part, span, fold, steps), start=1):
        residual = targets(design, part, start, stop, step=h)[:, :, None] - forecasts
        total += loss(residual, stacked) / steps
    total *= valid[:, :, None]
    member = np.zeros((part.stop - part.start, n_groups + 1))
    member[np.arange(part.stop - part.start), np.maximum(groups[part], -1) + 1] = 1.0
    return _Sums(
        by_series=total.sum(axis=1),
        series_rows=valid.sum(axis=1).astype(np.float64),
        by_group=np.einsum("nom,nk->okm", total, member),
        group_rows=np.einsum("no,nk->ok", valid.astype(np.float64), member),
    )


def _forecasts(
    design: Design, part: slice, span: Span, fold: Mapping[str, PanelModel], steps: int
) -> list[Floats]:
    """Forecasts (n, origins, M) per step; linear models share their feature rows."""
    models = list(fold.values())
    linear = [i for i, model in enumerate(models) if isinstance(model, LinearModel)]
    out = [np.empty((part.stop - part.start, span[1] - span[0], len(models))) for _ in range(steps)]
    if linear:
        per_model = [models[i].coefficients(part) for i in linear]  # type: ignore[attr-defined]
        theta = [np.stack(step, axis=-1) for step in zip(*per_model, strict=True)]
        for h, forecast in enumerate(linear_rollout(design, part, *span, steps=steps, theta=theta)):
            out[h][:, :, linear] = forecast
    for i, model in enumerate(models):
        if i not in linear:
            for h, forecast in enumerate(model.forecast(design, part, *span, steps=steps)):
                out[h][:, :, i] = forecast
    return out
