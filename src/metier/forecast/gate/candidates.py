"""Fit every candidate on the same rows: global, local, the clusters, and the two divisions they must beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metier.forecast.partition.clustering import Partition
from metier.forecast.partition.search import Found, Search
from metier.forecast.regression.base_model import Learner
from metier.forecast.regression.design import Design, Index
from metier.forecast.regression.gram import GramTable
from metier.forecast.regression.learned import LearnedModel, TargetScale, fit_learned
from metier.forecast.regression.models import Division, LinearModel, PanelModel, fit_linear
from metier.forecast.regression.scaling import Scaling, fit_scaling

Floats = NDArray[np.float64]
Report = Callable[[str, int, int], None]
Candidates = dict[str, PanelModel]

DIVIDED = ("clustered", "feature", "random")
CANDIDATES = ("global", "local", *DIVIDED)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Data:
    """A panel in target units with its features: values (N, T), NaN where not observed."""

    values: Floats
    first: NDArray[np.intp]
    stop: NDArray[np.intp]
    common: Floats
    own: Floats | None
    lags: tuple[int, ...]
    season_length: int | None

    def design(self, scaling: Scaling) -> Design:
        """The regression rows on the standardized scale."""
        return Design(
            values=scaling.apply(self.values),
            first=self.first,
            stop=self.stop,
            lags=self.lags,
            season_length=self.season_length,
            common=self.common,
            own=self.own,
        )


def divisions_of(found: Found, partition: Partition) -> list[Division]:
    """The partition, then as many clusters by features and at random."""
    k = partition.n_clusters
    return [
        Division(labels=labels, n_clusters=k, shrinkage=partition.key.shrinkage)
        for labels in (partition.labels, *found.baselines[k])
    ]


def without_empty(division: Division, active: NDArray[np.bool_]) -> Division:
    """The division without clusters that have no usable series left."""
    used, labels = np.unique(division.labels[active], return_inverse=True)
    if len(used) == division.n_clusters:
        return division
    renamed = np.zeros_like(division.labels)
    renamed[active] = labels
    return replace(division, labels=renamed, n_clusters=max(len(used), 1))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CandidateFitter:
    """Fits candidates on the first window of a table.

    Args:
        search: loss, penalty and seed.
        learner: heavier base model of the global model and of the divisions, or None for ridge; local
            models are always ridge.
        steps: forecast horizon.
        direct: one model per step.
        scaling: kind of the engine's scaling.
        backend: where the sums of direct models are built.
    """

    search: Search
    learner: Learner | None
    steps: int
    direct: bool
    scaling: str
    backend: str
    report: Report

    def fit(
        self, table: GramTable, data: Data, scaling: Scaling, divisions: Sequence[Division], *, stop: int
    ) -> Candidates:
        """Candidates by name, on the rows of the table's first window.

        Args:
            divisions: the clusters and, after them, the divisions they must beat; or none.
            stop: end of the values that may set scales.
        """
        base, local, models = fit_linear(self.search, self._tables(table), divisions)
        divided: list[PanelModel] = list(models)
        everyone: PanelModel = base
        if self.learner is not None and table.active.any():
            everyone, *divided = self._learn(table, data, scaling, divisions, stop)
        return {"global": everyone, "local": local, **dict(zip(DIVIDED, divided, strict=False))}

    def _tables(self, table: GramTable) -> list[GramTable]:
        """The table, or one per step for direct models."""
        if not self.direct:
            return [table]
        return [table, *(self._step_table(table, step) for step in range(2, self.steps + 1))]

    def _step_table(self, table: GramTable, step: int) -> GramTable:
        design = table.design.at_horizon(step)
        window = tuple((max(start, design.max_lag), stop) for start, stop in table.windows[0])
        return GramTable.build(design, [window], active=table.active, backend=self.backend)

    def _learn(
        self, table: GramTable, data: Data, scaling: Scaling, divisions: Sequence[Division], stop: int
    ) -> Sequence[PanelModel]:
        if self.learner is None:
            return []
        kind = "mean" if self.learner.scale == "mean" else self.scaling
        scale = TargetScale(standard=scaling, learner=fit_scaling(data.values, stop, kind=kind), kind=kind)
        everyone = Division(labels=np.zeros(len(table.active), dtype=np.int16), n_clusters=1, shrinkage=0.0)
        return fit_learned(
            self.learner,
            table.design,
            table.windows[0],
            [everyone, *divisions],
            scale=scale,
            steps=self.steps if self.direct else 1,
            active=table.active,
            quantiles=self.search.loss.quantiles,
            rng=self.search.rng,
            report=self.report,
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RoutedModel:
    """A candidate, with the global model for the series that fall back.

    Attributes:
        fallback: (N,) series served by the global model.
    """

    primary: PanelModel
    base: PanelModel
    fallback: NDArray[np.bool_]

    def forecast(self, design: Design, series: Index, start: int, stop: int, *, steps: int) -> list[Floats]:
        """See `PanelModel`."""
        index = np.arange(design.n_series)[series]
        back = self.fallback[index]
        if isinstance(self.primary, LinearModel) and not back.any():
            return self.primary.forecast(design, series, start, stop, steps=steps)
        out = [np.empty((len(index), stop - start)) for _ in range(steps)]
        for mask, model in ((~back, self.primary), (back, self.base)):
            if mask.any():
                for h, part in enumerate(model.forecast(design, index[mask], start, stop, steps=steps)):
                    out[h][mask] = part
        return out

    @property
    def has_quantiles(self) -> bool:
        """Whether the base models forecast quantiles themselves."""
        return brings_quantiles(self.primary) and brings_quantiles(self.base)

    def quantiles(self, design: Design, series: Index, start: int, stop: int, *, steps: int) -> list[Floats]:
        """Quantile forecasts (n, origins, Q) per step, where `has_quantiles`."""
        index = np.arange(design.n_series)[series]
        back = self.fallback[index]
        out: list[Floats] = []
        for mask, model in ((~back, self.primary), (back, self.base)):
            if mask.any() and isinstance(model, LearnedModel):
                parts = model.quantiles(design, index[mask], start, stop, steps=steps)
                out = out or [np.empty((len(index), *part.shape[1:])) for part in parts]
                for h, part in enumerate(parts):
                    out[h][mask] = part
        return out

    def offsets_for(self, series: Index) -> Floats | None:
        """See `PanelModel`."""
        own, base = self.primary.offsets_for(series), self.base.offsets_for(series)
        if own is None or base is None:
            return None
        return np.where(self.fallback[series], base, own)


def brings_quantiles(model: PanelModel) -> bool:
    """Whether a model's base models forecast quantiles themselves."""
    return isinstance(model, LearnedModel | RoutedModel) and model.has_quantiles


def routed(candidates: Candidates, chosen: str, fallback: NDArray[np.bool_]) -> PanelModel:
    """A candidate by name, with the global model where series fall back."""
    if chosen == "global":
        return candidates["global"]
    return RoutedModel(primary=candidates[chosen], base=candidates["global"], fallback=fallback)
