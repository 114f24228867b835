"""Specialize, or fall back to the generalist: one decision with its interval and its reason."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from .checks import non_negative, open_fraction
from .estimate import Comparison, compare_paired, lower_tail, quantile, studentize
from .long_run import ewc_dof

POWER = 0.8
_MANY = 1e9  # beyond this Student and normal quantiles agree
_DOF: dict[str, Callable[[int], float | None]] = {
    "independent": lambda m: m - 1.0,
    "clustered": lambda m: m - 1.0,
    "ewc": lambda m: float(ewc_dof(m)),
    "hac": lambda m: None,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether specializing pays, and how much data would decide.

    Attributes:
        adopt: True where the verdict is "pays".
        verdict: "pays", "hurts", "equivalent" (within the margin, or identical), or "undecided".
        gain: Mean loss of the generalist minus that of the specialists.
        interval: Interval of the gain with coverage 1 - 2 alpha.
        p_value: One-sided, for a gain of at most zero.
        needed: Units at which a one-sided test of level alpha has 80 % power if the true gain is |gain|;
            infinite for a gain of zero.
        n: Number of units seen.
        unit: What a unit is: "pairs", "groups" or "time steps".
        reason: One sentence for people.
        margin: Largest gain or loss that counts as equivalent.
        alpha: Level of the one-sided test.
        method: "independent", "clustered", "ewc", "hac", or "identical".

    Example:
        >>> specialize_or_fall_back([1.0, 1.1, 0.9, 1.0], [1.5, 1.7, 1.3, 1.6]).adopt
        True
    """

    adopt: bool
    verdict: str
    gain: float
    interval: tuple[float, float]
    p_value: float
    needed: float
    n: int
    unit: str
    reason: str
    margin: float
    alpha: float
    method: str

    @property
    def non_inferior(self) -> bool:
        """Whether the lower end of the interval lies above minus the margin (identical losses count)."""
        return self.interval[0] > -self.margin or self.method == "identical"

    def summary(self) -> str:
        """Return one line for people."""
        return self.reason

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON; infinite ends and an infinite `needed` become None."""
        return {
            "adopt": self.adopt,
            "verdict": self.verdict,
            "gain": self.gain,
            "interval": [end if math.isfinite(end) else None for end in self.interval],
            "p_value": self.p_value,
            "needed": None if math.isinf(self.needed) else self.needed,
            "n": self.n,
            "unit": self.unit,
            "reason": self.reason,
            "margin": self.margin,
            "alpha": self.alpha,
            "method": self.method,
        }


def specialize_or_fall_back(
    loss_specialists: ArrayLike,
    loss_generalist: ArrayLike,
    *,
    dependence: str | ArrayLike = "independent",
    se: str = "ewc",
    alpha: float = 0.05,
    margin: float = 0.0,
) -> Decision:
    """Adopt the specialists only if their loss is lower beyond chance; otherwise keep the generalist.

    With the paired gain and its 1 - 2 alpha interval [l, u] from `compare_paired`, in this order:
    identical losses or [l, u] within [-margin, margin] (margin > 0): "equivalent"; l > 0: "pays";
    u < 0: "hurts"; else "undecided". The interval and the one-sided test of level alpha agree.

    Args:
        loss_specialists: Losses of the specialists, shape (n,), on data that built neither side.
        loss_generalist: Losses of the generalist on the same items.
        dependence: "independent", "time", or one group label per item.
        se: "ewc" or "hac", for time.
        alpha: Level of the one-sided test, below 0.5.
        margin: Gain or loss that counts as no difference, in the units of the losses.

    Returns:
        The decision; `reason` says it in one sentence.

    Raises:
        InputError: As in `compare_paired`, or alpha or margin out of range.

    Example:
        >>> d = specialize_or_fall_back([1.0, 1.1, 0.9, 1.0], [1.1, 1.0, 1.0, 0.95])
        >>> d.verdict, d.needed
        ('undecided', 422)
        >>> print(d.reason.split(";")[1])
         about 422 pairs would decide a gain of this size.
    """
    alpha = open_fraction("alpha", alpha, upper=0.5)
    margin = non_negative("margin", margin)
    result = compare_paired(
        loss_specialists, loss_generalist, dependence=dependence, se=se, level=1.0 - 2.0 * alpha
    )
    verdict = _verdict(result, margin)
    needed = units_needed(result, alpha=alpha)
    p_value = _one_sided(result)
    return Decision(
        adopt=verdict == "pays",
        verdict=verdict,
        gain=result.gain,
        interval=result.interval,
        p_value=p_value,
        needed=needed,
        n=result.n,
        unit=result.unit,
        reason=_reason(result, verdict, p_value=p_value, needed=needed, margin=margin),
        margin=margin,
        alpha=alpha,
        method=result.method,
    )


def units_needed(result: Comparison, *, alpha: float = 0.05, power: float = POWER) -> float:
    """Return the units at which a one-sided test of level alpha finds a gain of |gain| with this power.

    The smallest m >= ((t_{1-alpha} + t_power) s / |gain|)^2, with s the standard deviation per unit and
    Student quantiles at the degrees of freedom that m units have under the comparison's own method
    (normal ones for "hac"). An undecided comparison therefore always needs more units than it has.

    Args:
        result: A comparison; its gain is taken as the true gain.
        alpha: Level of the one-sided test.
        power: Probability of finding the gain.

    Returns:
        A whole number of units (pairs, groups or time steps), at least 2; infinity for a gain of zero.

    Example:
        >>> units_needed(compare_paired([1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 4.0, 4.0]))
        6
    """
    if result.gain == 0.0:
        return math.inf
    ratio = result.unit_sd / abs(result.gain)
    normal = ((quantile(1.0 - alpha) + quantile(power)) * ratio) ** 2
    if normal > _MANY:
        return math.ceil(normal) if math.isfinite(normal) else math.inf

    def enough(m: int) -> bool:
        dof = _DOF[result.method](m)
        return m >= ((quantile(1.0 - alpha, dof=dof) + quantile(power, dof=dof)) * ratio) ** 2

    high = max(2, math.ceil(normal))
    while not enough(high):
        high *= 2
    return 2 + bisect.bisect_left(range(2, high), True, key=enough)


def _verdict(result: Comparison, margin: float) -> str:
    low, high = result.interval
    if result.method == "identical" or (margin > 0.0 and -margin <= low and high <= margin):
        return "equivalent"
    if low > 0.0:
        return "pays"
    return "hurts" if high < 0.0 else "undecided"


def _one_sided(result: Comparison) -> float:
    if result.method == "identical":
        return 1.0
    return lower_tail(-studentize(result.gain, result.stderr), dof=result.dof)


def _reason(result: Comparison, verdict: str, *, p_value: float, needed: float, margin: float) -> str:
    if result.method == "identical":
        return f"Identical losses on all {result.n} {result.unit}, so the generalist stays."
    low, high = result.interval
    change = f"lower by {result.gain:.4g}" if result.gain >= 0 else f"higher by {-result.gain:.4g}"
    numbers = (
        f"the mean loss is {change} ({100 * result.level:g} % interval {low:.4g} to {high:.4g}, "
        f"p = {p_value:.2g}, {result.n} {result.unit})"
    )
    if verdict == "pays":
        return f"Specializing pays: {numbers}."
    if verdict == "hurts":
        return f"Specializing hurts, so the generalist stays: {numbers}."
    if verdict == "equivalent":
        return f"No difference beyond the margin of {margin:.4g}, so the generalist stays: {numbers}."
    if math.isinf(needed):
        return f"Undecided, so the generalist stays: {numbers}; a gain of zero needs a margin to be decided."
    return (
        f"Undecided, so the generalist stays: {numbers}; about {needed:,} {result.unit} would decide "
        f"a gain of this size."
    )
