"""What a partition is judged by: refit the clusters on TRAIN, score every series under every cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from metier.forecast.gate.folds import Span
from metier.forecast.partition.stack import Labels, Stack
from metier.forecast.regression.gram import Block, GramTable, chunks, loss_coefficients, unpack
from metier.forecast.regression.losses import ForecastLoss
from metier.forecast.regression.ridge import leave_series_out, ridge, shrunk_ridge
from metier.forecast.regression.rollout import linear_rollout, origin_valid, targets
from metier.forecast.regression.threads import over_blocks

Floats = NDArray[np.float64]
Out = TypeVar("Out")
Visit: TypeAlias = Callable[[slice, Floats], Out]
TRAIN = 0
MAX_ROW_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Models:
    """The clusters of a stack: coefficients (columns, d), pinball offsets (Q, columns), empty columns."""

    theta: Floats
    offsets: Floats | None
    empty: NDArray[np.bool_]

    def take(self, columns: NDArray[np.intp]) -> Models:
        """Some of the columns."""
        offsets = None if self.offsets is None else self.offsets[:, columns]
        return Models(theta=self.theta[columns], offsets=offsets, empty=self.empty[columns])


class Criterion(Protocol):
    """Refit and score for one loss; see `GramCriterion` and `RowCriterion`."""

    def refit(self, stack: Stack, labels: Labels, previous: Models | None) -> Models:
        """Fit every cluster on the TRAIN rows of its series."""

    def score(self, stack: Stack, models: Models, labels: Labels | None, visit: Visit[Out]) -> list[Out]:
        """visit(series, losses) for blocks of mean losses (columns, n) on each run's assignment window.

        Losses of empty columns are inf. Blocks are visited over threads; results come in series order.
        """


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prior:
    """What the clusters share: the global model, the mean Gram, and the ridge penalty lam."""

    theta: Floats
    G_mean: Floats
    penalty: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GramCriterion:
    """Squared one-step loss from sums alone: two products an iteration, whatever the number of steps.

    Args:
        table: windows TRAIN, all of VAL, VAL without block 1, ...
        assign_on: "val", "train" (in-sample), or "both" (TRAIN with each series left out of its own
            cluster, plus VAL).
    """

    table: GramTable
    prior: Prior
    assign_on: str = "val"

    def refit(self, stack: Stack, labels: Labels, previous: Models | None) -> Models:
        """theta_k of every column from the one-hot product; columns without a series are empty."""
        sums = cluster_sums(self.table, stack, labels)
        return solve_clusters(sums, stack, labels, prior=self.prior, active=self.table.active)

    def score(self, stack: Stack, models: Models, labels: Labels | None, visit: Visit[Out]) -> list[Out]:
        """Mean squared losses on the assignment windows."""
        coefficients = loss_coefficients(models.theta)
        left_out = self._leave_out_context(stack, labels)

        def block_losses(block: Block) -> Out:
            losses = np.empty((stack.n_columns, block.rows.shape[1]))
            for window, _, columns in stack.windows():
                used = self._used(window)
                np.matmul(coefficients[columns], block.sums[used[0]], out=losses[columns])
                for other in used[1:]:
                    losses[columns] += coefficients[columns] @ block.sums[other]
            if labels is not None and left_out is not None:
                own = labels[:, block.series]
                self._replace_own(losses, coefficients, stack, own, block.sums[TRAIN], left_out)
            np.maximum(losses, 0.0, out=losses)
            for window, _, columns in stack.windows():
                losses[columns] /= np.maximum(block.rows[self._used(window)].sum(axis=0), 1)
            losses[models.empty] = np.inf
            return visit(block.series, losses)

        return self.table.map(
            block_losses, {w for window, _, _ in stack.windows() for w in self._used(window)}
        )

    def _used(self, window: int) -> list[int]:
        return {"val": [window + 1], "train": [TRAIN], "both": [TRAIN, window + 1]}[self.assign_on]

    def _leave_out_context(
        self, stack: Stack, labels: Labels | None
    ) -> tuple[Floats, NDArray[np.int64]] | None:
        if self.assign_on != "both" or labels is None:
            return None
        return cluster_sums(self.table, stack, labels), stack.counts(labels, self.table.active)

    def _replace_own(
        self,
        losses: Floats,
        coefficients: Floats,
        stack: Stack,
        labels: Labels,
        train: Floats,
        context: tuple[Floats, NDArray[np.int64]],
    ) -> None:
        """Put the leave-series-out TRAIN loss where a series meets its own cluster."""
        sums, counts = context
        n_features = self.prior.theta.shape[0]
        G, b, _ = unpack(sums, n_features)
        for run, offset in enumerate(stack.offsets):
            own = offset + labels[run]
            theta = leave_series_out(
                G[own],
                b[own],
                train,
                G_mean=self.prior.G_mean,
                theta_global=self.prior.theta,
                shrinkage=stack.keys[run].shrinkage,
                penalty=self.prior.penalty,
                members=counts[own],
            )
            place = (own, np.arange(len(own)))
            in_sample = np.einsum("np,pn->n", coefficients[own], train)
            losses[place] += np.einsum("np,pn->n", loss_coefficients(theta), train) - in_sample


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RowCriterion:
    """Huber and pinball losses, and recursive horizons: costs need residuals, O(N T d K) in chunks.

    Args:
        horizons: steps over whose recursive forecasts the loss is averaged.
        tolerance: largest relative change of a Huber coefficient at which its fit stops.
    """

    table: GramTable
    prior: Prior
    loss: ForecastLoss
    horizons: tuple[int, ...] = (1,)
    assign_on: str = "val"
    tolerance: float = 1e-8
    max_steps: int = 200

    def refit(self, stack: Stack, labels: Labels, previous: Models | None) -> Models:
        """Ridge from sums, then the Huber fixed point or the quantiles of the residuals."""
        sums = cluster_sums(self.table, stack, labels)
        models = solve_clusters(sums, stack, labels, prior=self.prior, active=self.table.active)
        if self.loss.name == "huber":
            start = (
                models.theta
                if previous is None
                else np.where((models.empty | previous.empty)[:, None], models.theta, previous.theta)
            )
            theta = self._huber(start, sums, stack, labels)
            return replace(models, theta=theta)
        if self.loss.name == "pinball":
            return replace(models, offsets=self._residual_quantiles(models.theta, stack, labels))
        return models

    def score(self, stack: Stack, models: Models, labels: Labels | None, visit: Visit[Out]) -> list[Out]:
        """Mean losses on the assignment windows."""

        def part_losses(part: slice) -> Out:
            losses = np.empty((stack.n_columns, part.stop - part.start))
            for window, _, columns in stack.windows():
                losses[columns] = self._mean_loss(part, self._spans(window), models, columns)
            losses[models.empty] = np.inf
            losses[:, ~self.table.active[part]] = 0.0
            return visit(part, losses)

        return over_blocks(part_losses, self._parts(max(stack.n_columns, 1)))

    def _spans(self, window: int) -> tuple[Span, ...]:
        train, val = self.table.windows[TRAIN], self.table.windows[window + 1]
        return {"val": val, "train": train, "both": train + val}[self.assign_on]

    def _mean_loss(self, part: slice, spans: tuple[Span, ...], models: Models, columns: slice) -> Floats:
        design, reach = self.table.design, max(self.horizons)
        theta = models.theta[columns].T[None]
        total = np.zeros((theta.shape[2], part.stop - part.start))
        count = np.zeros(part.stop - part.start)
        offsets = None if models.offsets is None else models.offsets[:, None, None, columns]
        for start, stop in spans:
            last = stop - reach + 1
            if last <= start:
                continue
            forecasts = linear_rollout(design, part, start, last, steps=reach, theta=[theta])
            for h in self.horizons:
                valid = origin_valid(design, part, start, last, step=h)
                residual = targets(design, part, start, last, step=h)[:, :, None] - forecasts[h - 1]
                total += np.einsum("nom,no->mn", self.loss(residual, offsets), valid)
                count += valid.sum(axis=1)
        return np.asarray(total / np.maximum(count, 1))

    def _parts(self, n_models: int) -> list[slice]:
        """Series per chunk so that residuals of all models stay in `MAX_ROW_BYTES`."""
        per_series = 8 * self.table.design.n_steps * n_models
        return chunks(self.table.design.n_series, max(1, min(2048, MAX_ROW_BYTES // per_series)))

    def _huber(self, theta: Floats, sums: Floats, stack: Stack, labels: Labels) -> Floats:
        """Fixed point of theta <- theta + (G_k + g Gbar + lam I)^-1 gradient, by modified residuals.

        Huber's loss has curvature at most 1, so the Gram majorizes it and every step descends.
        """
        G, _, _ = unpack(sums, self.prior.theta.shape[0])
        eye = np.eye(G.shape[1])
        pull = stack.shrinkage[:, None, None] * self.prior.G_mean
        inverse = np.linalg.pinv(G + pull + self.prior.penalty * eye, hermitian=True)
        going = np.ones(len(theta), dtype=bool)
        for _ in range(self.max_steps):
            gradient = self._huber_gradient(theta, stack, labels)
            gradient -= np.einsum("mij,mj->mi", pull, theta - self.prior.theta) + self.prior.penalty * theta
            step = np.einsum("mij,mj->mi", inverse, gradient)
            theta = np.where(going[:, None], theta + step, theta)
            # every column stops by itself: a common stop would carry one fold's data into another's fit
            going &= np.abs(step).max(axis=1) > self.tolerance * np.maximum(1.0, np.abs(theta).max(axis=1))
            if not going.any():
                break
        return theta

    def _huber_gradient(self, theta: Floats, stack: Stack, labels: Labels) -> Floats:
        """Sum of x psi(r) over the TRAIN rows of each column's series, (columns, d).

        Windows apart, down to the rounding: no fold's data may change a bit of another's fit.
        """
        out = np.zeros_like(theta)
        for _, runs, _ in stack.windows():
            for part in self._parts(runs.stop - runs.start):
                for span in self.table.windows[TRAIN]:
                    self._add_gradient(out, theta, stack, labels, runs, part, span)
        return out

    def _add_gradient(
        self, out: Floats, theta: Floats, stack: Stack, labels: Labels, runs: slice, part: slice, span: Span
    ) -> None:
        own = labels[runs, part]
        X, y, _ = self.table.design.rows(part, *span)
        coefficients = theta[stack.offsets[runs, None] + own].transpose(1, 2, 0)
        psi = np.clip(y[:, :, None] - X @ coefficients, -self.loss.delta, self.loss.delta)
        pull = (X.transpose(0, 2, 1) @ psi).transpose(2, 0, 1) * self.table.active[part][None, :, None]
        for run, (offset, size) in enumerate(zip(stack.offsets[runs], stack.sizes[runs], strict=True)):
            members = (own[run] == np.arange(size)[:, None]).astype(np.float64)
            out[offset : offset + size] += members @ pull[run]

    def _residual_quantiles(self, theta: Floats, stack: Stack, labels: Labels) -> Floats:
        """Quantiles of each column's TRAIN residuals, (Q, columns)."""
        design, offsets = self.table.design, np.zeros((len(self.loss.quantiles), stack.n_columns))
        spans = self.table.windows[TRAIN]
        rows = [design.rows(slice(None), a, b) for a, b in spans]
        for run, offset in enumerate(stack.offsets):
            for k in range(stack.keys[run].n_clusters):
                members = np.flatnonzero((labels[run] == k) & self.table.active)
                parts = [
                    (y[members] - X[members] @ theta[offset + k])[valid[members]] for X, y, valid in rows
                ]
                residual = np.concatenate(parts)
                if residual.size:
                    offsets[:, offset + k] = np.quantile(residual, self.loss.quantiles)
        return offsets


