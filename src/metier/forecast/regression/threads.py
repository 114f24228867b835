"""Blocks of series over threads, each with single-threaded linear algebra.

Products of one block are too small for a threaded BLAS to split well; one block per thread uses the cores
fully, and since every block's arithmetic is the same, the number of threads cannot change a result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import threadpool_limits

from metier.core import available_cpus

CHUNK = 2048
"""Series per block: a few megabytes of packed sums, so that products stay in cache."""

Item = TypeVar("Item")
Out = TypeVar("Out")


def n_threads() -> int:
    """Usable cores, or METIER_THREADS."""
    chosen = os.environ.get("METIER_THREADS", "")
    return int(chosen) if chosen.isdigit() and int(chosen) > 0 else available_cpus()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit BLAS to one thread while blocks run side by side."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@contextmanager
def single_threaded() -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread in the calling thread, for a base model fitted beside others."""
    with threadpool_limits(limits=1):
        yield


def over_blocks(fn: Callable[[Item], Out], items: Iterable[Item]) -> list[Out]:
    """[fn(item) ...] in order, over threads."""
    things = list(items)
    workers = min(n_threads(), len(things))
    if workers <= 1:
        return [fn(item) for item in things]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(fn, things))


def chunks(n_series: int, size: int = CHUNK) -> list[slice]:
    """Consecutive slices of at most `size` series."""
    return [slice(a, min(a + size, n_series)) for a in range(0, n_series, size)]
