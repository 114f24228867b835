"""Sufficient statistics: every squared loss of every series under every model from one product.

The augmented Gram of series i over a window W of rows is A_i = sum_{t in W} u u', u = (y, x). Its upper
triangle is kept packed, series last: A[p, i]. With phi = (1, -theta),

    sum_{t in W} (y - x'theta)^2 = <A_i, phi phi'> = coefficients(theta) . A[:, i],

so the losses of N series under M models are one (M, P)(P, N) product, free of the number of steps, and a
cluster's normal equations are one (P, N)(N, K) product with the one-hot labels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from metier.core import map_tasks
from metier.forecast.gate.folds import Span, segments
from metier.forecast.regression.design import Design, shifted_view
from metier.forecast.regression.threads import chunks as chunks, over_blocks, single_threaded_blas

Floats = NDArray[np.float64]
Out = TypeVar("Out")

MAX_KEPT_BYTES = 3 * 2**30
"""Packed sums beyond this are built again in each pass instead of kept."""

LARGE = 1e3
"""Standardized magnitude above which boundary updates would lose digits; such series go the direct way."""


@lru_cache(maxsize=32)
def triangle(size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of each packed position of a (size, size) upper triangle."""
    rows, columns = np.triu_indices(size)
    return rows, columns


def packed_size(n_features: int) -> int:
    """Length P of a packed augmented Gram with `n_features` columns."""
    return (n_features + 1) * (n_features + 2) // 2


def diagonal(n_features: int) -> NDArray[np.intp]:
    """Packed positions of the diagonal of G."""
    rows, columns = triangle(n_features + 1)
    return np.flatnonzero((rows == columns) & (rows > 0))


def unpack(packed: Floats, n_features: int) -> tuple[Floats, Floats, Floats]:
    """(P, M) packed sums to G (M, d, d), b (M, d) and s (M,)."""
    rows, columns = triangle(n_features + 1)
    full = np.empty((packed.shape[1], n_features + 1, n_features + 1))
    full[:, rows, columns] = packed.T
    full[:, columns, rows] = packed.T
    return full[:, 1:, 1:], full[:, 0, 1:], full[:, 0, 0]


def loss_coefficients(theta: Floats) -> Floats:
    """(M, d) coefficients to the (M, P) rows that turn packed sums into squared losses."""
    return _quadratic(np.concatenate([np.ones((theta.shape[0], 1)), -theta], axis=1))


def distance_coefficients(theta: Floats) -> Floats:
    """(M, d) to the (M, P) rows that give theta'G theta."""
    return _quadratic(np.concatenate([np.zeros((theta.shape[0], 1)), theta], axis=1))


def _quadratic(phi: Floats) -> Floats:
    rows, columns = triangle(phi.shape[1])
    return phi[:, rows] * phi[:, columns] * np.where(rows == columns, 1.0, 2.0)


def packed_gram(design: Design, start: int, stop: int) -> Floats:
    """Packed sums (P, n) of all series of `design` over the rows [start, stop)."""
    if stop <= start:
        return np.zeros((packed_size(design.n_features), design.n_series))
    reach = shifted_view(design.values, start - design.max_lag, stop)
    inside = (design.first + design.max_lag <= start) & (design.stop >= stop)
    regular = inside & (np.abs(reach).max(axis=1, initial=0.0) <= LARGE)
    if regular.all():
        return _shifted_gram(design, start, stop)
    out = np.empty((packed_size(design.n_features), design.n_series))
    for chosen, build in ((regular, _shifted_gram), (~regular, direct_gram)):
        if chosen.any():
            out[:, chosen] = build(design.take(np.flatnonzero(chosen)), start, stop)
    return out


def direct_gram(design: Design, start: int, stop: int) -> Floats:
    """The same sums from explicit rows: O(T d^2) a series, any pattern of missing rows."""
    X, y, _ = design.rows(slice(None), start, stop)
    U = np.concatenate([y[:, :, None], X], axis=2)
    rows, columns = triangle(U.shape[2])
    full = np.matmul(U.transpose(0, 2, 1), U)
    return np.ascontiguousarray(full[:, rows, columns].T)


