import random
import signal
import time

import pytest

from metier.runs import execute, read_result

CELLS, CELL_SECONDS = 12, 0.1


def cells(folder):
    """How many cells a run has finished."""
    journal = folder / "metrics.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def kill_and_resume(process, folder, *, kills, seed):
    """Kill the study `kills` times, each in a random cell that is still to come, then let it end."""
    moments = random.Random(seed)
    killed = 0
    for left in range(kills, 0, -1):
        child = process(folder)
        assert child.stdout.readline() == "ready\n"
        # Cells are counted, not timed, and each kill leaves some to the next.
        reach = moments.randint(cells(folder), max(cells(folder), CELLS - 2 * left))
        while child.poll() is None and cells(folder) < reach:
            time.sleep(0.001)
        time.sleep(moments.uniform(0.0, CELL_SECONDS))
        child.kill()
        killed += child.wait() == -signal.SIGKILL
    child = process(folder)
    _, err = child.communicate(timeout=1200)
    assert child.returncode == 0, err
    return killed


def undisturbed(folder):
    from toy_study import STUDY

    execute(STUDY, folder, overrides={"seconds": str(CELL_SECONDS)}, seed=5)
    return (folder / "result.json").read_bytes()


def test_killed_run_should_resume_to_the_same_bytes(tmp_path, process):
    killed = kill_and_resume(process, tmp_path / "killed", kills=5, seed=1)
    assert killed >= 3
    assert (tmp_path / "killed" / "result.json").read_bytes() == undisturbed(tmp_path / "calm")


@pytest.mark.slow
@pytest.mark.evidence("src/metier/core", "src/metier/runs", "studies/metier_studies")
def test_runs_killed_often_should_resume_to_the_same_bytes(tmp_path, process, amount):
    calm, killed, runs = undisturbed(tmp_path / "calm"), 0, amount("runs", sample=2, whole=6)
    for run in range(runs):
        killed += kill_and_resume(process, tmp_path / f"killed-{run}", kills=5, seed=10 + run)
        assert (tmp_path / f"killed-{run}" / "result.json").read_bytes() == calm
    assert killed >= 4 * runs


def test_ctrl_c_should_exit_130_and_resume_to_the_same_bytes(tmp_path, process):
    folder = tmp_path / "a"
    words = ["cli", "run", "toy", "--set", "seconds=0.2", "--out", folder]
    child = process(*words)
    journal = folder / "metrics.jsonl"
    deadline = time.monotonic() + 600
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=1200)
    assert child.returncode == 130
    assert out == ""
    assert err.splitlines()[-1].startswith(
        "interrupted; everything finished is saved. Go on with: metier run toy"
    )
    assert not (folder / "result.json").exists()
    child = process(*words, "--resume")
    child.communicate(timeout=1200)
    assert child.returncode == 0
    calm = process(*words[:-1], tmp_path / "b")
    calm.communicate(timeout=1200)
    assert read_result(folder) == read_result(tmp_path / "b")
    assert (folder / "result.json").read_bytes() == (tmp_path / "b" / "result.json").read_bytes()


def test_second_process_should_be_refused_until_the_first_is_gone(tmp_path, process):
    folder = tmp_path / "a"
    words = ("cli", "run", "toy", "--set", "seconds=0.5", "--out", folder)
    first = process(*words)
    deadline = time.monotonic() + 600
    while not (folder / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    # It holds the folder for as long as it takes, however slow the machine is.
    first.send_signal(signal.SIGSTOP)
    second = process(*words, "--resume")
    _, err = second.communicate(timeout=1200)
    assert second.returncode == 2
    assert "another process is writing" in err
    first.kill()
    assert first.wait() == -signal.SIGKILL
    third = process(*words[:-2], "--out", folder, "--resume")
    _, err = third.communicate(timeout=1200)
    assert third.returncode == 0, err
