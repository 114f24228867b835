"""Intervals from held-out residuals: split conformal per cluster and step, checked block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError, derive
from metier.forecast.gate.folds import Span
from metier.forecast.regression.design import Design
from metier.forecast.regression.models import PanelModel
from metier.forecast.regression.rollout import origin_valid, targets

Floats = NDArray[np.float64]

MAX_SERIES = 2_000
"""Series per cluster that calibrate; more change the quantiles by less than their own noise."""

MAX_KEPT = 4_001
"""Residuals kept per cluster and step: beyond, their evenly spaced order statistics."""

MIN_OWN = 40
"""Residuals below which a cluster borrows those of all series."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Calibration:
    """Held-out residuals on the standardized scale, sorted, per group (0..K-1, then global) and step.

    Attributes:
        residuals: (groups, steps) arrays of sorted residuals.
        counts: (groups, steps) residuals before thinning.
        coverage: rows (group, level, share of held-out values inside, number of values), each block judged
            by intervals from the other blocks; empty where fewer than two blocks exist.
        source: "held-out blocks" or "VAL".
    """

    residuals: tuple[tuple[Floats, ...], ...]
    counts: NDArray[np.int64]
    coverage: tuple[tuple[int, float, float, int], ...]
    source: str

    @property
    def steps(self) -> int:
        """Steps ahead that are calibrated."""
        return len(self.residuals[0])

    def interval(self, group: int, step: int, level: float) -> tuple[float, float]:
        """Lower and upper residual bound with coverage at least `level` for an exchangeable residual.

        With n residuals in order: the floor((n+1)(1-level)/2)-th and the ceil((n+1)(1+level)/2)-th. A
        cluster with too few residuals for the level borrows those of all series.
        """
        n, tail = int(self.counts[group, step - 1]), (1.0 - level) / 2.0
        low_rank, high_rank = np.floor((n + 1) * tail + 1e-9), np.ceil((n + 1) * (1 - tail) - 1e-9)
        if low_rank < 1 or high_rank > n:
            if n < self.counts[-1, step - 1]:
                return self.interval(len(self.residuals) - 1, step, level)
            raise InputError(
                f"an interval of level {100 * level:g} needs enough held-out residuals",
                expected=f"at least {int(np.ceil(2 / (1 - level) - 1e-9)) - 1}",
                got=f"{n} at step {step}",
                next_step="Ask for a lower level, or fit on a longer history.",
            )
        kept = self.residuals[group][step - 1]
        place = (np.array([low_rank, high_rank]) - 1) * (len(kept) - 1) / max(n - 1, 1)
        return float(kept[int(np.floor(place[0]))]), float(kept[int(np.ceil(place[1]))])

    def intervals(self, level: float, steps: int) -> Floats:
        """(groups, steps, 2) residual bounds of every group for steps 1..`steps`."""
        groups = range(len(self.residuals))
        return np.array([[self.interval(g, h, level) for h in range(1, steps + 1)] for g in groups])

    def quantile(self, group: int, step: int, q: float) -> float:
        """q-quantile of the residuals."""
        return float(np.quantile(self.residuals[group][step - 1], q))

    def quantiles(self, q: float, steps: int) -> Floats:
        """(groups, steps) q-quantiles of the residuals."""
        groups = range(len(self.residuals))
        return np.array([[self.quantile(g, h, q) for h in range(1, steps + 1)] for g in groups])


def calibrate(
    design: Design,
    blocks: Sequence[Span],
    models: Sequence[PanelModel],
    *,
    steps: int,
    groups: NDArray[np.integer],
    n_groups: int,
    active: NDArray[np.bool_],
    levels: Sequence[float] = (0.8, 0.95),
    source: str,
    rng: int,
) -> Calibration:
    """Collect residuals of each block's model on that block and check the coverage across blocks.

    Args:
        models: the model in use, fitted without its block.
        groups: (N,) 0..n_groups-1.
    """
    chosen = _sample_series(groups, n_groups, active, rng)
    collected = [
        _residuals(design, span, model, steps, chosen) for span, model in zip(blocks, models, strict=True)
    ]
    everyone = [np.concatenate([r[h][:, 1] for r in collected]) for h in range(steps)]
    kept, counts = [], np.zeros((n_groups, steps), dtype=np.int64)
    for group in range(n_groups):
        row = []
        for h in range(steps):
            own = np.concatenate([r[h][groups[r[h][:, 0].astype(np.intp)] == group, 1] for r in collected])
            own = own if len(own) >= MIN_OWN else everyone[h]
            counts[group, h] = len(own)
            row.append(_thin(np.sort(own)))
        kept.append(tuple(row))
    return Calibration(
        residuals=tuple(kept),
        counts=counts,
        coverage=_cross_coverage(collected, groups, n_groups, levels) if len(blocks) > 1 else (),
        source=source,
    )


def _sample_series(
    groups: NDArray[np.integer], n_groups: int, active: NDArray[np.bool_], rng: int
) -> NDArray[np.intp]:
    stream, out = derive(rng, "calibration"), []
    for group in range(n_groups):
        members = np.flatnonzero((groups == group) & active)
        if len(members) > MAX_SERIES:
            members = np.sort(stream.choice(members, MAX_SERIES, replace=False))
        out.append(members)
    return np.sort(np.concatenate(out)).astype(np.intp)


def _residuals(
    design: Design, span: Span, model: PanelModel, steps: int, chosen: NDArray[np.intp]
) -> list[Floats]:
    """Per step, rows (series, residual) of the valid origins of one block."""
    start, stop = span[0], span[1] - steps + 1
    forecasts = model.forecast(design, chosen, start, stop, steps=steps)
    out = []
    for h in range(1, steps + 1):
        valid = origin_valid(design, chosen, start, stop, step=h)
        residual = targets(design, chosen, start, stop, step=h) - forecasts[h - 1]
        series = np.broadcast_to(chosen[:, None], valid.shape)
        out.append(np.column_stack([series[valid], residual[valid]]))
    return out


def _thin(ordered: Floats) -> Floats:
    if len(ordered) <= MAX_KEPT:
        return ordered
    return ordered[np.linspace(0, len(ordered) - 1, MAX_KEPT).round().astype(np.intp)]


def _cross_coverage(
    collected: Sequence[list[Floats]], groups: NDArray[np.integer], n_groups: int, levels: Sequence[float]
) -> tuple[tuple[int, float, float, int], ...]:
    """Coverage of each block by the intervals of the other blocks, pooled over blocks and steps."""
    rows = []
    for group in range(n_groups):
        hits, total = np.zeros(len(levels)), 0
        for h in range(len(collected[0])):
            mine = [r[h][groups[r[h][:, 0].astype(np.intp)] == group, 1] for r in collected]
            for j, block in enumerate(mine):
                others = np.sort(np.concatenate(mine[:j] + mine[j + 1 :]))
                if len(block) and len(others) >= MIN_OWN:
                    total += len(block)
                    for i, level in enumerate(levels):
                        low, high = np.quantile(others, [(1 - level) / 2, (1 + level) / 2])
                        hits[i] += np.sum((block >= low) & (block <= high))
        if total:
            rows += [(group, level, float(hits[i] / total), total) for i, level in enumerate(levels)]
    return tuple(rows)
