"""What a set of trials of `forecast-gate` measures: adoption, TEST gains, the known gain."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from metier.runs import Measured
from metier_studies.lib.shares import LEVEL, share

Trials = Sequence[Mapping[str, Any]]

POWER_GAIN = 0.05
GATE_NAMES = {
    "crossfit": "cross-fitted test (default)",
    "crossfit_hac": "cross-fitted test, HAC",
    "crossfit_cluster": "cross-fitted test per cluster",
    "mean": "cross-fitted mean above zero",
    "paper": "fall-back on the same VAL",
}
SHOWN = ("crossfit", "mean", "paper")
SIZES = {"homogeneous": "100 series x 280 steps", "small_homogeneous": "24 series x 100 steps"}


def adoption(trials: Trials, gate: str, *, level: float = LEVEL) -> Measured:
    """Share of panels on which a gate adopts anything but the global model."""
    return share([trial["chosen"][gate] != "global" for trial in trials], level=level, unit="panels")


def harmed(trials: Trials, gate: str, *, level: float = LEVEL) -> Measured:
    """Share of panels on which what a gate uses forecasts TEST worse than the global model."""
    return share([trial["gain"][gate] < 0.0 for trial in trials], level=level, unit="panels")


def gains(trials: Trials, gate: str) -> list[float]:
    """TEST gain of what a gate uses, per panel."""
    return [trial["gain"][gate] for trial in trials]


def candidate_gains(trials: Trials, name: str) -> list[float]:
    """TEST gain of a candidate without any gate, per panel; "true" is the true partition."""
    return [trial["candidate_gain"][name] for trial in trials]


def known_gain(trials: Trials) -> float:
    """The oracle's gain with unlimited data, averaged over panels."""
    return statistics.fmean(trial["oracle"] for trial in trials)


def power_cases(trials: Mapping[str, Trials]) -> list[str]:
    """Cases of the power curve, by known gain."""
    return sorted(
        (key for key in trials if key.startswith("power-")), key=lambda key: known_gain(trials[key])
    )


def nearest_power(trials: Mapping[str, Trials]) -> str:
    """The case of the power curve whose known gain is nearest to 5 %."""
    return min(power_cases(trials), key=lambda key: abs(known_gain(trials[key]) - POWER_GAIN))
