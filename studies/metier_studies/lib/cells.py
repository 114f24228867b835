"""Tasks of a study as cells of its run: what the journal lacks is computed, several at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from metier.runs import Progress, Run

Task = TypeVar("Task")
Answer = TypeVar("Answer")


def journaled(
    compute: Callable[[Task], Answer],
    work: Sequence[tuple[str, Task]],
    run: Run,
    progress: Progress,
    *,
    workers: int,
    words: str,
) -> list[Answer]:
    """Return the result of every task, computing those whose cell is missing, `workers` at a time.

    Args:
        compute: picklable function of one task.
        work: the cell's key and the task.
        run, progress: of the study.
        workers: processes; 1 computes here.
        words: what the progress says.
    """
    from metier.core import map_tasks

    missing = [(key, task) for key, task in work if not run.has_cell(key)]
    chunks = [missing[i : i + workers] for i in range(0, len(missing), workers)]
    backend = "joblib" if workers > 1 else "serial"
    for chunk in progress.track(chunks, words, total=len(chunks)):
        tasks = [task for _, task in chunk]
        results = map_tasks(_Timed(compute), tasks, backend=backend, n_workers=workers)
        for (key, _), (seconds, result) in zip(chunk, results, strict=True):
            run.cell(key, lambda result=result: result, seconds=seconds)  # type: ignore[misc]
    return [run.cell(key, _absent) for key, _ in work]


@dataclass(frozen=True, slots=True)
class _Timed(Generic[Task, Answer]):
    """A picklable function that also says how many seconds it took, in the process that ran it."""

    compute: Callable[[Task], Answer]

    def __call__(self, task: Task) -> tuple[float, Answer]:
        start = time.perf_counter()
        answer = self.compute(task)
        return time.perf_counter() - start, answer


def _absent() -> Any:
    raise RuntimeError("every task was journaled before")
