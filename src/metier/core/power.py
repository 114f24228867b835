"""How many units a verdict needs: the smallest number with enough power, were the measured value true."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .estimate import quantile

POWER = 0.8
_MANY = 1e9  # beyond this Student and normal quantiles agree
_MOST_TRIALS = 100_000
_FEW = 10  # degrees of freedom below which chi-squared quantiles are computed, not approximated

Dof = Callable[[int], float]


def units_between(
    below: float, above: float, unit_sd: float, *, dof: Dof, alpha: float, power: float = POWER
) -> float:
    """Return the units whose interval lies within two limits with this power.

    With distances a and b from the true value to the limits, m units of standard deviation s, nu = dof(m)
    and t = t_{1-alpha} of Student's distribution, the interval lies within both with probability
    E max(0, Phi(sqrt(m) a / s - t c) + Phi(sqrt(m) b / s - t c) - 1), where nu c^2 is chi-squared with nu
    degrees of freedom: the noncentral t for one limit, Owen's Q for two.

    Args:
        below, above: Distances to the lower and the upper limit; infinity where there is none.
        unit_sd: Standard deviation s per unit: standard error times sqrt(n).
        dof: Degrees of freedom that m units have.
        alpha: Level of each one-sided test.
        power: Probability that the interval lies within the limits.

    Returns:
        The smallest such number, at least 2; infinity where the value lies on a limit.

    Example:
        >>> units_between(0.25, math.inf, 1.0, dof=lambda m: m - 1.0, alpha=0.05)
        101
    """
    nearest = min(below, above)
    if nearest <= 0.0 or unit_sd == 0.0:
        return math.inf if nearest <= 0.0 else 2
    root = (quantile(1.0 - alpha) + quantile(power)) * unit_sd / nearest
    normal = root * root
    if normal > _MANY:
        return math.ceil(normal) if math.isfinite(normal) else math.inf

    def enough(m: int) -> bool:
        scale = math.sqrt(m) / unit_sd
        return _power(below * scale, above * scale, dof=dof(m), alpha=alpha) >= power

    # Fewer units than normal quantiles ask for are never enough, and often only a few more are.
    low, step = max(2, math.floor(normal)), 1
    while not enough(low + step):
        step *= 2
    return low + bisect.bisect_left(range(step), True, key=lambda more: enough(low + more))


# Gauss-Legendre nodes on the probabilities of c, and their normal quantiles.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_PROBABILITIES, _WEIGHTS = (_NODES + 1.0) / 2.0, _WEIGHTS / 2.0


def _power(below: float, above: float, *, dof: float, alpha: float) -> float:
    """Probability that an interval lies within limits at these distances, in standard errors."""
    from scipy.special import gammaincinv, ndtr, ndtri

    if dof < _FEW:
        c = np.sqrt(gammaincinv(dof / 2.0, _PROBABILITIES) * 2.0 / dof)
    else:  # Wilson and Hilferty's cube is exact to four digits here and twenty times as fast
        c = (1.0 - 2.0 / (9.0 * dof) + ndtri(_PROBABILITIES) * math.sqrt(2.0 / (9.0 * dof))) ** 1.5
    critical = quantile(1.0 - alpha, dof=dof) * c
    sides = ndtr(below - critical) + ndtr(above - critical) - 1.0
    return float(_WEIGHTS @ np.maximum(sides, 0.0))


def trials_between(share: float, low: float, high: float, *, level: float, power: float = POWER) -> float:
    """Return the trials whose Clopper-Pearson interval lies within [low, high] with this power.

    Args:
        share: The true share of successes.
        low, high: The limits; minus infinity and infinity where there is none.
        level: Coverage of the two-sided interval.
        power: Probability that the interval lies within the limits.

    Returns:
        The smallest such number, beyond 100,000 trials the one that normal quantiles give; infinity where
        the share lies on a limit.

    Example:
        >>> trials_between(1.0, 0.9, math.inf, level=0.95)
        36
    """
    # Every share lies in [0, 1], so that a limit there or beyond asks for nothing.
    low, high = (-math.inf if low <= 0.0 else low), (math.inf if high >= 1.0 else high)
    if not low < share < high:
        return math.inf
    spread = math.sqrt(share * (1.0 - share)) / min(share - low, high - share)
    root = (quantile((1.0 + level) / 2.0) + quantile(power)) * spread
    if root * root > _MOST_TRIALS:
        return math.ceil(root * root)
    # Half of what normal quantiles ask for is never enough.
    start = max(2, int(root * root / 2.0))
    stop = start + 64
    while True:
        # The power of an exact test is a saw-tooth in n, so every n is tried, a block at a time.
        n = np.arange(start, stop)
        found = np.flatnonzero(_share_within(n, share, low, high, tail=(1.0 - level) / 2.0) >= power)
        if found.size:
            return int(n[found[0]])
        start, stop = stop, 2 * stop


def _share_within(
    n: NDArray[np.int64], share: float, low: float, high: float, *, tail: float
) -> NDArray[np.float64]:
    """Probability, for each number of trials, that the Clopper-Pearson interval lies within [low, high]."""
    from scipy.special import bdtr

    first = _fewest_successes(n, low, tail) if low > 0.0 else np.zeros_like(n)
    # Successes that keep the upper end below `high` are failures that keep the lower end above 1 - high.
    last = n - _fewest_successes(n, 1.0 - high, tail) if high < 1.0 else n
    reached = np.where(last >= 0, bdtr(np.maximum(last, 0), n, share), 0.0)
    missed = np.where(first > 0, bdtr(np.maximum(first - 1, 0), n, share), 0.0)
    return np.asarray(np.where(first <= np.minimum(last, n), reached - missed, 0.0))


def _fewest_successes(n: NDArray[np.int64], share: float, tail: float) -> NDArray[np.int64]:
    """The smallest count k with P(X >= k) <= tail under `share`; n + 1 where there is none."""
    from scipy.special import bdtrc, bdtrik

    if share >= 1.0:
        return n + 1
    # The inverse is a real number; rounding may put it one off, so its neighbors are tried as well.
    near = np.floor(bdtrik(1.0 - tail, n, share)).astype(np.int64)
    k = np.clip(near[:, None] + np.arange(0, 4), 1, n[:, None] + 1)
    chance = np.where(k <= n[:, None], bdtrc(np.minimum(k, n[:, None]) - 1, n[:, None], share), 0.0)
    return np.take_along_axis(k, np.argmax(chance <= tail, axis=1)[:, None], axis=1)[:, 0]
