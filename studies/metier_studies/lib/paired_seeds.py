"""Statements about paired seeds: means with intervals, decisions, and the claims they make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from metier.core import Decision, Estimate, compare_paired, specialize_or_fall_back
from metier.records import Claim, Measured, Series, measured
from metier_studies.lib.claims import claim

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, Any]]
LEVEL = 0.95
POWER = 0.8


def of(rows: Rows, figure: str) -> Floats:
    """One figure of every seed."""
    return np.array([row[figure] for row in rows], dtype=float)


def paired(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    """The seeds that both have."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    n = min(x.size, y.size)
    return x[:n], y[:n]


def mean_of(values: ArrayLike, *, percent: bool = False) -> Measured:
    """Mean over seeds with its Student t interval; a single seed has none."""
    return measured(Estimate.from_values(values, level=LEVEL, unit="seeds"), percent=percent)


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


def lower_claim(ours: Floats, rival: Floats, *, margin: float = 0.0, **sentences: Any) -> Claim:
    """Ours is lower than the rival; the measured value is how much: rival minus ours."""
    a, b = paired(ours, rival)
    least = detectable(a, b)
    found = compare_paired(a, b, level=LEVEL).estimate if a.size > 1 else Estimate.from_values(b - a)
    return claim(
        replace(found, unit="seeds"),
        at_least=0.0,
        margin=margin,
        shown=mean_of(b - a),
        reason=f"minimum detectable effect {least:.4f}, {a.size} paired seeds"
        if math.isfinite(least)
        else "",
        **sentences,
    ).model_copy(update={"minimum_effect_value": margin or None})


def within_claim(values: Floats, limit: float, *, below: bool, **sentences: Any) -> Claim:
    """The mean over seeds is on the right side of a limit, interval and all."""
    least = detectable(values, np.full(values.size, limit))
    return claim(
        Estimate.from_values(values, level=LEVEL, unit="seeds"),
        at_least=None if below else limit,
        at_most=limit if below else None,
        shown=mean_of(values),
        reason=f"minimum detectable distance from {limit:g}: {least:.4f}" if math.isfinite(least) else "",
        **sentences,
    )
