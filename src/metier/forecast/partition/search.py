"""Choose clusters, shrinkage and start inside every assignment window, cold, in one stacked search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metier.core import derive
from metier.forecast.partition.clustering import MAX_ITERATIONS, Partition, cluster
from metier.forecast.partition.criterion import (
    TRAIN,
    Criterion,
    GramCriterion,
    Models,
    Prior,
    RowCriterion,
    prior_from,
)
from metier.forecast.partition.seeding import (
    feature_clusters,
    local_models,
    local_strength,
    random_balanced,
    seed_chains,
)
from metier.forecast.partition.stack import Labels, RunKey, Stack
from metier.forecast.regression.gram import GramTable
from metier.forecast.regression.losses import ForecastLoss
from metier.forecast.regression.ridge import LOCAL_SHARE
from metier.forecast.regression.threads import single_threaded_blas

Floats = NDArray[np.float64]

CLUSTER_PRICE = 0.1
"""gamma: a partition pays gamma * K / N of the global loss for its K clusters (untuned)."""

MAX_SEARCH_SERIES = 20_000
"""Series beyond which clusters, shrinkage and start are chosen on a sample."""

AUTO_CLUSTERS = (2, 3, 4, 6, 8)
AUTO_SHRINKAGE = (0.0, 1.0, 4.0)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Found:
    """What a search leaves: the table, the shared prior, and the partition of every window.

    Attributes:
        base: global model (one column; with residual quantiles for pinball).
        local: (N, d) each series' own TRAIN model.
        partitions: the chosen run of each assignment window (all of VAL first), or None where the panel
            has too few series to divide.
        runs: every run of the search, over the sampled series where there is a sample.
        base_loss: (windows,) mean loss of the global model on each assignment window, of the same series.
        sample: (n,) series on which (K, g, start) were chosen, or None for all.
        baselines: number of clusters of a partition -> labels (N,) of as many clusters by features and at
            random; zero for inactive series.
    """

    search: Search
    table: GramTable
    criterion: Criterion
    prior: Prior
    base: Models
    local: Floats
    partitions: tuple[Partition | None, ...]
    runs: tuple[Partition, ...]
    base_loss: Floats
    sample: NDArray[np.intp] | None
    baselines: Mapping[int, tuple[Labels, Labels]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """The candidates of a clustering search and how they are judged.

    A panel of more than `max_search_series` series is searched on a sample of so many, drawn without a look
    at the values and shared by all windows; the chosen run of each window then continues on all series.

    Args:
        n_clusters: numbers of clusters K to try.
        shrinkage: pulls g to the global model to try, in average series.
        n_starts: starts per (K, g).
        random_starts: random labels instead of k-means++ on local models.
        loss: forecast loss of the assignment.
        horizons: steps whose recursive forecasts the assignment averages over.
        assign_on: "val", "train" or "both".
        penalty: ridge penalty lam on the standardized scale.
        rng: seed; every window, start and K draws from its own stream.
        max_search_series: series on which (K, g, start) are chosen.
    """

    n_clusters: tuple[int, ...]
    shrinkage: tuple[float, ...]
    n_starts: int = 3
    random_starts: bool = False
    loss: ForecastLoss
    horizons: tuple[int, ...] = (1,)
    assign_on: str = "val"
    penalty: float = 1.0
    rng: int = 0
    max_iterations: int = MAX_ITERATIONS
    max_search_series: int = MAX_SEARCH_SERIES

    def run(self, table: GramTable, *, progress: Callable[[int, int], None] | None = None) -> Found:
        """Search all windows of the table side by side; no window sees another's rows or state."""
        with single_threaded_blas():
            return self._run(table, progress)

    def _run(self, table: GramTable, progress: Callable[[int, int], None] | None) -> Found:
        criterion, base = self.criterion(table)
        prior = criterion.prior
        strength = local_strength(table, table.design.n_features, share=LOCAL_SHARE)
        local = local_models(table, prior.theta, penalty=self.penalty, strength=strength)
        n_windows = len(table.windows) - 1
        sample = self._sample(table)
        part, part_local = (table, local) if sample is None else (table.take(sample), local[sample])
        searched = criterion if sample is None else self._criterion(part, prior)
        keys = self._keys(n_windows, part.n_active)
        base_loss = _base_losses(searched, base, n_windows, part.n_active)
        runs = self._run_all(searched, keys, base, part_local, progress) if keys else []
        chosen = [
            _choose([p for p in runs if p.key.window == w], float(base_loss[w]), part.n_active)
            for w in range(n_windows)
        ]
        if sample is not None and keys:
            chosen = self._continued(criterion, [p for p in chosen if p is not None], progress)
        return Found(
            search=self,
            table=table,
            criterion=criterion,
            prior=prior,
            base=base,
            local=local,
            partitions=tuple(chosen),
            runs=tuple(runs),
            base_loss=base_loss,
            sample=sample,
            baselines={p.n_clusters: self._baselines(table, local, p.n_clusters) for p in chosen if p},
        )

    def _sample(self, table: GramTable) -> NDArray[np.intp] | None:
        if table.n_active <= self.max_search_series:
            return None
        stream = derive(self.rng, "search series")
        drawn = stream.choice(np.flatnonzero(table.active), size=self.max_search_series, replace=False)
        return np.sort(drawn).astype(np.intp)

    def _continued(
        self,
        criterion: GramCriterion | RowCriterion,
        chosen: list[Partition],
        progress: Callable[[int, int], None] | None,
    ) -> list[Partition | None]:
        """The chosen run of every window, continued from its models on all series while J falls."""
        theta = np.concatenate([p.theta for p in chosen])
        offsets = [p.offsets for p in chosen if p.offsets is not None]
        seeds = Models(
            theta=theta,
            offsets=np.concatenate(offsets, axis=1) if offsets else None,
            empty=np.zeros(len(theta), dtype=bool),
        )
        return list(
            cluster(
                criterion,
                [replace(p.key, n_clusters=p.n_clusters) for p in chosen],
                seeds=seeds,
                active=criterion.table.active,
                max_iterations=self.max_iterations,
                patience=2,
                progress=progress,
            )
        )

    def _baselines(self, table: GramTable, local: Floats, n_clusters: int) -> tuple[Labels, Labels]:
        active = table.active
        feature, random = (np.zeros(len(active), dtype=np.int16) for _ in range(2))
        n_lags = len(table.design.lags)
        feature[active] = feature_clusters(local[active], n_lags, n_clusters=n_clusters, rng=self.rng)
        random[active] = random_balanced(table.n_active, n_clusters=n_clusters, rng=self.rng)
        return feature, random

    def criterion(self, table: GramTable) -> tuple[GramCriterion | RowCriterion, Models]:
        """The criterion of this loss and the global model under it."""
        prior = prior_from(table, penalty=self.penalty)
        criterion = self._criterion(table, prior)
        if isinstance(criterion, GramCriterion):
            return criterion, Models(theta=prior.theta[None], offsets=None, empty=np.zeros(1, dtype=bool))
        one = Stack(keys=(RunKey(window=0, n_clusters=1, start=0, shrinkage=0.0),))
        base = criterion.refit(one, np.zeros((1, table.design.n_series), dtype=np.int16), None)
        return self._criterion(table, replace(prior, theta=base.theta[0])), base

    def _criterion(self, table: GramTable, prior: Prior) -> GramCriterion | RowCriterion:
        if self.loss.from_sums and self.horizons == (1,):
            return GramCriterion(table=table, prior=prior, assign_on=self.assign_on)
        return RowCriterion(
            table=table, prior=prior, loss=self.loss, horizons=self.horizons, assign_on=self.assign_on
        )

    def _keys(self, n_windows: int, n_active: int) -> list[RunKey]:
        return sorted(
            RunKey(window=w, n_clusters=k, start=s, shrinkage=g)
            for w in range(n_windows)
            for k in sorted({min(k, n_active) for k in self.n_clusters})
            if k > 0
            for s in range(self.n_starts)
            for g in self.shrinkage
        )

    def _run_all(
        self,
        criterion: Criterion,
        keys: list[RunKey],
        base: Models,
        local: Floats,
        progress: Callable[[int, int], None] | None,
    ) -> list[Partition]:
        table: GramTable = criterion.table  # type: ignore[attr-defined]
        labels: Labels | None = None
        seeds: Models | None = None
        if self.random_starts:
            labels = self._random_labels(keys, len(local))
        else:
            seeds = self._seed_models(table, keys, base, local)
        return cluster(
            criterion,
            keys,
            seeds=seeds,
            labels=labels,
            active=table.active,
            max_iterations=self.max_iterations,
            progress=progress,
        )

    def _seed_models(self, table: GramTable, keys: list[RunKey], base: Models, local: Floats) -> Models:
        """Local models of the seed series start the clusters; runs of one (window, start) share a chain."""
        chains = sorted({(key.window, key.start) for key in keys})
        rngs = [derive(self.rng, "seeds", window, start) for window, start in chains]
        seeds = seed_chains(table, local, rngs=rngs, length=max(self.n_clusters))
        place = {chain: i for i, chain in enumerate(chains)}
        chosen = np.concatenate([seeds[place[key.window, key.start], : key.n_clusters] for key in keys])
        offsets = None if base.offsets is None else np.repeat(base.offsets, len(chosen), axis=1)
        return Models(theta=local[chosen], offsets=offsets, empty=np.zeros(len(chosen), dtype=bool))

    def _random_labels(self, keys: list[RunKey], n_series: int) -> Labels:
        rows = [
            derive(self.rng, "labels", key.window, key.start, key.n_clusters).integers(
                key.n_clusters, size=n_series
            )
            for key in keys
        ]
        return np.array(rows, dtype=np.int16)