def _shifted_gram(design: Design, start: int, stop: int) -> Floats:
    """Sums of complete rows in O(T d): products at one lag difference differ only at the ends.

    S(a, b) = sum_t y[t-a] y[t-b] over [start, stop) and S(a+1, b+1) share all but two terms.
    """
    origin = start - design.max_lag
    y = np.ascontiguousarray(shifted_view(design.values, origin, stop).T, dtype=np.float64)  # time first
    delays = (0, *design.lags)
    position = _positions(design.n_features + 1)
    out = np.empty((packed_size(design.n_features), design.n_series))

    def at(delay: int) -> Floats:
        return y[start - delay - origin : stop - delay - origin]

    for difference, pairs in _pairs_by_difference(delays).items():
        i, j, reached = pairs[0]
        total = np.einsum("tn,tn->n", at(reached), at(reached + difference))
        out[position[i, j]] = total
        for i, j, delay in pairs[1:]:
            for step in range(reached, delay):
                tail, head = stop - 1 - step - origin, start - 1 - step - origin
                total += y[head] * y[head - difference] - y[tail] * y[tail - difference]
            reached = delay
            out[position[i, j]] = total
    total, reached = at(0).sum(axis=0), 0
    for i, delay in enumerate(delays):
        for step in range(reached, delay):
            total += y[start - 1 - step - origin] - y[stop - 1 - step - origin]
        reached = delay
        out[position[i, -1]] = total
    _known_sums(out, position, design, [at(delay) for delay in delays], start, stop)
    return out


def _known_sums(
    out: Floats, position: NDArray[np.intp], design: Design, lagged: list[Floats], start: int, stop: int
) -> None:
    """Fill the other sums that involve known features: own exogenous columns, calendar, intercept."""
    common = np.column_stack([design.common[start:stop], np.ones(stop - start)])
    calendar = np.ascontiguousarray(common[:, :-1].T)
    own = None if design.own is None else design.own[:, start:stop]
    first_own, first_common = len(lagged), len(lagged) + design.n_own
    for i, y in enumerate(lagged):
        out[position[i, first_common:-1]] = calendar @ y
        if own is not None:
            out[position[i, first_own:first_common]] = np.einsum("tn,nte->en", y, own)
    for i in range(design.n_own if own is not None else 0):
        assert own is not None
        row = position[first_own + i]
        out[row[first_own + i : first_common]] = np.einsum("nt,nte->en", own[:, :, i], own[:, :, i:])
        out[row[first_common:]] = np.einsum("nt,tc->cn", own[:, :, i], common)
    for i in range(common.shape[1]):
        row = position[first_common + i]
        out[row[first_common + i :]] = (common[:, i] @ common[:, i:])[:, None]


