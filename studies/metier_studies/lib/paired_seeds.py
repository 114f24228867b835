"""Statements about paired seeds: means with intervals, decisions, and the claims they make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from metier.core import Decision, specialize_or_fall_back
from metier.runs import Claim, Measured, Series

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]
LEVEL = 0.95
POWER = 0.8
VERDICTS = {"pays": "holds", "hurts": "does not hold"}


def of(rows: Rows, figure: str) -> Floats:
    """One figure of every seed."""
    return np.array([row[figure] for row in rows], dtype=float)


def paired(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    """The seeds that both have."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    n = min(x.size, y.size)
    return x[:n], y[:n]


def mean_of(values: ArrayLike, *, percent: bool = False) -> Measured:
    """Mean over seeds with its Student t interval."""
    x = np.asarray(values, dtype=float)
    half = half_width(x)
    interval = {} if math.isnan(half) else {"low": x.mean() - half, "high": x.mean() + half, "level": LEVEL}
    return Measured(
        value=float(x.mean()),
        n=x.size,
        unit="seeds",
        method="Student t over seeds",
        percent=percent,
        **interval,
    )


def band(name: str, x: Sequence[float], told: Sequence[Measured], **style: Any) -> Series:
    """Measured values over x with their intervals; a value without one is its own interval."""
    return Series(
        name=name,
        x=tuple(map(float, x)),
        y=tuple(m.value for m in told),
        low=tuple(m.value if m.low is None else m.low for m in told),
        high=tuple(m.value if m.high is None else m.high for m in told),
        **style,
    )


def half_width(x: Floats) -> float:
    """Half of the t interval of a mean; NaN for a single value."""
    if x.size < 2:
        return math.nan
    return float(stats.t.ppf(0.5 + LEVEL / 2, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size))


def detectable(x: ArrayLike, y: ArrayLike) -> float:
    """Smallest paired difference found with 80 % power at two-sided 5 %, from the spread over seeds."""
    a, b = paired(x, y)
    if a.size < 2:
        return math.nan
    quantiles = stats.t.ppf([0.5 + LEVEL / 2, POWER], a.size - 1).sum()
    return float(quantiles * (a - b).std(ddof=1) / math.sqrt(a.size))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of several comparisons, adjusted so that all together err with at most their level (Holm).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    steps = [(len(p_values) - rank) * p_values[i] for rank, i in enumerate(order)]
    raised = np.minimum(np.maximum.accumulate(steps), 1.0)
    found = np.empty(len(p_values))
    found[order] = raised
    return [float(value) for value in found]


def two_sided(ours: ArrayLike, rival: ArrayLike) -> float:
    """p value of the paired t test that both are equal; NaN for a single seed."""
    a, b = paired(ours, rival)
    if a.size < 2:
        return math.nan
    if np.ptp(a - b) == 0.0:
        return float(a[0] == b[0])
    return float(stats.ttest_rel(a, b).pvalue)


def decide(ours: ArrayLike, rival: ArrayLike, *, margin: float = 0.0) -> Decision:
    """Whether ours is lower, at two-sided 5 %, or the two agree within `margin`."""
    a, b = paired(ours, rival)
    return specialize_or_fall_back(a, b, alpha=(1 - LEVEL) / 2, margin=margin)


def lower_claim(ours: Floats, rival: Floats, *, margin: float = 0.0, **words: Any) -> Claim:
    """Ours is lower than the rival; the measured value is how much: rival minus ours."""
    a, b = paired(ours, rival)
    decision = decide(a, b, margin=margin)
    open_ = decision.verdict == "undecided" and math.isfinite(decision.needed)
    least = detectable(a, b)
    return Claim(
        minimum_effect_value=margin or None,
        measured=mean_of(b - a),
        verdict=VERDICTS.get(decision.verdict, decision.verdict),
        needed=math.ceil(decision.needed) if open_ else None,
        needed_unit="seeds" if open_ else "",
        reason=f"minimum detectable effect {least:.4f}, {a.size} paired seeds"
        if math.isfinite(least)
        else "",
        **words,
    )


def within_claim(values: Floats, limit: float, *, below: bool, **words: Any) -> Claim:
    """The mean over seeds is on the right side of a limit, interval and all."""
    told = mean_of(values)
    sides = (told.low, told.high) if told.low is not None else (told.value, told.value)
    good = sides[1] <= limit if below else sides[0] > limit  # type: ignore[operator]
    bad = sides[0] > limit if below else sides[1] <= limit  # type: ignore[operator]
    verdict = "holds" if good else "does not hold" if bad else "undecided"
    needed: dict[str, Any] = {}
    least = detectable(values, np.full(values.size, limit))
    if verdict == "undecided" and values.size > 1:
        # Seeds at which this distance from the limit is found with 80 % power, not those of an even chance.
        decision = decide(values, np.full(values.size, limit))
        if math.isfinite(decision.needed):
            needed = {"needed": math.ceil(decision.needed), "needed_unit": "seeds"}
    return Claim(
        minimum_effect_value=limit,
        measured=told,
        verdict=verdict,
        reason=f"minimum detectable distance from {limit:g}: {least:.4f}" if math.isfinite(least) else "",
        **needed,
        **words,
    )
