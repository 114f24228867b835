"""Timing and records of benchmarks: wall and CPU seconds, and what the machine was."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from metier.runs.environment import capture_environment

PAUSE = 0.3
"""Seconds before each timing: idle threads of a BLAS spin for 0.1 s after their last product."""

RESULTS = Path(os.environ.get("METIER_RESULTS", Path(__file__).parent / "results"))
"""Where records go; the environment variable METIER_RESULTS names another folder."""


def timed(fn: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall seconds, CPU seconds of all threads, and the result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = fn()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def in_turn(
    rivals: Mapping[str, Callable[[], Any]], repeats: int, *, loops: Mapping[str, int] | None = None
) -> dict[str, dict[str, Any]]:
    """Time all rivals in turn, `repeats` rounds after one warm-up, so that drift hits all alike.

    `loops` says how often a call repeats the work itself; its times are divided by that.
    """
    within = {name: (loops or {}).get(name, 1) for name in rivals}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for round_ in range(repeats + 1):
        for name, fn in rivals.items():
            time.sleep(PAUSE)
            wall, cpu, _ = timed(fn)
            if round_:
                times[name].append((wall / within[name], cpu / within[name]))
    return {
        name: {
            "wall_median": statistics.median(w for w, _ in pairs),
            "wall_min": min(w for w, _ in pairs),
            "cpu_median": statistics.median(c for _, c in pairs),
            "cpu_min": min(c for _, c in pairs),
            "wall": [w for w, _ in pairs],
            "cpu": [c for _, c in pairs],
        }
        for name, pairs in times.items()
    }


def ratio(times: Mapping[str, Mapping[str, Any]], rival: str, ours: str = "metier") -> dict[str, float]:
    """How many times longer the rival took: median over rounds, and from the two minima."""
    pairs = zip(times[rival]["wall"], times[ours]["wall"], strict=True)
    return {
        "wall_median": statistics.median(b / a for b, a in pairs),
        "wall_min": times[rival]["wall_min"] / times[ours]["wall_min"],
        "cpu_min": times[rival]["cpu_min"] / times[ours]["cpu_min"],
    }


def _without_folder(argument: str) -> str:
    """An argument as a shell takes it; of an absolute path its last part, the folder being this machine's."""
    path = Path(argument)
    return shlex.quote(path.name if path.is_absolute() else argument)


def write(name: str, result: Mapping[str, Any], *, seed: int) -> Path:
    """The result with its circumstances as JSON."""
    record = {
        "benchmark": name,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(
            ["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_without_folder, sys.argv[1:])]
        ),
        "seed": seed,
        "cpu": cpu_model(),
        "load_average": os.getloadavg(),
        **capture_environment(),
        "result": dict(result),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
