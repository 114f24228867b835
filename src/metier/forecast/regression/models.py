"""Fitted forecasters of a whole panel: which model serves which series, and its forecasts from any origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metier.forecast.partition.criterion import Criterion, Models
from metier.forecast.partition.search import Search
from metier.forecast.partition.seeding import local_models, local_strength
from metier.forecast.partition.stack import RunKey, Stack
from metier.forecast.regression.design import Design, Index
from metier.forecast.regression.gram import GramTable, chunks
from metier.forecast.regression.ridge import LOCAL_SHARE
from metier.forecast.regression.rollout import linear_rollout

Floats = NDArray[np.float64]

MAX_BYTES = 64 * 2**20


class PanelModel(Protocol):
    """A forecaster of every series of a panel, on the standardized scale."""

    def forecast(self, design: Design, series: Index, start: int, stop: int, *, steps: int) -> list[Floats]:
        """Forecasts (n, stop - start) for steps 1..`steps` of each origin in [start, stop)."""

    def offsets_for(self, series: Index) -> Floats | None:
        """Residual quantiles (Q, n) of the series' models, where the loss needs them."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LinearModel:
    """Linear models shared by groups of series.

    Attributes:
        theta: one (K, d) array, or one per step for a direct model.
        labels: (N,) model of each series.
        offsets: (Q, K) quantiles of each model's TRAIN residuals, or None.
    """

    theta: tuple[Floats, ...]
    labels: NDArray[np.integer]
    offsets: Floats | None = None

    def coefficients(self, series: Index) -> list[Floats]:
        """(n, d) coefficients of each series, per step of a direct model."""
        return [theta[self.labels[series]] for theta in self.theta]

    def forecast(self, design: Design, series: Index, start: int, stop: int, *, steps: int) -> list[Floats]:
        """See `PanelModel`."""
        theta = [coefficients[:, :, None] for coefficients in self.coefficients(series)]
        return [f[:, :, 0] for f in linear_rollout(design, series, start, stop, steps=steps, theta=theta)]

    def offsets_for(self, series: Index) -> Floats | None:
        """See `PanelModel`."""
        return None if self.offsets is None else self.offsets[:, self.labels[series]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Division:
    """A partition to fit: labels (N,), the number of clusters, and their shrinkage to the global model."""

    labels: NDArray[np.integer]
    n_clusters: int
    shrinkage: float


def fit_linear(
    search: Search, tables: Sequence[GramTable], divisions: Sequence[Division]
) -> tuple[LinearModel, LinearModel, list[LinearModel]]:
    """The global model, the local models, and one model per division, on the tables' TRAIN rows.

    Args:
        tables: one table, or one per step for direct models; only their first window is read.
    """
    fitted = [_fit_step(search, table, divisions) for table in tables]
    n_series = tables[0].design.n_series
    base = LinearModel(
        theta=tuple(step[0].theta for step in fitted),
        labels=np.zeros(n_series, dtype=np.int16),
        offsets=fitted[0][0].offsets,
    )
    local_theta = tuple(step[1] for step in fitted)
    local = LinearModel(
        theta=local_theta,
        labels=np.arange(n_series),
        offsets=_local_offsets(search, tables[0], local_theta[0]),
    )
    models = [
        LinearModel(
            theta=tuple(step[2][i].theta for step in fitted),
            labels=division.labels,
            offsets=fitted[0][2][i].offsets,
        )
        for i, division in enumerate(divisions)
    ]
    return base, local, models


def _fit_step(
    search: Search, table: GramTable, divisions: Sequence[Division]
) -> tuple[Models, Floats, list[Models]]:
    criterion, base = search.criterion(table)
    strength = local_strength(table, table.design.n_features, share=LOCAL_SHARE)
    local = local_models(table, criterion.prior.theta, penalty=search.penalty, strength=strength)
    return base, local, _fit_divisions(criterion, divisions)


def _fit_divisions(criterion: Criterion, divisions: Sequence[Division]) -> list[Models]:
    if not divisions:
        return []
    keys = tuple(
        RunKey(window=i, n_clusters=d.n_clusters, start=0, shrinkage=d.shrinkage)
        for i, d in enumerate(divisions)
    )
    stack = Stack(keys=keys)
    labels = np.array([d.labels for d in divisions], dtype=np.int16)
    models = criterion.refit(stack, labels, None)
    return [models.take(np.arange(a, a + k)) for a, k in zip(stack.offsets, stack.sizes, strict=True)]


def _local_offsets(search: Search, table: GramTable, theta: Floats) -> Floats | None:
    """Quantiles of each series' own TRAIN residuals, (Q, N), for pinball losses; zero without any."""
    if search.loss.name != "pinball":
        return None
    n_rows = sum(stop - start for start, stop in table.windows[0])
    size = max(1, MAX_BYTES // (8 * max(n_rows, 1) * table.design.n_features))
    parts = [
        _own_quantiles(table, part, theta, search.loss.quantiles)
        for part in chunks(table.design.n_series, size)
    ]
    return np.concatenate(parts, axis=1)


def _own_quantiles(table: GramTable, part: slice, theta: Floats, levels: tuple[float, ...]) -> Floats:
    """(Q, n) residual quantiles of some series, each under its own model."""
    rows = [table.design.rows(part, start, stop) for start, stop in table.windows[0]]
    valid = np.concatenate([seen for _, _, seen in rows], axis=1)
    residual = np.concatenate([y - np.einsum("ntd,nd->nt", X, theta[part]) for X, y, _ in rows], axis=1)
    out = np.zeros((len(levels), len(valid)))
    whole = valid.all(axis=1) & (valid.shape[1] > 0)
    if whole.any():
        out[:, whole] = np.quantile(residual[whole], levels, axis=1)
    for i in np.flatnonzero(~whole & valid.any(axis=1)):
        out[:, i] = np.quantile(residual[i, valid[i]], levels)
    return out
