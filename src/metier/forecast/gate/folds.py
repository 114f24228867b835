"""Cut VAL into blocks that judge, with gaps that keep the judged rows out of the assignment."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

Span = tuple[int, int]

MIN_ASSIGN = 8
"""Fewest VAL rows a fold may leave for assigning the series."""

MIN_BLOCK = 4
"""Fewest forecast origins a held-out block may have."""


NO_VARYING_SERIES = "no_varying_series"
"""Reason for a plan without folds: there is nothing to forecast but constants."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One held-out block [start, stop) and the VAL spans that remain for assignment."""

    block: Span
    keep: tuple[Span, ...]

    @property
    def n_keep(self) -> int:
        """Rows left for assignment."""
        return sum(stop - start for start, stop in self.keep)


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """Folds over VAL; `flag` says what had to give, `reason` why there are none."""

    folds: tuple[Fold, ...]
    gap: int
    flag: str = ""
    reason: str = ""


def plan_folds(start: int, stop: int, *, n_blocks: int, max_lag: int, horizon: int) -> FoldPlan:
    """Contiguous blocks over VAL = [start, stop), each with a gap of `max_lag + horizon` on both sides.

    Where that leaves too few rows: two blocks; then a gap of `horizon` only (flagged, since the lags of
    kept rows then reach into the held-out block); then none ("val_too_short").
    """
    full = max_lag + horizon
    attempts = [(n_blocks, full, ""), (2, full, "two_blocks"), (2, horizon, "truncated_gap")]
    for blocks, gap, flag in attempts:
        folds = cut(start, stop, blocks, gap)
        long_enough = all(
            f.n_keep >= MIN_ASSIGN and f.block[1] - f.block[0] >= MIN_BLOCK + horizon - 1 for f in folds
        )
        if long_enough:
            return FoldPlan(folds=folds, gap=gap, flag=flag)
    return FoldPlan(folds=(), gap=full, reason="val_too_short")


def cut(start: int, stop: int, n_blocks: int, gap: int) -> tuple[Fold, ...]:
    """Blocks of nearly equal length and what is left of [start, stop) outside each with its gaps."""
    edges = [start + (stop - start) * j // n_blocks for j in range(n_blocks + 1)]
    folds = []
    for left, right in itertools.pairwise(edges):
        sides = ((start, left - gap), (right + gap, stop))
        folds.append(Fold(block=(left, right), keep=tuple(s for s in sides if s[1] > s[0])))
    return tuple(folds)


def segments(windows: list[tuple[Span, ...]]) -> tuple[list[Span], list[list[int]]]:
    """Elementary spans whose unions give every window, and which of them each window takes.

    A window is built only from segments inside it, so that a value outside a window's rows and lags
    cannot touch its sums.
    """
    edges = sorted({edge for window in windows for span in window for edge in span})
    spans = list(itertools.pairwise(edges))
    members = [
        [j for j, (a, b) in enumerate(spans) if any(s <= a and b <= e for s, e in window)]
        for window in windows
    ]
    used = sorted({j for m in members for j in m})
    place = {j: i for i, j in enumerate(used)}
    return [spans[j] for j in used], [[place[j] for j in m] for m in members]
