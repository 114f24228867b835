"""The speed goals of every family, each with the place in the records where its number stands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Goal:
    """One number of one record, and the bound it is held to.

    Args:
        family: the system.
        what: the quantity in words, with its unit.
        record: name of the file in benchmarks/results, without its ending.
        path: keys from the record's result to the number, joined by "/".
        sense: whether the number should be at least or at most the bound.
        bound: the goal.
        scale: what the stored number is multiplied by.
    """

    family: str
    what: str
    record: str
    path: str
    sense: Literal["at least", "at most"]
    bound: float
    scale: float = 1.0

    def measured(self, folder: Path = RESULTS) -> float:
        """Return the number in the record; raise KeyError or FileNotFoundError where there is none."""
        value: Any = json.loads((folder / f"{self.record}.json").read_text(encoding="utf-8"))["result"]
        for key in self.path.split("/"):
            value = value[key]
        return float(value) * self.scale

    def met(self, value: float) -> bool:
        """Whether the value keeps the bound."""
        return value >= self.bound if self.sense == "at least" else value <= self.bound


GOALS = (
    Goal(
        "forecast",
        "scikit-learn's time / ours, one clustering iteration of 10,000 series",
        "forecast-iteration",
        "ratios/scikit-learn/cpu_min",
        "at least",
        50,
    ),
    Goal(
        "forecast",
        "NumPy residuals' time / ours, one clustering iteration",
        "forecast-iteration",
        "ratios/numpy residuals/wall_median",
        "at least",
        100,
    ),
    Goal(
        "forecast",
        "wall seconds of a whole fit, 100,000 series of 300 steps",
        "forecast-fit-100000",
        "wall",
        "at most",
        60,
    ),
    Goal(
        "balancing",
        "share of a training step taken by phi, per cent",
        "moe-cost",
        "balancer_share/phi",
        "at most",
        2,
        100,
    ),
    Goal(
        "balancing",
        "share of a training step taken by quantile, per cent",
        "moe-cost",
        "balancer_share/quantile",
        "at most",
        2,
        100,
    ),
    Goal(
        "balancing",
        "loop by `where` / ours, forward and backward, 64 experts",
        "moe-dispatch",
        "times_metier_auto/where loop",
        "at least",
        4,
    ),
    Goal(
        "balancing",
        "cells of 48 in which automatic dispatch is within 10 % of the best backend",
        "moe-grid",
        "within_10_percent",
        "at least",
        48,
    ),
    Goal(
        "multilinear",
        "entmax package / ours, forward and backward, N = 256",
        "multilinear-entmax",
        "256/times_metier/entmax package/cpu_min",
        "at least",
        6,
    ),
    Goal(
        "multilinear",
        "entmax package / ours, forward and backward, N = 2,048",
        "multilinear-entmax",
        "2048/times_metier/entmax package/cpu_min",
        "at least",
        6,
    ),
    Goal(
        "multilinear",
        "softmax / our entmax, forward and backward, N = 2,048",
        "multilinear-entmax",
        "2048/times_metier/softmax/cpu_min",
        "at least",
        0.25,
    ),
    Goal(
        "multilinear",
        "sorting reference / our CP layer, forward, N = 256",
        "multilinear-layer",
        "256/forward/times_metier/sorting reference/cpu_min",
        "at least",
        1.5,
    ),
    Goal(
        "multilinear",
        "sorting reference / our CP layer, forward, N = 2,048",
        "multilinear-layer",
        "2048/forward/times_metier/sorting reference/cpu_min",
        "at least",
        2.7,
    ),
    Goal(
        "multilinear",
        "4,096 hierarchical experts / 64 experts, forward",
        "multilinear-hierarchy",
        "forward/times_64",
        "at most",
        1.3,
    ),
    Goal(
        "multi_index",
        "seconds for the certified table of 27 activations",
        "multi_index-exponents",
        "times/metier/wall_median",
        "at most",
        0.5,
    ),
    Goal(
        "multi_index",
        "milliseconds of one `exponents` call (gelu)",
        "multi_index-exponents",
        "call_cpu_seconds/gelu",
        "at most",
        50,
        1000,
    ),
    Goal(
        "multi_index",
        "wall seconds of a 100 x 100 phase diagram (He4)",
        "multi_index-phase",
        "times/He4/wall_median",
        "at most",
        3,
    ),
    Goal(
        "bilevel",
        "wall seconds of the Figure 4 study, 300 replicates of five sizes",
        "bilevel-figure4",
        "wall",
        "at most",
        60,
    ),
    Goal(
        "bilevel",
        "cost beyond the nuisance fits, per cent (forests)",
        "bilevel-overhead",
        "forest/extra_share",
        "at most",
        10,
        100,
    ),
    Goal(
        "bilevel",
        "wall seconds for 1,000,000 rows with tuned ridge nuisances",
        "bilevel-million",
        "tuned penalty/wall",
        "at most",
        60,
    ),
    Goal(
        "bilevel",
        "GiB at most for 1,000,000 rows",
        "bilevel-million",
        "tuned penalty/peak_gib",
        "at most",
        4,
    ),
    Goal(
        "partners",
        "cooking alone, thousands of steps per CPU-second at batch 256",
        "partners-environment",
        "steps_per_cpu_second/metier",
        "at least",
        400,
        1e-3,
    ),
    Goal(
        "partners",
        "PPO self-play on cooking, thousands of steps per CPU-second",
        "partners-ppo",
        "steps_per_cpu_second/metier",
        "at least",
        55,
        1e-3,
    ),
    Goal(
        "partners",
        "XP-min with MI on cooking, thousands of steps per CPU-second",
        "partners-xp_min",
        "steps_per_cpu_second/metier",
        "at least",
        30,
        1e-3,
    ),
    Goal(
        "partners",
        "self-play teams of 4 with 90 % success on cooking after 5M steps each",
        "partners-self_play",
        "learned",
        "at least",
        3,
    ),
    Goal(
        "partners",
        "minutes for one seed's XP-min, SpecTRL DAgger, generalist and evaluation, 4 partners",
        "partners-pipeline",
        "minutes",
        "at most",
        30,
    ),
)


def standing(folder: Path = RESULTS) -> Iterator[tuple[Goal, float | None]]:
    """Yield every goal with its measured value, None where no record has it."""
    for goal in GOALS:
        try:
            yield goal, goal.measured(folder)
        except (FileNotFoundError, KeyError):
            yield goal, None


def rows(folder: Path = RESULTS) -> list[list[str]]:
    """Return the table of goals: family, quantity, goal, measured, verdict."""
    table = [["family", "quantity", "goal", "measured", "verdict"]]
    for goal, value in standing(folder):
        verdict = "not measured" if value is None else "met" if goal.met(value) else "**missed**"
        shown = "" if value is None else f"{value:.3g}"
        table.append([goal.family, goal.what, f"{goal.sense} {goal.bound:g}", shown, verdict])
    return table
