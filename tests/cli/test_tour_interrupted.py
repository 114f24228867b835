"""Ctrl-C anywhere in a tour of real studies; the command that it then names ends with the same bytes."""

from __future__ import annotations

import random
import shlex
import signal
import subprocess
import sys
import time

import pytest

from metier.runs import read_timings

STUDIES = ("iv", "forecast", "exponents")
ROOMS = ("core", "data", "runs", "report", "studies", "cli", "bilevel", "forecast", "multi_index")


def tour(studies, folder, *words):
    only = [word for name in studies for word in ("--only", name)]
    command = [sys.executable, "-m", "metier", "tour", *only, "--seed", "0", "--out", str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def cells(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*/metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.evidence(*(f"src/metier/{room}" for room in ROOMS))
def test_interrupted_tour_should_resume_to_the_same_bytes(tmp_path, amount):
    """In `make slow` the quickest study, interrupted once; in `make evidence` all three, four times."""
    studies = STUDIES[: amount("studies", sample=1, whole=3)]
    shares = (0.5, 0.2, 0.7, 0.9)[: amount("interruptions", sample=1, whole=4)]
    calm, cut = tmp_path / "calm", tmp_path / "cut"
    undisturbed = tour(studies, calm)
    _, err = undisturbed.communicate(timeout=1800)
    assert undisturbed.returncode == 0, err
    seconds = [each for name in studies for each in read_timings(calm / name)["cells"].values()]
    moments, words = random.Random(0), ()
    for share in sorted(shares):
        process = tour(studies, cut, *words)
        # A share of the whole tour's cells, counted rather than timed; then a moment within the next cell.
        reach = int(share * len(seconds))
        while cells(cut) < reach and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, seconds[reach]))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=1800)
        assert process.returncode == 130, err
        last = err.splitlines()[-1]
        assert last.startswith("interrupted; everything finished is saved. Go on with: ")
        named = shlex.split(last.split("Go on with: ")[1])
        assert named[-3:] == ["--out", str(cut), "--resume"]
        words = ("--resume",)
    process = tour(studies, cut, "--resume")
    _, err = process.communicate(timeout=1800)
    assert process.returncode == 0, err
    for name in studies:
        assert (cut / name / "result.json").read_bytes() == (calm / name / "result.json").read_bytes()
