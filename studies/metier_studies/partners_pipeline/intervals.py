"""Intervals over seeds of numbers that each seed's episodes know only roughly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from metier.core import Estimate
from metier.records import Measured, measured

from .settings import PartnersConfig

Facts = Mapping[str, Any]
LEVEL = 0.95
SHARE_CAPABLE = 0.75
FEWEST_COVERED = 3
FEWEST_SEEDS = 3


def over_seeds(values: Sequence[float], stderrs: Sequence[float], *, percent: bool = False) -> Measured:
    """Return the mean over seeds with its hierarchical interval: seeds, and episodes within them.

    The variance of the mean is s^2 / n over the n seeds, which holds the episodes' share already, and at
    least what the episodes alone make of it, sum of se^2 / n^2; with Student's t of n - 1 degrees of
    freedom. One seed has the normal interval of its episodes only, and none if it was measured exactly.

    Args:
        values: One per seed.
        stderrs: Standard errors within each seed; 0 for exact values.
        percent: The numbers are shares, to be shown in percent.

    Example:
        >>> round(over_seeds([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).high, 4)
        4.4841
    """
    x, within = np.asarray(values, float), np.asarray(stderrs, float)
    n = len(x)
    of_episodes = float(np.sqrt((within**2).sum())) / n
    if n == 1:
        half = stats.norm.ppf(0.5 + LEVEL / 2.0) * of_episodes
        method = "episodes of one seed"
    else:
        spread = max(float(x.std(ddof=1)) / math.sqrt(n), of_episodes)
        half = stats.t.ppf(0.5 + LEVEL / 2.0, n - 1) * spread
        method = "Student t over seeds"
    mean = float(x.mean())
    if half == 0.0:
        return measured(Estimate.from_values(x, level=LEVEL, unit="seeds"), percent=percent)
    return Measured(
        value=mean,
        low=mean - half,
        high=mean + half,
        level=LEVEL,
        n=n,
        unit="seeds",
        method=method,
        percent=percent,
    )


def told(facts: Facts, name: str) -> tuple[float, float]:
    """Return D, S or I with its standard error: exact, else corrected from counts; 0 if nobody is capable."""
    exact = facts.get("exact", {})
    if name in exact:
        return float(exact[name]), 0.0
    if "told" not in facts:
        return 0.0, 0.0
    return float(facts["told"][name]), float(facts["told"]["stderr"][name])


def overfitness(facts: Facts) -> tuple[float, float]:
    """Return O = 1 - HM of the oracle's success, with its standard error."""
    return 1.0 - float(facts["with_oracle"]["robustness"]), float(facts["with_oracle"]["stderr"])


def robustness(facts: Facts) -> tuple[float, float]:
    """Return R = HM of the generalist's success with held-out specialists, with its standard error."""
    return float(facts["with_strangers"]["robustness"]), float(facts["with_strangers"]["stderr"])


Number = Callable[[Facts], tuple[float, float]]

MEASURES: dict[str, Number] = {
    "D": lambda facts: told(facts, "diversity"),
    "S": lambda facts: told(facts, "specialization"),
    "I": lambda facts: told(facts, "information"),
    "O": overfitness,
    "R": robustness,
}
"""The measures of a population by their letters: value and standard error within a seed."""


def mean_over_seeds(rows: Sequence[Facts], letter: str) -> Measured:
    """Return one measure of an arm over its seeds."""
    values, stderrs = zip(*map(MEASURES[letter], rows), strict=True)
    return over_seeds(values, stderrs)


def gains(low: Sequence[Facts], high: Sequence[Facts], letter: str, sign: float) -> tuple[Any, Any]:
    """Return sign times (high - low) of a measure by seed, with standard errors."""
    first, second = (np.array([MEASURES[letter](facts) for facts in rows]) for rows in (low, high))
    return sign * (second[:, 0] - first[:, 0]), np.hypot(first[:, 1], second[:, 1])


def counts_as_population(config: PartnersConfig, facts: Facts) -> bool:
    """Return whether enough members are capable and enough behaviours are covered to speak of partners."""
    capable = sum(facts["capable"])
    return capable >= SHARE_CAPABLE * config.n_members and facts["covered"] >= FEWEST_COVERED
