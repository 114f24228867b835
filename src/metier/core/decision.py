"""Specialize, or fall back to the generalist: the verdict on a paired gain, read as advice."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import ArrayLike

from .checks import non_negative, open_fraction
from .comparison import Comparison, compare_paired
from .errors import InputError
from .estimate import IDENTICAL_LOSSES
from .power import POWER, units_between
from .verdict import Reason, Verdict, degrees_of_freedom, judge, one_sided

ADVICE = {"holds": "pays", "does not hold": "hurts"}
"""A verdict on "the gain is at least 0", read as advice; the other verdicts keep their names."""


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
        code: The verdict's reason as a short code.

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
    code: str = ""

    def __post_init__(self) -> None:
        if self.adopt != (self.verdict == "pays"):
            raise InputError(
                'a decision adopts exactly where its verdict is "pays"',
                expected=f"adopt={self.verdict == 'pays'} with verdict {self.verdict!r}",
                got=f"adopt={self.adopt}",
                next_step="Build decisions with specialize_or_fall_back or Decision.untested.",
            )

    @classmethod
    def untested(
        cls,
        reason: str,
        *,
        code: str = "",
        gain: float = 0.0,
        n: int = 0,
        unit: str = "units",
        alpha: float = 0.05,
    ) -> Decision:
        """The advice where nothing was tested: undecided, and nothing is adopted.

        Example:
            >>> Decision.untested("No data to judge on.").verdict
            'undecided'
        """
        return cls(
            adopt=False,
            verdict="undecided",
            gain=gain,
            interval=(-math.inf, math.inf),
            p_value=1.0,
            needed=math.inf,
            n=n,
            unit=unit,
            reason=reason,
            margin=0.0,
            alpha=alpha,
            method="none",
            code=code,
        )

    def as_same_model(self, reason: str, *, code: str = "") -> Decision:
        """This comparison's numbers with the advice that both sides are one model: equivalent."""
        return replace(self, adopt=False, verdict="equivalent", reason=reason, code=code)

    @property
    def non_inferior(self) -> bool:
        """Whether the loss rises by at most the margin: the interval lies above minus the margin.

        Identical losses count; a single unit, or equal differences in a few units, do not.
        """
        if self.code in (Reason.ONE_UNIT, Reason.EQUAL_VALUES, Reason.NO_INTERVAL):
            return False
        return self.interval[0] > -self.margin or self.code == Reason.IDENTICAL

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
            "code": str(self.code),
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

    The paired gain of `compare_paired` is judged against zero (`metier.judge`, at level 1 - 2 alpha), and
    the verdict is read as advice: "holds" as "pays", "does not hold" as "hurts"; "equivalent" and
    "undecided" stay. The interval and the one-sided test of level alpha agree.

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
    return decision_of(result, judge(result, at_least=0.0, margin=margin, level=result.level), alpha=alpha)


def decision_of(result: Comparison, verdict: Verdict, *, alpha: float) -> Decision:
    """Read a verdict on a comparison's gain as advice."""
    advice = ADVICE.get(verdict.verdict, verdict.verdict)
    return Decision(
        adopt=advice == "pays",
        verdict=advice,
        gain=result.gain,
        interval=verdict.interval,
        p_value=_one_sided(result),
        needed=verdict.needed,
        n=result.n,
        unit=result.unit,
        reason=_sentence(result, verdict, advice),
        margin=verdict.margin,
        alpha=alpha,
        method=result.method,
        code=verdict.reason,
    )


def units_needed(result: Comparison, *, alpha: float = 0.05, power: float = POWER) -> float:
    """Return the units at which a one-sided test of level alpha finds a gain of |gain| with this power.

    The smallest m at which the noncentral t with centrality |gain| sqrt(m) / s exceeds t_{1-alpha} with
    this power; s is the standard deviation per unit, and the degrees of freedom are those of m units under
    the comparison's own method. An undecided comparison therefore always needs more units than it has.

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
    alpha, power = open_fraction("alpha", alpha, upper=0.5), open_fraction("power", power)
    return units_between(
        abs(result.gain),
        math.inf,
        result.unit_sd,
        dof=lambda m: degrees_of_freedom(result.estimate, m),
        alpha=alpha,
        power=power,
    )


def _one_sided(result: Comparison) -> float:
    if result.method == IDENTICAL_LOSSES:
        return 1.0
    return one_sided(result.estimate, 0.0, above=True)


def _sentence(result: Comparison, verdict: Verdict, advice: str) -> str:
    stays = "the generalist stays"
    if verdict.reason is Reason.IDENTICAL:
        return f"Identical losses on all {result.n} {result.unit}, so {stays}."
    low, high = verdict.interval
    change = f"lower by {result.gain:.4g}" if result.gain >= 0 else f"higher by {-result.gain:.4g}"
    numbers = (
        f"the mean loss is {change} ({100 * result.level:g} % interval {low:.4g} to {high:.4g}, "
        f"p = {_one_sided(result):.2g}, {result.n} {result.unit})"
    )
    if advice == "pays":
        return f"Specializing pays: {numbers}."
    if advice == "hurts":
        return f"Specializing hurts, so {stays}: {numbers}."
    if advice == "equivalent":
        return f"No difference beyond the margin of {verdict.margin:.4g}, so {stays}: {numbers}."
    if verdict.reason is Reason.EQUAL_VALUES:
        return (
            f"Undecided, so {stays}: {numbers}; all differences are equal, and at least "
            f"{verdict.needed:,.0f} {result.unit} are needed to be sure of that."
        )
    if math.isinf(verdict.needed):
        return f"Undecided, so {stays}: {numbers}; a gain of zero needs a margin to be decided."
    what = "decide a gain of this size" if result.gain else "show that there is no difference"
    needed = f"about {verdict.needed:,} {result.unit} would {what}"
    return f"Undecided, so {stays}: {numbers}; {needed}."
