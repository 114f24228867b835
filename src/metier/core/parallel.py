"""One way to run independent tasks: in this process, or on joblib, dask or ray workers."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from .checks import one_of, positive_int
from .errors import InputError, MetierError
from .extras import require

Task = TypeVar("Task")
Result = TypeVar("Result")
Outcome = tuple[bool, Any]
Outcomes = Generator[Outcome, None, None]
Backend = Callable[[Callable[[Any], Any], Sequence[Any], int], Outcomes]

_LONG = 120
# Token authentication would write into the user's home folder.
_RAY_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class TaskError(MetierError, RuntimeError):
    """A task of `map_tasks` failed; the message names it, and a note holds the worker's traceback.

    Attributes:
        index: Position of the task.

    Example:
        >>> try:
        ...     map_tasks(int, ["1", "one"])
        ... except TaskError as error:
        ...     print(error)
        task 1 ('one') failed: ValueError: invalid literal for int() with base 10: 'one'
    """

    def __init__(self, index: int, task: str, failure: str) -> None:
        self.index = index
        self.task = task
        self.failure = failure
        super().__init__(f"task {index} ({task}) failed: {failure}")

    def __reduce__(self) -> tuple[Any, ...]:
        return TaskError, (self.index, self.task, self.failure)


def map_tasks(
    fn: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    backend: str = "serial",
    n_workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Apply `fn` to every task and return the results in the order of the tasks.

    Each task carries its own seed or data, so the results do not depend on the backend or on the
    number of workers. The first failing task in this order decides the error.

    Args:
        fn: Function of one task; importable or picklable by cloudpickle where workers are processes.
        tasks: The tasks, each picklable; workers may see their arrays read-only.
        backend: "serial", "joblib" (processes), "dask" (local cluster) or "ray" (local, loopback). A dask
            client or ray session that is already running in this process is used as it is.
        n_workers: Workers to start, by default one per available CPU, never more than tasks.
        progress: Called as `progress(done, total)` after each result, in this process.

    Returns:
        One result per task.

    Raises:
        InputError: Unknown backend, or several workers asked of "serial".
        MissingExtraError: dask or ray is not installed.
        MetierError: A task raised one; it is raised again with a note that names the task.
        TaskError: A task raised anything else.

    Example:
        >>> map_tasks(abs, [-1, 2, -3])
        [1, 2, 3]
    """
    run = _BACKENDS[one_of("backend", backend, _BACKENDS)]
    workers = available_cpus() if n_workers is None else positive_int("n_workers", n_workers)
    if backend == "serial" and n_workers is not None and n_workers > 1:
        raise InputError(
            'backend="serial" runs in this process',
            expected="n_workers=1 or None",
            got=n_workers,
            next_step='Choose backend="joblib" for several workers.',
        )
    results: list[Result] = []
    if not tasks:
        return results
    outcomes = run(fn, tasks, min(workers, len(tasks)))
    try:
        for index, outcome in enumerate(outcomes):
            results.append(_unwrap(outcome, index, tasks[index]))
            if progress is not None:
                progress(len(results), len(tasks))
    finally:
        outcomes.close()
    return results


def _attempt(fn: Callable[[Any], Any], task: Any) -> Outcome:
    """Return (True, result) or (False, failure), so that no backend rewrites the error."""
    try:
        return True, fn(task)
    except MetierError as error:
        return False, error
    except Exception as error:
        return False, (f"{type(error).__name__}: {error}", traceback.format_exc())


def _unwrap(outcome: Outcome, index: int, task: object) -> Any:
    ok, value = outcome
    if ok:
        return value
    text = repr(task)
    name = text if len(text) <= _LONG else text[: _LONG - 3] + "..."
    if isinstance(value, MetierError):
        value.add_note(f"raised by task {index} ({name})")
        raise value
    failure = TaskError(index, name, value[0])
    failure.add_note(value[1])
    raise failure


def available_cpus() -> int:
    """Return the CPUs this process may use.

    Example:
        >>> available_cpus() >= 1
        True
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _serial(fn: Callable[[Any], Any], tasks: Sequence[Any], n_workers: int) -> Outcomes:
    for task in tasks:
        yield _attempt(fn, task)


def _joblib(fn: Callable[[Any], Any], tasks: Sequence[Any], n_workers: int) -> Outcomes:
    from joblib import Parallel, delayed

    runner = Parallel(n_jobs=n_workers, backend="loky", return_as="generator", batch_size=1)
    outcomes = runner(delayed(_attempt)(fn, task) for task in tasks)
    try:
        for outcome in outcomes:  # noqa: UP028, `yield from` would close it outside of the filter below
            yield outcome
    finally:
        with warnings.catch_warnings():
            # After a failure the later tasks are dropped on purpose; whether joblib warns is a race.
            warnings.filterwarnings("ignore", r"\d+ tasks (have been|which were)", UserWarning)
            outcomes.close()


def _dask(fn: Callable[[Any], Any], tasks: Sequence[Any], n_workers: int) -> Outcomes:
    require("distributed")
    with _dask_client(n_workers) as client:
        # Scattered, because data inside a call travels through the scheduler and draws a warning.
        shared, *inputs = client.scatter([fn, *tasks], hash=False)
        futures = [client.submit(_attempt, shared, task, pure=False) for task in inputs]
        try:
            for future in futures:
                yield future.result()
        finally:
            client.cancel(futures)


@contextmanager
def _dask_client(n_workers: int) -> Iterator[Any]:
    from distributed import Client, LocalCluster, default_client

    try:
        yield default_client()
        return
    except ValueError:  # no client is running
        pass
    # Any free port: the default one warns where another cluster holds it, even without a dashboard.
    options = {
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "scheduler_kwargs": {"dashboard": False},
        "threads_per_worker": 1,
    }
    with LocalCluster(n_workers=n_workers, **options) as cluster, Client(cluster) as client:
        yield client


def _ray(fn: Callable[[Any], Any], tasks: Sequence[Any], n_workers: int) -> Outcomes:
    with _ray_session(n_workers) as ray:
        attempt, shared = ray.remote(_attempt_bytes), ray.put(fn)
        references = [attempt.remote(shared, task) for task in tasks]
        for reference in references:
            yield pickle.loads(ray.get(reference))


def _attempt_bytes(fn: Callable[[Any], Any], task: Any) -> bytes:
    # As bytes, because arrays that ray hands over itself are read-only views of a store we shut down.
    from ray import cloudpickle

    return bytes(cloudpickle.dumps(_attempt(fn, task)))


@contextmanager
def _ray_session(n_workers: int) -> Iterator[Any]:
    # Workers look modules up where this process does.
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    ours = {**_RAY_ENVIRONMENT, "PYTHONPATH": paths}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        ray: Any = require("ray")
        if ray.is_initialized():
            yield ray
            return
        ray.init(
            num_cpus=n_workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _node_ip_address="127.0.0.1",
        )
        try:
            yield ray
        finally:
            ray.shutdown()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_BACKENDS: dict[str, Backend] = {"serial": _serial, "joblib": _joblib, "dask": _dask, "ray": _ray}
