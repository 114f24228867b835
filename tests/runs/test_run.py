import json

import numpy as np
import pytest

from metier.core.errors import InputError
from metier.records.results import Result
from metier.runs import Run, find_runs, read_result, read_timings

SETTINGS = {"study": "toy", "size": "tour", "config": {"n": 3, "gate": "crossfit"}, "seed": 7}


def result(**changes):
    fields = {"study": "toy", "family": "core", "size": "tour", "seed": 7, "title": "Toy", "question": "?"}
    return Result(**(fields | changes))


def test_cell_should_compute_once_and_return_the_same_after_reopening(tmp_path):
    calls = []

    def work():
        calls.append(1)
        return {"mean": np.float32(0.1), "rows": (np.arange(2), 3), 5: np.int64(4)}

    with Run.create(tmp_path / "a", **SETTINGS) as run:
        fresh = run.cell("x", work)
        assert run.cell("x", work) == fresh
    with Run.open(tmp_path / "a") as run:
        assert run.cell("x", work) == fresh
    assert fresh == {"mean": float(np.float32(0.1)), "rows": [[0, 1], 3], "5": 4}
    assert len(calls) == 1


def test_cell_should_hand_out_copies(tmp_path):
    with Run.create(tmp_path / "a", **SETTINGS) as run:
        run.cell("x", lambda: [1]).append(2)
        assert run.cell("x", lambda: [1]) == [1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {"a": {1, 2}}])
def test_cell_should_refuse_what_json_cannot_hold(tmp_path, value):
    with Run.create(tmp_path / "a", **SETTINGS) as run:
        with pytest.raises(InputError, match=r"cell 'x' must be JSON with finite numbers"):
            run.cell("x", lambda: value)
        assert not run.has_cell("x")


def test_failed_cell_should_leave_no_line(tmp_path):
    with Run.create(tmp_path / "a", **SETTINGS) as run:
        with pytest.raises(ZeroDivisionError):
            run.cell("x", lambda: 1 / 0)
        assert run.cell("x", lambda: 2) == 2


@pytest.mark.parametrize("torn", [b'{"v":2,"cell":"y","va', b"\x00\x00\n", b"12\n", b"\n", b"{\r12"])
def test_torn_last_line_should_be_dropped(tmp_path, torn):
    with Run.create(tmp_path / "a", **SETTINGS) as run:
        run.cell("x", lambda: 1)
    journal = tmp_path / "a" / "metrics.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + torn)
    with Run.open(tmp_path / "a") as run:
        assert run.cell("x", lambda: 99) == 1
        assert run.cell("y", lambda: 2) == 2
    lines = journal.read_bytes().splitlines(keepends=True)
    assert lines[0] == whole
    assert [json.loads(line)["cell"] for line in lines] == ["x", "y"]