def cluster_sums(table: GramTable, stack: Stack, labels: Labels) -> Floats:
    """Packed TRAIN sums of every column, (P, columns): one product with the one-hot labels."""

    def product(block: Block) -> Floats:
        one_hot = stack.one_hot(labels[:, block.series])
        # one product per window: no fold's data may change a bit of another's fit
        parts = [block.sums[TRAIN] @ one_hot[columns].T for _, _, columns in stack.windows()]
        return np.concatenate(parts, axis=1)

    return np.asarray(np.sum(table.map(product, (TRAIN,)), axis=0))


def solve_clusters(
    sums: Floats, stack: Stack, labels: Labels, *, prior: Prior, active: NDArray[np.bool_]
) -> Models:
    """Ridge solution of every column from its packed sums."""
    G, b, _ = unpack(sums, prior.theta.shape[0])
    empty = stack.counts(labels, active) == 0
    theta = np.broadcast_to(prior.theta, b.shape).copy()
    full = ~empty
    theta[full] = shrunk_ridge(
        G[full],
        b[full],
        G_mean=prior.G_mean,
        theta_global=prior.theta,
        shrinkage=stack.shrinkage[full],
        penalty=prior.penalty,
    )
    return Models(theta=theta, offsets=None, empty=empty)


def prior_from(table: GramTable, *, penalty: float) -> Prior:
    """The global ridge model and the mean Gram on TRAIN."""
    total = table.total(TRAIN)[:, None]
    G, b, _ = unpack(total, table.design.n_features)
    return Prior(theta=ridge(G, b, penalty)[0], G_mean=G[0] / max(table.n_active, 1), penalty=penalty)
