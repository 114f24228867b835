"""Ctrl-C anywhere in a tour of real studies; the command that it then names ends with the same bytes."""

from __future__ import annotations

import random
import shlex
import signal
import subprocess
import sys
import time

import pytest

STUDIES = ("forecast", "exponents")


def tour(folder, *words):
    only = [word for name in STUDIES for word in ("--only", name)]
    command = [sys.executable, "-m", "metier", "tour", *only, "--seed", "0", "--out", str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def cells(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*/metrics.jsonl"))


@pytest.mark.slow
def test_interrupted_tour_should_resume_to_the_same_bytes(tmp_path):
    calm, cut = tmp_path / "calm", tmp_path / "cut"
    began = time.monotonic()
    undisturbed = tour(calm)
    _, err = undisturbed.communicate(timeout=1200)
    assert undisturbed.returncode == 0, err
    seconds, moments, interrupted, words = time.monotonic() - began, random.Random(0), 0, ()
    for share in (0.3, 0.5, 0.8):
        process = tour(cut, *words)
        # A share of the whole tour's cells, then a moment later: inside either study.
        while cells(cut) < share * cells(calm) and process.poll() is None:
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, 0.05 * seconds))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=1200)
        if process.returncode == 0:
            continue
        assert process.returncode == 130
        last = err.splitlines()[-1]
        assert last.startswith("interrupted; everything finished is saved. Go on with: ")
        named = shlex.split(last.split("Go on with: ")[1])
        assert named[-3:] == ["--out", str(cut), "--resume"]
        interrupted, words = interrupted + 1, ("--resume",)
    assert interrupted >= 2
    process = tour(cut, "--resume")
    process.communicate(timeout=1200)
    assert process.returncode == 0
    for name in STUDIES:
        assert (cut / name / "result.json").read_bytes() == (calm / name / "result.json").read_bytes()