def test_corrupt_middle_line_should_be_one_clear_error(tmp_path):
    with Run.create(tmp_path / "a", **SETTINGS) as run:
        run.cell("x", lambda: 1)
        run.cell("y", lambda: 2)
    journal = tmp_path / "a" / "metrics.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    damaged = b"{oops\n" + lines[1]
    journal.write_bytes(damaged)
    with pytest.raises(InputError, match=r"JSON record with its own checksum on line 1 of .*metrics\.jsonl"):
        Run.open(tmp_path / "a")
    assert journal.read_bytes() == damaged


def test_an_altered_number_should_not_be_taken_for_a_result(tmp_path):
    with Run.create(tmp_path / "a", **SETTINGS) as run:
        run.cell("x", lambda: 0.1 + 0.2)
        run.cell("y", lambda: [-0.0, 1e-300, "é"])
    with Run.open(tmp_path / "a") as run:
        assert run.cell("x", lambda: 0) == 0.1 + 0.2
    journal = tmp_path / "a" / "metrics.jsonl"
    journal.write_text(journal.read_text().replace("0.30000000000000004", "0.4"))
    with pytest.raises(InputError, match=r"its own checksum on line 1 of"):
        Run.open(tmp_path / "a")


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json"])
def test_wrong_version_should_be_one_clear_error(tmp_path, name):
    folder = tmp_path / "a"
    with Run.create(folder, **SETTINGS) as run:
        run.cell("x", lambda: 1)
        run.finish(result())
    path = folder / name
    path.write_text(
        path.read_text().replace('"schema_version": 1', '"schema_version": 9').replace('"v":2', '"v":9')
    )
    with pytest.raises(InputError, match=rf"version [12] .*{name}, got version 9"):
        read_result(folder) if name == "result.json" else Run.open(folder)


def test_locked_run_should_be_refused_and_freed_on_close(tmp_path):
    with (
        Run.create(tmp_path / "a", **SETTINGS),
        pytest.raises(InputError, match="another process is writing"),
    ):
        Run.open(tmp_path / "a")
    Run.open(tmp_path / "a").close()


def test_create_should_refuse_a_used_folder(tmp_path):
    Run.create(tmp_path / "a", **SETTINGS).close()
    with pytest.raises(InputError, match="which holds a run"):
        Run.create(tmp_path / "a", **SETTINGS)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"holds thesis\.tex"):
        Run.create(tmp_path / "b", **SETTINGS)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": 8}, r"expected seed=7, as in .*, got seed=8"),
        ({"size": "full"}, r"expected size='tour'.* got size='full'"),
        ({"config": {"n": 4, "gate": "crossfit"}}, r"expected n=3.* got n=4"),
        ({"config": {"n": 3}}, r"expected gate='crossfit'.* got gate=None"),
    ],
)
def test_resume_should_refuse_a_different_run_and_name_the_key(tmp_path, change, text):
    Run.create(tmp_path / "a", **SETTINGS).close()
    with pytest.raises(InputError, match=text):
        Run.start(tmp_path / "a", **(SETTINGS | change), resume=True)


def test_start_should_need_resume_to_go_on(tmp_path):
    Run.start(tmp_path / "a", **SETTINGS, resume=True).close()
    with pytest.raises(InputError, match="Add --resume to go on"):
        Run.start(tmp_path / "a", **SETTINGS)
    Run.start(tmp_path / "a", **SETTINGS, resume=True).close()


def test_finish_should_refuse_a_result_of_another_run(tmp_path):
    with Run.create(tmp_path / "a", **SETTINGS) as run:
        with pytest.raises(InputError, match="expected seed=7"):
            run.finish(result(seed=8))
        run.finish(result())
    assert read_result(tmp_path / "a") == result()
    assert read_timings(tmp_path / "a")["cells"] == {}


def test_rng_should_depend_on_seed_study_and_labels_only(tmp_path):
    with Run.create(tmp_path / "a", **SETTINGS) as a, Run.create(tmp_path / "b", **SETTINGS) as b:
        b.rng("other").random()
        assert a.rng("x", 1).random() == b.rng("x", 1).random()
        assert a.rng("x", 1).random() != a.rng("x", 2).random()


def test_run_files_should_name_no_folder(tmp_path):
    with Run.create(tmp_path / "a", **SETTINGS) as run:
        run.finish(result())
    for path in (tmp_path / "a").glob("*.json"):
        assert str(tmp_path) not in path.read_text()
        assert json.loads(path.read_text())


def test_changed_environment_should_be_noted_on_resume(tmp_path):
    Run.create(tmp_path / "a", **SETTINGS).close()
    env = tmp_path / "a" / "env.json"
    env.write_text(env.read_text().replace('"metier": "', '"metier": "old-'))
    Run.open(tmp_path / "a").close()
    assert "resumed_with" in (tmp_path / "a" / "metrics.jsonl").read_text()


def test_find_runs_should_look_two_levels_down(tmp_path):
    for name in ("tour/forecast", "tour/moe/seed-1"):
        Run.create(tmp_path / name, **SETTINGS).close()
    assert [p.name for p in find_runs(tmp_path / "tour")] == ["forecast", "seed-1"]
    with pytest.raises(InputError, match="which is no folder"):
        find_runs(tmp_path / "nothing")


def test_read_result_should_say_that_a_run_is_unfinished(tmp_path):
    Run.create(tmp_path / "a", **SETTINGS).close()
    with pytest.raises(InputError, match="use --resume"):
        read_result(tmp_path / "a")


def test_a_lock_should_be_released_from_another_thread(tmp_path):
    import threading

    from metier.runs.lock import FolderLock

    lock = FolderLock(tmp_path)
    with pytest.raises(InputError, match="one process writes a run"):
        FolderLock(tmp_path)
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    FolderLock(tmp_path).release()
