"""`map_tasks`: the same results from every backend, and errors that name the task."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest

from metier.core import InputError, MissingExtraError, TaskError, derive, map_tasks


def draw(task):
    name, values = task
    return values + derive(7, name).standard_normal(values.size)


def sleep_then_refuse_zero(task):
    time.sleep({0: 0.5, 3: 3.0}.get(task, 0.0))
    return 1 / task


def refuse_three(task):
    if task == 3:
        raise ZeroDivisionError("nothing to divide")
    return task


def refuse_series(task):
    if task == 1:
        raise InputError(
            "series is long enough", expected="30 steps", got="12 in 'ABE'", next_step="Drop it."
        )
    return task


def process_id(_):
    return os.getpid()


# The last task and its result are large enough (16 MB) for the shared stores and warnings of the backends.
TASKS = [(f"fold {i}", np.arange(3.0 + i)) for i in range(4)] + [("large", np.arange(2_000_000.0))]


def run_in_order(backend, n_workers):
    """The tasks on this backend: the serial bits, writable, with progress one by one."""
    expected = [draw(task) for task in TASKS]
    seen = []
    results = map_tasks(
        draw, TASKS, backend=backend, n_workers=n_workers, progress=lambda *step: seen.append(step)
    )
    assert [result.tobytes() for result in results] == [value.tobytes() for value in expected]
    assert all(result.flags.writeable for result in results)
    assert seen == [(i, 5) for i in range(1, 6)]


@pytest.mark.parametrize(
    ("backend", "n_workers"),
    [("joblib", 1), ("joblib", 2), pytest.param("dask", 1, marks=pytest.mark.slow), ("dask", 2)],
)
def test_every_backend_returns_the_serial_results_in_order(backend, n_workers):
    run_in_order(backend, n_workers)


def check_failure(backend):
    with pytest.raises(
        TaskError, match=r"(?m)^task 3 \(3\) failed: ZeroDivisionError: nothing to divide$"
    ) as info:
        map_tasks(refuse_three, range(6), backend=backend)
    assert info.value.index == 3
    assert "in refuse_three" in info.value.__notes__[0]


@pytest.mark.parametrize("backend", ["serial", "joblib", pytest.param("dask", marks=pytest.mark.slow)])
def test_failing_task_is_named(backend):
    check_failure(backend)


def test_results_that_are_ready_when_an_earlier_task_fails_are_dropped_in_silence():
    # Tasks 1 and 2 end before task 0 fails, task 3 after it: joblib would warn of results that go unused.
    with pytest.raises(TaskError, match=r"task 0 \(0\) failed: ZeroDivisionError"):
        map_tasks(sleep_then_refuse_zero, range(4), backend="joblib", n_workers=2)


@pytest.mark.parametrize("backend", ["serial", "joblib"])
def test_input_error_of_a_task_stays_an_input_error_with_a_note(backend):
    with pytest.raises(InputError, match=r"expected 30 steps, got 12 in 'ABE'") as info:
        map_tasks(refuse_series, [0, 1, 2], backend=backend)
    assert info.value.__notes__ == ["raised by task 1 (1)"]
    assert info.value.got == "12 in 'ABE'"


def test_a_running_dask_client_is_used_and_left_running():
    distributed = pytest.importorskip("distributed")
    with distributed.Client(processes=False, n_workers=1, dashboard_address=None) as client:
        # Threads of this process: only the running client can give this answer.
        assert map_tasks(process_id, [0, 1], backend="dask") == [os.getpid()] * 2
        check_failure("dask")
        assert client.status == "running"


@pytest.fixture
def ray_environment(monkeypatch):
    """Settings of the caller, which must stand again afterwards, with no session left behind."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    yield
    assert not ray.is_initialized()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
    assert "RAY_AUTH_MODE" not in os.environ


def test_ray_returns_the_serial_results_and_puts_session_and_environment_back(ray_environment):
    run_in_order("ray", 2)


@pytest.mark.slow
def test_ray_failure_is_named_and_session_and_environment_are_put_back(ray_environment):
    with pytest.raises(TaskError, match=r"task 3 \(3\) failed: ZeroDivisionError"):
        map_tasks(refuse_three, range(6), backend="ray", n_workers=1)


def test_no_tasks_start_nothing():
    assert map_tasks(draw, [], backend="ray") == []


def test_an_array_of_tasks_is_named_briefly():
    with pytest.raises(TaskError, match=r"task 0 .{118,123} failed: TypeError"):
        map_tasks(lambda task: None + 1, [np.arange(500).tolist()])


def test_serial_refuses_several_workers():
    with pytest.raises(InputError, match=r"expected n_workers=1 or None, got 4\. Choose backend=\"joblib\""):
        map_tasks(abs, [1], n_workers=4)


def test_unknown_backend_names_its_neighbor():
    with pytest.raises(InputError, match=r"got 'desk'\. Did you mean 'dask'\?"):
        map_tasks(abs, [1], backend="desk")


def test_missing_extra_names_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r'extra .dist.*pip install .*"ray>='):
        map_tasks(abs, [1, 2], backend="ray")
