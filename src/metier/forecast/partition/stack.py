"""Many clustering runs side by side: every (fold, K, start, shrinkage) of the gate in one stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int16]


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class RunKey:
    """One clustering run. `window` is the assignment window: 0 is all of VAL, j > 0 leaves block j out."""

    window: int
    n_clusters: int
    start: int
    shrinkage: float


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stack:
    """Runs in sorted order; their clusters are consecutive columns."""

    keys: tuple[RunKey, ...]

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Clusters of each run."""
        return np.array([key.n_clusters for key in self.keys], dtype=np.intp)

    @property
    def offsets(self) -> NDArray[np.intp]:
        """First column of each run."""
        return np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.intp)

    @property
    def n_columns(self) -> int:
        """Clusters of all runs together."""
        return int(self.sizes.sum())

    @property
    def shrinkage(self) -> Floats:
        """g of each column."""
        return np.repeat([key.shrinkage for key in self.keys], self.sizes)

    def windows(self) -> Iterator[tuple[int, slice, slice]]:
        """Each assignment window with its runs and its columns."""
        ends = self.offsets + self.sizes
        windows = np.array([key.window for key in self.keys])
        for window in np.unique(windows):
            runs = np.flatnonzero(windows == window)
            first, last = int(runs[0]), int(runs[-1])
            yield int(window), slice(first, last + 1), slice(int(self.offsets[first]), int(ends[last]))

    def select(self, runs: NDArray[np.intp]) -> tuple[Stack, NDArray[np.intp]]:
        """The stack of some runs, and the columns it keeps."""
        columns = [np.arange(self.offsets[r], self.offsets[r] + self.sizes[r]) for r in runs]
        kept = np.concatenate(columns) if columns else np.empty(0, dtype=np.intp)
        return Stack(keys=tuple(self.keys[r] for r in runs)), kept

    def one_hot(self, labels: Labels) -> Floats:
        """(columns, n) indicator of `labels` (runs, n)."""
        n = labels.shape[1]
        out = np.zeros((self.n_columns, n))
        out[self.offsets[:, None] + labels, np.arange(n)] = 1.0
        return out

    def counts(self, labels: Labels, active: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Active series in each column."""
        shifted = (self.offsets[:, None] + labels)[:, active]
        return np.bincount(shifted.ravel(), minlength=self.n_columns)

    def assign(self, losses: Floats) -> Labels:
        """Cheapest cluster of each run, (runs, n), from losses (columns, n); the lowest index wins ties."""
        out = np.empty((len(self.keys), losses.shape[1]), dtype=np.int16)
        for size in np.unique(self.sizes):
            runs = np.flatnonzero(self.sizes == size)
            columns = self.offsets[runs][:, None] + np.arange(size)
            out[runs] = losses[columns].argmin(axis=1)
        return out

    def routed(self, losses: Floats, labels: Labels) -> Floats:
        """Loss of each series in its own cluster, (runs, n)."""
        return np.asarray(losses[self.offsets[:, None] + labels, np.arange(losses.shape[1])])