def refit_partition(
    criterion: Criterion, labels: Labels, *, n_clusters: int, shrinkage: float, window: int = 0
) -> Models:
    """TRAIN models of a given partition."""
    stack = Stack(keys=(RunKey(window=window, n_clusters=n_clusters, start=0, shrinkage=shrinkage),))
    return criterion.refit(stack, labels[None], None)


def mean_losses(criterion: Criterion, models: Models, *, window: int) -> Floats:
    """(columns, N) mean loss of every series under every model on one assignment window."""
    stack = Stack(keys=(RunKey(window=window, n_clusters=len(models.theta), start=0, shrinkage=0.0),))
    return np.concatenate(criterion.score(stack, models, None, lambda _, losses: losses), axis=1)


def _base_losses(criterion: Criterion, base: Models, n_windows: int, n_active: int) -> Floats:
    """(windows,) mean loss of the global model over the active series; the others add nothing."""
    keys = tuple(RunKey(window=w, n_clusters=1, start=0, shrinkage=0.0) for w in range(n_windows))
    models = base.take(np.zeros(n_windows, dtype=np.intp))
    sums = criterion.score(Stack(keys=keys), models, None, lambda _, losses: losses.sum(axis=1))
    return np.asarray(np.sum(sums, axis=0) / max(n_active, 1))


def _choose(runs: list[Partition], base_loss: float, n_series: int) -> Partition | None:
    """The run with the least J / J_global + gamma K / N; ties go to fewer clusters, then the earlier run."""
    if not runs:
        return None

    def price(run: Partition) -> tuple[float, int, RunKey]:
        relative = run.objective / base_loss if base_loss > 0 else run.objective
        return relative + CLUSTER_PRICE * run.n_clusters / n_series, run.n_clusters, run.key

    return min(runs, key=price)


__all__ = [
    "AUTO_CLUSTERS",
    "AUTO_SHRINKAGE",
    "TRAIN",
    "Found",
    "Search",
    "mean_losses",
    "refit_partition",
]
