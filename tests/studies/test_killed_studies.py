"""Every study, made small, is killed (signal 9) in random cells and must resume to the same bytes.

Once each in `make slow`, thirty times in `make evidence`; partners in the latter alone.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from multiprocessing import forkserver

import pytest

from metier.core.registry import load_study, registry
from metier.runs import execute, read_timings

PER_RUN = 3
# What studies import when they run: once here, in place of once in every process.
LATER = ["polars", "numba", "torch._dynamo", "accelerate", "transformers.models.bert.modeling_bert"]
MINIATURES = {
    "forecast": {
        "n_series": "24", "season_length": "none", "n_clusters": "2", "origins": "2", "homogeneous": "2",
        "permutations": "19",
    },
    "forecast-gate": {
        "homogeneous_seeds": "2", "power_seeds": "2", "both_seeds": "2", "recovery_seeds": "2",
        "noise_seeds": "2",
    },
    "forecast-panels": {
        "panels": "simulated_strong,simulated_homogeneous", "max_series": "20", "max_steps": "400",
        "n_windows": "3",
    },
    "exponents": {
        "smooth": "abs", "steps": "3", "spectral_dimension": "30", "spectral_seeds": "2",
        "committee_factors": "0.5,3", "committee_dimension": "20", "committee_seeds": "2",
        "onset_dimensions": "16,20", "onset_factors": "1,3", "onset_seeds": "2", "student_factors": "2",
        "student_dimension": "12", "student_seeds": "1", "ladder_units": "24",
    },
    "iv": {"cases": "labsup,card", "repeats": "1", "plugin_seeds": "6", "weak_seeds": "6"},
    "bilevel-paper": {
        "replicates": "5", "sizes_1": "200", "sizes_4": "100", "kernel_replicates": "2",
        "kernel_sizes": "100", "penalties": "0.01", "bellman_replicates": "5", "bellman_sizes": "200",
    },
    "bilevel-lasso": {"sizes": "100,200", "seeds": "5", "folds": "2"},
    "bilevel-sources": {
        "gradient_sizes": "300", "gradient_seeds": "5", "weight_n": "150", "weight_seeds": "1",
        "n_airports": "12", "n_clusters": "2", "n_weeks": "4",
    },
    "bilevel-warnings": {
        "shapes": "linear,sine", "sizes": "200", "strengths": "0.1,0.8", "cells": "6", "seeds": "4",
        "workers": "1",
    },
    "moe-balancing": {
        "arms": "phi,none,switch", "headline_seeds": "2", "pure_arms": "phi", "pure_seeds": "1",
        "tuning_steps": "3", "steps": "4", "characters": "12000", "dim": "16", "heads": "2", "hidden": "8",
        "n_experts": "4", "length": "32", "rows": "4", "windows": "4", "permutations": "3", "buckets": "64",
        "bias_sizes": "8,32", "bias_batches": "20", "workers": "1",
    },
    "moe-upcycling": {
        "seeds": "2", "workers": "1", "per_work": "6", "length": "16", "trained_layers": "1", "rows": "4",
        "steps": "2",
    },
    "multilinear-digits": {
        "images": "digits", "arms": "dense,low_rank,sparse,cp-4,cp-64,mxd-4,cp-1024,cp-1024-flat",
        "rates": "0.001,0.003", "seeds": "2", "rows": "400", "steps": "6", "permutations": "9",
    },
    "multilinear-minilm": {
        "seeds": "2", "per_work": "6", "length": "16", "rows": "2", "steps": "2", "permutations": "3",
    },
    "multilinear-bias": {
        "images": "digits", "seeds": "2", "rows": "600", "steps": "8", "grid": "4", "marked_positive": "0.1",
    },
    "partners": {
        "n_members": "2", "payoffs": "1,0.9", "n_seeds": "1", "episodes": "4", "hidden": "4",
        "generalist_units": "2", "n_pairs": "none", "n_envs": "2", "generalist_envs": "2", "n_steps": "4",
        "epochs": "1", "minibatches": "1", "reports": "1", "workers": "1", "pair_episodes": "2",
        "self_play_steps": "64", "generation_steps": "64", "distill_steps": "64", "generalist_steps": "64",
        "oracle_steps": "64",
    },
}  # fmt: skip


SOURCES = {
    name: [f"src/metier/{room}" for room in ("core", "data", "runs", "studies", entry.family)]
    for name, entry in registry().items()
}


def test_every_study_should_have_a_miniature():
    assert set(MINIATURES) == set(registry())


def one_run(name, folder):
    """Run or resume the miniature; the target of a process of its own."""
    execute(load_study(name), folder, overrides=MINIATURES[name], seed=3, resume=True)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Start `one_run` in a fresh process; processes are forked from one that has the studies imported.

    What XLA compiles for one of them is kept for the others, without its costly passes.
    """
    patch, started = pytest.MonkeyPatch(), []
    patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("xla")))
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([entry.target.split(":")[0] for entry in registry().values()] + LATER)

    def start(name, folder):
        started.append(context.Process(target=one_run, args=(name, folder)))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()
    # Waits for it, so that what its processes used is counted as ours.
    forkserver._forkserver._stop()
    patch.undo()


def finish(process):
    process.join()
    assert process.exitcode == 0


def records(folder):
    """What a run leaves for its readers, without the times it took."""
    kept = [folder / "result.json", *sorted((folder / "populations").rglob("*.safetensors"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def cells(folder):
    """How many cells a run has finished."""
    journal = folder / "metrics.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def killed_somewhere(process, folder, seconds, moments):
    """Kill a run in a random cell, or before the first or after the last; whether it was still running.

    The cell is counted, not timed, so a slow machine kills in the same one; only how deep into the cell
    is a matter of time.
    """
    reach = moments.randint(cells(folder), len(seconds))
    while process.is_alive() and cells(folder) < reach:
        time.sleep(0.002)
    process.join(moments.uniform(0.0, [*seconds, 0.1][reach]))
    killed = process.is_alive()
    process.kill()
    process.join()
    assert killed or process.exitcode == 0
    return killed


def marked(name):
    """Slow and evidence; partners, which compile for minutes, are cut short in test_partners_study.py."""
    slow = [] if name == "partners" else [pytest.mark.slow]
    return pytest.param(name, marks=[pytest.mark.evidence(*SOURCES[name]), *slow])


@pytest.mark.parametrize("name", [marked(name) for name in MINIATURES])
def test_a_killed_study_should_resume_to_its_own_bytes(name, start, tmp_path, amount):
    kills = amount("kills", sample=1, whole=30)
    finish(start(name, tmp_path / "whole"))
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    timings = read_timings(tmp_path / "whole")["cells"]
    seconds = [timings.get(json.loads(line).get("cell"), 0.0) for line in lines]
    moments, killed, round_ = random.Random(name), 0, 0
    while killed < kills:
        folder = tmp_path / f"killed-{round_}"
        for _ in range(min(PER_RUN, kills - killed)):
            killed += killed_somewhere(start(name, folder), folder, seconds, moments)
        finish(start(name, folder))
        assert records(folder) == records(tmp_path / "whole")
        round_ += 1
        assert round_ <= 10 + kills, "runs end before they can be killed"
