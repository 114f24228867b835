"""From a panel to a decided forecaster: search, hold out, decide, refit, calibrate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError
from metier.forecast.gate.candidates import (
    CandidateFitter,
    Candidates,
    Data,
    Report,
    divisions_of,
    routed,
    without_empty,
)
from metier.forecast.gate.conformal import Calibration, calibrate
from metier.forecast.gate.folds import NO_VARYING_SERIES, FoldPlan, Span, plan_folds
from metier.forecast.gate.heldout import HeldOut, held_out_losses
from metier.forecast.gate.judge import Candidate, GateReport, Judge, describe_candidates
from metier.forecast.partition.criterion import TRAIN, Models
from metier.forecast.partition.search import Found, Search, mean_losses
from metier.forecast.regression.base_model import Learner
from metier.forecast.regression.design import Design
from metier.forecast.regression.gram import GramTable
from metier.forecast.regression.models import Division, PanelModel
from metier.forecast.regression.scaling import Scaling, barely_varies, fit_scaling

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fitted:
    """What a pipeline leaves.

    Attributes:
        data: the panel it saw.
        start: first VAL index.
        scaling: of TRAIN.
        still: (N,) series seen in TRAIN that hardly vary there: constant, or a handful of events.
        active: (N,) series that took part in the search: not still, with TRAIN and VAL rows.
        plan: the held-out folds.
        found: the search on TRAIN | VAL.
        labels: (N,) partition over all of VAL; meaningless for inactive series.
        n_clusters: its clusters, 0 where the panel has too few series to divide.
        loss_matrix: (N, K + 1) mean VAL losses of the TRAIN-stage models, global last.
        held: losses on held-out blocks, or on VAL where none were held out.
        report, candidates: the gate.
        fallback: (N,) series served by the global model.
        final_design, final_scaling, final: all candidates refitted on TRAIN and VAL.
        calibration: held-out residuals, or None where VAL has no origin.
    """

    data: Data
    start: int
    scaling: Scaling
    still: NDArray[np.bool_]
    active: NDArray[np.bool_]
    plan: FoldPlan
    found: Found
    labels: NDArray[np.int16]
    n_clusters: int
    loss_matrix: Floats
    held: HeldOut | None
    report: GateReport
    candidates: Mapping[str, Candidate]
    fallback: NDArray[np.bool_]
    final_design: Design
    final_scaling: Scaling
    final: Candidates
    calibration: Calibration | None

    def model(self, name: str | None = None) -> PanelModel:
        """The refitted candidate `name`, or the one in use, with the global model where series fall back."""
        chosen = self.report.chosen if name is None else name
        return routed(self.final, chosen, self.fallback if name is None else ~self.active)

    @property
    def groups(self) -> NDArray[np.intp]:
        """(N,) calibration group: the cluster, or K for series outside the partition."""
        return np.where(self.active, self.labels, self.n_clusters).astype(np.intp)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Pipeline:
    """Everything that turns data into a decided forecaster.

    Args:
        search: clustering candidates, loss and seed.
        judge: the gate.
        learner: heavier base model, or None for ridge.
        steps: forecast horizon.
        direct: one model per step instead of a recursion.
        val_size: share of the time grid that is VAL, its newest part.
        n_blocks: held-out blocks of VAL.
        scaling: "standard" or "robust".
        backend: where sums are built (`map_tasks`).
        keep_sums: keep packed sums in memory, or build them again in each pass; None keeps up to 3 GiB.
        report: called as report(stage, done, total).
    """

    search: Search
    judge: Judge
    learner: Learner | None
    steps: int
    direct: bool
    val_size: float
    n_blocks: int
    scaling: str
    backend: str
    keep_sums: bool | None
    report: Report

    def run(self, data: Data) -> Fitted:
        """Fit on TRAIN | VAL = all of `data`; nothing else is seen."""
        n_steps = data.values.shape[1]
        start = val_start(n_steps, self.val_size)
        scaling = fit_scaling(data.values, start, kind=self.scaling)
        design = data.design(scaling)
        still = scaling.constant | barely_varies(data.values, start, changes=design.n_features)
        active = ~still & has_rows(design, start)
        still &= data.first < start
        if not (active | still).any():
            raise no_rows(design, start)
        plan = self._plan(design, active, start)
        found = self._search(design, plan, active, start)
        partition = found.partitions[0] if found.partitions else None
        labels = partition.labels if partition else np.zeros(design.n_series, dtype=np.int16)
        n_clusters = partition.n_clusters if partition else 0
        folds = self._stage(found, data, scaling, start, plan)
        held = self._hold_out(found, plan, folds, labels, n_clusters)
        report = self.judge.decide(held, plan, n_clusters=n_clusters)
        fallback = ~active
        if report.chosen == "clustered":
            fallback = fallback | ~report.keep[labels]
        final_scaling = fit_scaling(data.values, n_steps, kind=self.scaling)
        final_design = data.design(final_scaling)
        return Fitted(
            data=data,
            start=start,
            scaling=scaling,
            still=still,
            active=active,
            plan=plan,
            found=found,
            labels=labels,
            n_clusters=n_clusters,
            loss_matrix=self._loss_matrix(found),
            held=held,
            report=report,
            candidates=describe_candidates(
                held,
                report,
                n_series=found.table.n_active,
                n_clusters=n_clusters,
                judged_on="held-out blocks" if plan.folds else "VAL",
            ),
            fallback=fallback,
            final_design=final_design,
            final_scaling=final_scaling,
            final=self._refit(final_design, final_scaling, data, found, active),
            calibration=self._calibrate(found, plan, folds, report, labels, n_clusters, fallback),
        )

    def _plan(self, design: Design, active: NDArray[np.bool_], start: int) -> FoldPlan:
        if not active.any():
            return FoldPlan(folds=(), gap=0, reason=NO_VARYING_SERIES)
        if not self.judge.holds_out:
            return FoldPlan(folds=(), gap=0)
        return plan_folds(
            start, design.n_steps, n_blocks=self.n_blocks, max_lag=design.max_lag, horizon=self.steps
        )

    def _search(self, design: Design, plan: FoldPlan, active: NDArray[np.bool_], start: int) -> Found:
        self.report("summing up the panel", 0, 1)
        train: tuple[Span, ...] = ((design.max_lag, start),)
        windows = [train, ((start, design.n_steps),), *(fold.keep for fold in plan.folds)]
        table = GramTable.build(design, windows, active=active, backend=self.backend, keep=self.keep_sums)
        total = self.search.max_iterations
        return self.search.run(table, progress=lambda done, _: self.report("clustering", done, total))

    @property
    def _fitter(self) -> CandidateFitter:
        return CandidateFitter(
            search=self.search,
            learner=self.learner,
            steps=self.steps,
            direct=self.direct and self.steps > 1,
            scaling=self.scaling,
            backend=self.backend,
            report=self.report,
        )

    def _stage(
        self, found: Found, data: Data, scaling: Scaling, start: int, plan: FoldPlan
    ) -> list[Candidates]:
        """The candidates of every assignment window: all of VAL first, then each fold.

        Those of all VAL are fitted on TRAIN, which assigned the series. Each fold does what the forecaster
        does in the end: freeze its partition and refit on TRAIN and the rows of VAL it may see. After a
        truncated gap that is none of them, since the block that judges is among their lags.
        """
        out = []
        for window, partition in enumerate(found.partitions):
            self.report("fitting candidates", window, len(found.partitions))
            divisions = [] if partition is None else divisions_of(found, partition)
            clean = window > 0 and plan.flag != "truncated_gap"
            seen = [TRAIN, window + 1] if clean else [TRAIN]
            out.append(self._fitter.fit(found.table.united(seen), data, scaling, divisions, stop=start))
        return out

    def _hold_out(
        self,
        found: Found,
        plan: FoldPlan,
        folds: list[Candidates],
        labels: NDArray[np.int16],
        n_clusters: int,
    ) -> HeldOut | None:
        self.report("judging on held-out blocks", 0, 1)
        blocks = self._blocks(found, plan)
        if not found.table.n_active or any(stop - start < self.steps for start, stop in blocks):
            return None
        held = held_out_losses(
            found.table.design,
            blocks,
            folds[1:] if plan.folds else folds,
            loss=self.search.loss,
            steps=self.steps,
            active=found.table.active,
            groups=np.where(found.table.active & (n_clusters > 0), labels, -1),
            n_groups=n_clusters,
        )
        return held if len(held.times) > 1 else None

    def _blocks(self, found: Found, plan: FoldPlan) -> list[Span]:
        """The held-out blocks, or all of VAL where none are."""
        return [fold.block for fold in plan.folds] or list(found.table.windows[1])

    def _loss_matrix(self, found: Found) -> Floats:
        base, partition = found.base, found.partitions[0] if found.partitions else None
        if partition is None:
            return mean_losses(found.criterion, base, window=0).T
        offsets = None
        if base.offsets is not None and partition.offsets is not None:
            offsets = np.concatenate([partition.offsets, base.offsets], axis=1)
        theta = np.concatenate([partition.theta, base.theta])
        models = Models(theta=theta, offsets=offsets, empty=np.zeros(len(theta), dtype=bool))
        return mean_losses(found.criterion, models, window=0).T

    def _refit(
        self, design: Design, scaling: Scaling, data: Data, found: Found, active: NDArray[np.bool_]
    ) -> Candidates:
        """Freeze the partition and the gate; fit all candidates on TRAIN and VAL together."""
        self.report("refitting on all data", 0, 1)
        usable = active & ~scaling.constant
        whole: list[tuple[Span, ...]] = [((design.max_lag, design.n_steps),)]
        table = GramTable.build(design, whole, active=usable, backend=self.backend, keep=self.keep_sums)
        partition = found.partitions[0] if found.partitions else None
        divisions: list[Division] = [] if partition is None else divisions_of(found, partition)
        divisions = [without_empty(division, usable) for division in divisions]
        return self._fitter.fit(table, data, scaling, divisions, stop=design.n_steps)

    def _calibrate(
        self,
        found: Found,
        plan: FoldPlan,
        folds: list[Candidates],
        report: GateReport,
        labels: NDArray[np.int16],
        n_clusters: int,
        fallback: NDArray[np.bool_],
    ) -> Calibration | None:
        self.report("calibrating intervals", 0, 1)
        blocks, active = self._blocks(found, plan), found.table.active
        if not active.any() or any(stop - start < self.steps for start, stop in blocks):
            return None
        return calibrate(
            found.table.design,
            blocks,
            [routed(fold, report.chosen, fallback) for fold in (folds[1:] if plan.folds else folds)],
            steps=self.steps,
            groups=np.where(active, labels, n_clusters).astype(np.intp),
            n_groups=n_clusters + 1,
            active=active,
            source="held-out blocks" if plan.folds else "VAL",
            rng=self.search.rng,
        )


def val_start(n_steps: int, val_size: float) -> int:
    """First index of VAL, the newest `val_size` of the time grid."""
    return n_steps - max(1, round(val_size * n_steps))


def no_rows(design: Design, start: int) -> InputError:
    """The error for a panel in which no series can be fitted and judged."""
    return InputError(
        "a series is fitted on TRAIN rows and judged on VAL rows",
        expected=f"histories with more than {design.max_lag} stamps, the longest lag, before VAL",
        got=f"none: VAL starts at stamp {start + 1} of {design.n_steps}",
        next_step="Use fewer lags or a shorter season, a smaller val_size, or longer histories.",
    )


def has_rows(design: Design, start: int) -> NDArray[np.bool_]:
    """(N,) series with at least one TRAIN row and one VAL row."""
    begin = design.first + design.max_lag
    return (begin < np.minimum(design.stop, start)) & (design.stop > np.maximum(begin, start))
