"""The sample ratio at which half of the seeds specialize, at several dimensions and as d -> infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import derive
from metier.runs import Measured
from metier_studies.lib.paired_seeds import LEVEL

Floats = NDArray[np.float64]

EXCESS = 0.25
"""A seed specializes if its index lies this far above that of rotations of its own span."""

DRAWS = 2000
"""Resamplings of the seeds."""


def half_ratio(factors: Sequence[float], specialized: Floats, *, within: float | None = None) -> float:
    """Return the factor at which the share of specialized seeds crosses 1/2.

    The shares are made nondecreasing (pool adjacent violators) and joined by straight lines in ln factor; inf
    if half is never reached, the first factor if it is reached there.

    Args:
        factors: increasing.
        specialized: 0 or 1, (n_seeds, n_factors).
        within: where between the two rungs the crossing lies, 0 to 1, instead of on the straight line.

    Example:
        >>> round(half_ratio((1.0, 4.0), np.array([[0, 1], [0, 1]])), 12)
        2.0
    """
    shares = _nondecreasing(specialized.mean(axis=0))
    above = np.flatnonzero(shares >= 0.5)
    if above.size == 0:
        return math.inf
    k = int(above[0])
    if k == 0:
        return float(factors[0])
    low, high = np.log(factors[k - 1]), np.log(factors[k])
    share = (0.5 - shares[k - 1]) / (shares[k] - shares[k - 1]) if within is None else within
    return float(np.exp(low + share * (high - low)))


def limit(dimensions: Sequence[int], ratios: Sequence[float]) -> float:
    """Return the intercept of the line through ratios over 1/d; inf if one of them is.

    Example:
        >>> round(limit((50, 100), (3.0, 2.0)), 12)
        1.0
    """
    if not np.isfinite(ratios).all():
        return math.inf
    if len(dimensions) == 1:
        return float(ratios[0])
    return float(np.polyfit(1.0 / np.asarray(dimensions, dtype=float), ratios, 1)[-1])


def measured_half_ratios(
    trials: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]], factors: Sequence[float], *, seed: int
) -> tuple[dict[int, Measured], Measured]:
    """Return the half ratio at each dimension and its limit, with intervals over seeds.

    A seed is resampled with all its ratios, as they share their teacher; in each draw the crossing lies
    anywhere between its two rungs, so that the interval is no narrower than the ladder. Where 1/2 is never
    reached the value is the last rung and the interval has no upper end.

    Args:
        trials: dimension -> factor -> one row per seed with its `excess`.
        factors: the sample ratios, as multiples of the predicted one.
        seed: of the resampling.
    """
    hits = {
        int(d): np.array([[row["excess"] > EXCESS for row in rungs[f"{f:g}"]] for f in factors]).T
        for d, rungs in trials.items()
    }
    rng = derive(seed, "exponents", "half ratio")
    drawn = {
        d: np.array(
            [
                half_ratio(factors, x[rng.integers(0, len(x), len(x))], within=rng.random())
                for _ in range(DRAWS)
            ]
        )
        for d, x in hits.items()
    }
    last = float(factors[-1])
    at = {d: _measured(half_ratio(factors, x), drawn[d], len(x), last) for d, x in hits.items()}
    limits = np.array([limit(list(hits), draw) for draw in zip(*drawn.values(), strict=True)])
    value = limit(list(hits), [half_ratio(factors, x) for x in hits.values()])
    return at, _measured(value, limits, min(len(x) for x in hits.values()), last)


def _measured(value: float, drawn: Floats, n: int, last: float) -> Measured:
    tail = (1.0 - LEVEL) / 2.0
    ordered = np.sort(drawn)
    low, high = ordered[int(tail * ordered.size)], ordered[math.ceil((1.0 - tail) * ordered.size) - 1]
    return Measured(
        value=value if math.isfinite(value) else last,
        low=float(low) if math.isfinite(low) else last,
        high=float(high) if math.isfinite(high) else None,
        level=LEVEL,
        n=n,
        unit="seeds",
        method="bootstrap over seeds",
    )


def _nondecreasing(values: Floats) -> Floats:
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([float(value), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2], blocks[-1]
            blocks[-2:] = [[(a * n + b * m) / (n + m), n + m]]
    return np.concatenate([np.full(int(n), value) for value, n in blocks])