@lru_cache(maxsize=32)
def _positions(size: int) -> NDArray[np.intp]:
    """Packed position of entry (i, j), i <= j."""
    position = np.zeros((size, size), dtype=np.intp)
    position[triangle(size)] = np.arange(size * (size + 1) // 2)
    return position


@lru_cache(maxsize=32)
def _pairs_by_difference(delays: tuple[int, ...]) -> dict[int, list[tuple[int, int, int]]]:
    """Pairs (i, j, delay_i) of delays grouped by delay_j - delay_i, nearest first."""
    groups: dict[int, list[tuple[int, int, int]]] = {}
    for i, a in enumerate(delays):
        for j in range(i, len(delays)):
            groups.setdefault(delays[j] - a, []).append((i, j, a))
    return groups


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Block:
    """Some series' packed sums: one (P, n) array per window, and the rows (windows, n) behind them.

    Windows that were not asked for have no columns.
    """

    series: slice
    sums: tuple[Floats, ...]
    rows: NDArray[np.int64]


Windows: TypeAlias = tuple[tuple[Span, ...] | None, ...]
_Task: TypeAlias = tuple[Design, NDArray[np.bool_], Windows, slice]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GramTable:
    """Packed sums of every series over a list of windows.

    Args:
        windows: unions of row spans, TRAIN first.
        active: (N,) series that count; the sums of the others are zero.
        stored: the blocks in memory, or None: then each pass builds them again from the values, which
            takes P / T of the memory away for a panel of a million series.
        memo: results of passes over TRAIN that several steps need.
    """

    design: Design
    windows: tuple[tuple[Span, ...], ...]
    active: NDArray[np.bool_]
    stored: tuple[Block, ...] | None
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def build(
        cls,
        design: Design,
        windows: Sequence[tuple[Span, ...]],
        *,
        active: NDArray[np.bool_],
        backend: str = "serial",
        n_workers: int | None = None,
        keep: bool | None = None,
    ) -> GramTable:
        """One pass over the data; `map_tasks` spreads the series over workers ("serial": over threads).

        `keep=None` keeps sums of up to `MAX_KEPT_BYTES`.
        """
        table = cls(design=design, windows=tuple(windows), active=active, stored=None)
        n_bytes = 8 * packed_size(design.n_features) * len(table.windows) * design.n_series
        if not (n_bytes <= MAX_KEPT_BYTES if keep is None else keep):
            return table
        if backend == "serial":
            with single_threaded_blas():
                return replace(table, stored=tuple(table.map(lambda block: block)))
        tasks = [table._task(part, table.windows) for part in chunks(design.n_series)]
        return replace(
            table, stored=tuple(map_tasks(_build_block, tasks, backend=backend, n_workers=n_workers))
        )

    def take(self, series: NDArray[np.intp]) -> GramTable:
        """The table of some series, in memory."""
        return GramTable.build(self.design.take(series), self.windows, active=self.active[series])

    def united(self, windows: Sequence[int]) -> GramTable:
        """A table whose first window is the union of some windows that do not overlap."""
        if list(windows) == [0]:
            return self
        spans = tuple(span for window in windows for span in self.windows[window])
        stored = None
        if self.stored is not None:
            chosen = list(windows)
            stored = tuple(
                Block(
                    series=block.series,
                    sums=(np.asarray(np.sum([block.sums[window] for window in chosen], axis=0)),),
                    rows=block.rows[chosen].sum(axis=0, keepdims=True),
                )
                for block in self.stored
            )
        return replace(self, windows=(spans,), stored=stored, memo={})

    def map(self, fn: Callable[[Block], Out], windows: Collection[int] | None = None) -> list[Out]:
        """[fn(block) ...] in series order, over threads.

        Args:
            fn: visits a block; results must not keep its arrays where `stored` is None.
            windows: those that `fn` reads; None for all. Sums that are not stored are built for these only.
        """
        if self.stored is not None:
            return over_blocks(fn, self.stored)
        wanted: Windows = self.windows
        if windows is not None:
            wanted = tuple(w if i in windows else None for i, w in enumerate(self.windows))
        parts = chunks(self.design.n_series)
        return over_blocks(lambda part: fn(_build_block(self._task(part, wanted))), parts)

    def _task(self, part: slice, windows: Windows) -> _Task:
        return self.design.take(part), self.active[part], windows, part

    def train_summary(self) -> tuple[Floats, Floats]:
        """TRAIN sums of all series together (P,), and trace(G_i) of each (N,): one pass, remembered."""
        if "train" not in self.memo:
            place = diagonal(self.design.n_features)
            parts = self.map(
                lambda block: (block.sums[0].sum(axis=1), block.sums[0][place].sum(axis=0)), (0,)
            )
            total = np.asarray(np.sum([part[0] for part in parts], axis=0))
            self.memo["train"] = total, np.concatenate([part[1] for part in parts])
        total, traces = self.memo["train"]
        return total, traces

    def total(self, window: int) -> Floats:
        """Sum over all active series, (P,)."""
        if window == 0:
            return self.train_summary()[0]
        return np.asarray(np.sum(self.map(lambda block: block.sums[window].sum(axis=1), (window,)), axis=0))

    @property
    def n_active(self) -> int:
        """Number of series that count."""
        return int(self.active.sum())


def _build_block(task: _Task) -> Block:
    design, active, windows, series = task
    spans, members = segments([window or () for window in windows])
    parts = [packed_gram(design, a, b) for a, b in spans]
    counts = [design.valid(slice(None), a, b).sum(axis=1) for a, b in spans]
    for part in parts:
        part[:, ~active] = 0.0
    blank = np.zeros((packed_size(design.n_features), design.n_series))
    sums = [
        blank[:, :0] if window is None else _united(parts, member, blank)
        for window, member in zip(windows, members, strict=True)
    ]
    rows = [np.sum([counts[j] for j in member], axis=0) * np.ones(design.n_series) for member in members]
    return Block(series=series, sums=tuple(sums), rows=np.array(rows, dtype=np.int64))


def _united(parts: list[Floats], member: list[int], blank: Floats) -> Floats:
    """Sums over several spans; a single span is shared, not copied."""
    if not member:
        return blank  # lags beyond the window
    total = parts[member[0]]
    for j in member[1:]:
        total = total + parts[j]
    return total
