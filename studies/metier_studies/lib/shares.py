"""Shares and means over seeds with their intervals, and the verdicts that follow from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import betaincinv

from metier.core import InputError
from metier.core.estimate import Estimate
from metier.runs import Measured

LEVEL = 0.95
MAX_SEEDS = 100_000
FEWEST_SEEDS = 5
"""Seeds below which a mean has no interval: two equal values would look like certainty."""


def clopper_pearson(count: int, n: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Exact two-sided binomial interval: each end excludes at most (1 - level) / 2.

    Args:
        count: successes among `n` independent trials.
        n: trials.
        level: coverage that is never undercut.

    Example:
        >>> [round(end, 4) for end in clopper_pearson(0, 100, level=0.90)]
        [0.0, 0.0295]

    Source: Clopper and Pearson (1934), The use of confidence or fiducial limits, Biometrika 26.
    """
    if not 0 <= count <= n or n < 1:
        raise InputError(
            "a share needs successes among trials",
            expected="0 <= count <= n with n of at least 1",
            got=f"count={count}, n={n}",
            next_step="Count the successes again.",
        )
    tail = (1.0 - level) / 2.0
    low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 1.0 - tail)) if count < n else 1.0
    return low, high


def share(flags: Sequence[bool], *, level: float = LEVEL, unit: str = "seeds") -> Measured:
    """Share of true flags with its exact interval."""
    low, high = clopper_pearson(sum(flags), len(flags), level=level)
    return Measured(
        value=sum(flags) / len(flags),
        low=low,
        high=high,
        level=level,
        n=len(flags),
        unit=unit,
        method="Clopper-Pearson",
        percent=True,
    )


def mean(values: Sequence[float], *, percent: bool = False, unit: str = "seeds") -> Measured:
    """Mean over seeds with its Student interval (none below five seeds)."""
    x = np.asarray(values, dtype=float)
    return _student(float(x.mean()), x - x.mean(), percent=percent, unit=unit)


def ratio(part: Sequence[float], whole: Sequence[float], *, unit: str = "seeds") -> Measured:
    r"""mean(part) / mean(whole) over paired seeds, with the linearized Student interval.

    With r the ratio, its error is the mean of (part - r whole) / mean(whole) to first order.
    """
    p, w = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    r = float(p.mean() / w.mean())
    return _student(r, (p - r * w) / w.mean(), percent=True, unit=unit)


def verdict_above(measured: Measured, threshold: float) -> str:
    """Whether the quantity is above the threshold: decided only where its interval lies on one side."""
    return _verdict(measured, threshold, above=True)


def verdict_below(measured: Measured, threshold: float) -> str:
    """Whether the quantity is below the threshold: decided only where its interval lies on one side."""
    return _verdict(measured, threshold, above=False)


def _verdict(measured: Measured, threshold: float, *, above: bool) -> str:
    if measured.low is None or measured.high is None:
        return "undecided"
    if measured.low >= threshold:
        return "holds" if above else "does not hold"
    if measured.high <= threshold:
        return "does not hold" if above else "holds"
    return "undecided"


def seeds_needed(measured: Measured, threshold: float) -> int | None:
    """Seeds at which the interval would clear the threshold if the value stayed; None beyond 100,000.

    Shares are recounted exactly; means shrink by the square root of the number of seeds. Without an interval
    it is the number at which there is one.
    """
    if measured.low is None or measured.high is None:
        return FEWEST_SEEDS
    if measured.n is None or measured.value == threshold:
        return None
    if measured.method == "Clopper-Pearson":
        return _share_seeds(measured, threshold)
    distance = abs(measured.value - threshold)
    needed = measured.n * ((measured.high - measured.low) / 2.0 / distance) ** 2
    return math.ceil(needed) if needed <= MAX_SEEDS else None


def _share_seeds(measured: Measured, threshold: float) -> int | None:
    level, n = measured.level or LEVEL, measured.n or 1
    while n <= MAX_SEEDS:
        low, high = clopper_pearson(round(measured.value * n), n, level=level)
        if low >= threshold or high <= threshold:
            return n
        n = math.ceil(n * 1.05) + 1
    return None


def _student(value: float, errors: Any, *, percent: bool, unit: str) -> Measured:
    n = len(errors)
    if n < FEWEST_SEEDS:
        return Measured(value=value, n=n, unit=unit, percent=percent)
    stderr = float(np.std(errors, ddof=1) / math.sqrt(n))
    low, high = Estimate.from_stderr(value, stderr, n=n, level=LEVEL, dof=n - 1.0).interval
    return Measured(
        value=value, low=low, high=high, level=LEVEL, n=n, unit=unit, method="Student t", percent=percent
    )
