"""The verdict: a measured value against a limit, decided only where its interval decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from .checks import non_negative, open_fraction
from .comparison import Comparison
from .errors import InputError
from .estimate import (
    CLOPPER_PEARSON,
    IDENTICAL_LOSSES,
    RESAMPLED,
    ROUNDING,
    Estimate,
    binomial_tail,
    clopper_pearson,
    lower_tail,
    quantile,
)
from .long_run import bartlett_reference, ewc_dof
from .power import trials_between, units_between


class Reason(StrEnum):
    """Why a verdict is what it is: a short code, and a sentence for people.

    Example:
        >>> Reason.ONE_UNIT.sentence
        'A single unit has no interval.'
    """

    EXACT = "exact"
    CLEAR = "clear of the limit"
    INSIDE = "inside the limits"
    IDENTICAL = "identical"
    OPEN = "limit in the interval"
    AT_LIMIT = "value at the limit"
    ONE_UNIT = "one unit"
    EQUAL_VALUES = "equal values"
    NO_INTERVAL = "no interval"

    @property
    def sentence(self) -> str:
        """The reason as one sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.EXACT: "The value is exact: an identity, an enclosure or a complete enumeration.",
    Reason.CLEAR: "The interval lies on one side of the limit.",
    Reason.INSIDE: "The interval lies within the limits of equivalence.",
    Reason.IDENTICAL: "Both sides are identical in every unit.",
    Reason.OPEN: "The limit lies inside the interval.",
    Reason.AT_LIMIT: "The value lies at the limit itself, which no number of units decides.",
    Reason.ONE_UNIT: "A single unit has no interval.",
    Reason.EQUAL_VALUES: "All values are equal, and too few to be sure of their spread.",
    Reason.NO_INTERVAL: "The value has no standard error and no interval.",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a measured value says about a limit.

    Attributes:
        verdict: "holds", "does not hold", "equivalent", or "undecided".
        reason: Why, as a member of `Reason`.
        needed: Units at which the verdict is decided with 80 % power if the measured value is the truth; 0
            for an exact value, infinity where no number of units decides. Where the spread is unknown (one
            unit, equal values), the fewest units that can decide at all.
        measured: The value that was judged.
        interval: Its interval at `level`, on which the verdict rests.
        level: Coverage of that interval; each of its ends aims at an error of (1 - level) / 2.
        p_value: The smallest 1 - level at which the verdict would be decided; 1 where it never would.
        at_least, at_most: The limits; None where there is none.
        margin: Distance from a single limit that counts as no difference.

    Example:
        >>> judge(Estimate.from_values([0.21, 0.19, 0.2]), at_least=0.1).verdict
        'holds'
    """

    verdict: str
    reason: Reason
    needed: float
    measured: Estimate
    interval: tuple[float, float]
    level: float
    p_value: float
    at_least: float | None
    at_most: float | None
    margin: float

    @property
    def unit(self) -> str:
        """What `needed` counts."""
        return self.measured.unit

    def summary(self) -> str:
        """Return the verdict, its numbers, its reason and what would decide it, for people."""
        text = f"{self.verdict.capitalize()}: {self._numbers()}. {self.reason.sentence}"
        if self.verdict != "undecided" or not math.isfinite(self.needed):
            return text
        unknown = self.reason in (Reason.ONE_UNIT, Reason.EQUAL_VALUES)
        return f"{text} {'At least' if unknown else 'About'} {self.needed:,.0f} {self.unit} would decide it."

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON; infinities and NaN become None."""
        return {
            "verdict": self.verdict,
            "reason": str(self.reason),
            "needed": _finite(self.needed),
            "unit": self.unit,
            "value": _finite(self.measured.value),
            "interval": [_finite(end) for end in self.interval],
            "level": self.level,
            "p_value": self.p_value,
            "n": self.measured.n,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "margin": self.margin,
            "method": self.measured.method,
        }

    def _numbers(self) -> str:
        limits = {"at least": self.at_least, "at most": self.at_most}
        text = f"{self.measured.value:.4g} against " + " and ".join(
            f"{name} {limit:.4g}" for name, limit in limits.items() if limit is not None
        )
        text += f" (margin {self.margin:.4g})" if self.margin else ""
        low, high = self.interval
        if self.measured.n == 0:
            return text if low == high else f"{text}, enclosed in [{low:.4g}, {high:.4g}]"
        known = "" if math.isnan(low) else f", {100 * self.level:.4g} % interval {low:.4g} to {high:.4g}"
        return f"{text}{known}, {self.measured.n} {self.unit}"


def judge(
    measured: Estimate | Comparison,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    margin: float = 0.0,
    level: float = 0.95,
) -> Verdict:
    """Decide whether a measured value keeps a limit, or say that this is undecided and what would decide it.

    With the interval of the value at `level`, the first of these that applies:

    1. one limit and a margin > 0: "equivalent" where the interval lies within the margin around the limit;
    2. one limit: "holds" where the interval lies on the asked side of it, the limit itself included; "does
       not hold" where it lies on the other side;
    3. both limits: "equivalent" where the interval lies between them, "does not hold" where beyond one;
    4. "undecided".

    At the limit a wrong "holds" has probability (1 - level) / 2: at most that for shares, about that for
    means of independent units; few dependent steps cost a little of it (the tests hold it to 5 % at level
    0.95). A single unit is undecided whatever its value. So are equal values of fewer units than a sign test
    needs to decide, six at level 0.95. A standard error without degrees of freedom gets n - 1. An exact value
    (`Estimate.exact`, `Estimate.enclosure`) is judged without units. Losses that are identical in every pair
    are "equivalent" where the limit is a gain of zero, and an exact gain of zero beside other limits.

    Args:
        measured: An estimate, or a paired comparison, whose gain is judged.
        at_least: Lower limit.
        at_most: Upper limit; both together ask for equivalence.
        margin: With one limit, the distance from it that counts as no difference.
        level: Coverage of the two-sided interval on which the verdict rests.

    Returns:
        The verdict, with its reason and the number of units that would decide it.

    Raises:
        InputError: No limit, a limit that is not finite, limits in the wrong order, a margin beside two
            limits, or an interval at another level that has no standard error.

    Example:
        >>> share = Estimate.share(19, 20, unit="seeds")
        >>> judge(share, at_least=0.5).verdict, judge(share, at_least=0.8).verdict
        ('holds', 'undecided')
        >>> judge(share, at_least=0.8).needed
        41
        >>> judge(Estimate.exact(3), at_least=3).reason
        <Reason.EXACT: 'exact'>
    """
    level = open_fraction("level", level)
    regions = _regions(at_least, at_most, non_negative("margin", margin))
    estimate = _checked(measured, at_least, at_most)
    interval = _interval(estimate, level)
    verdict, reason = _decide(estimate, interval, regions, level)
    return Verdict(
        verdict=verdict,
        reason=reason,
        needed=_needed(estimate, reason, regions, level),
        measured=estimate,
        interval=interval,
        level=level,
        p_value=_p_value(estimate, reason, regions),
        at_least=None if at_least is None else float(at_least),
        at_most=None if at_most is None else float(at_most),
        margin=float(margin),
    )


def holm_levels(verdicts: Sequence[Verdict], *, level: float = 0.95) -> list[float]:
    """Return the level at which each of several verdicts is to be judged, so that all together keep `level`.

    Holm's rule: the smallest of m p-values is compared with (1 - level) / m, the next with
    (1 - level) / (m - 1) and so on; from the first that fails on, the share stays as it is. Exact values
    cannot err and take no share.

    Args:
        verdicts: Of the primary claims, in any order; only their p-values are read.
        level: Of the whole family.

    Returns:
        One level per verdict, for a second call of `judge`.

    Example:
        >>> verdicts = [judge(Estimate.from_values([1.0, 1.1, 0.9, 1.05]), at_least=0.0)] * 2
        >>> [round(level, 3) for level in holm_levels(verdicts)]
        [0.975, 0.95]

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    level = open_fraction("level", level)
    levels = [level] * len(verdicts)
    tested = sorted((verdict.p_value, i) for i, verdict in enumerate(verdicts) if verdict.measured.n)
    share, failed = 1.0 - level, False
    for rank, (p_value, i) in enumerate(tested):
        if not failed:
            share = (1.0 - level) / (len(tested) - rank)
            failed = p_value > share
        levels[i] = 1.0 - share
    return levels


def _checked(measured: Estimate | Comparison, *limits: float | None) -> Estimate:
    """The estimate, refused where it is none; equal values next to a limit are put onto it."""
    estimate = measured.estimate if isinstance(measured, Comparison) else measured
    if not isinstance(estimate, Estimate):
        raise InputError(
            "a verdict is about a value with its uncertainty",
            expected="an Estimate or a Comparison",
            got=type(estimate).__name__,
            next_step="Build one: Estimate.from_values, .share, .from_stderr, .exact and others.",
        )
    if estimate.stderr < 0.0 or estimate.n < 0:
        raise InputError(
            "a standard error and a number of units are not negative",
            expected="stderr and n of at least 0",
            got=f"stderr={estimate.stderr}, n={estimate.n}",
            next_step="Pass the root of the variance, and the number of independent units.",
        )
    for limit in limits:
        # The mean of equal values may miss the value itself by its last digit.
        gap = ROUNDING * max(abs(estimate.value), abs(limit or 0.0))
        if limit is not None and _is_flat(estimate) and abs(estimate.value - limit) <= gap:
            return replace(estimate, value=float(limit), interval=(float(limit), float(limit)))
    return estimate


class _Region(NamedTuple):
    """An interval within [low, high] means this verdict."""

    verdict: str
    low: float
    high: float


def _regions(at_least: float | None, at_most: float | None, margin: float) -> list[_Region]:
    """What can be decided, in the order in which it is asked."""
    for name, limit in {"at_least": at_least, "at_most": at_most}.items():
        if limit is not None and not math.isfinite(limit):
            raise InputError(
                f"{name} is a limit", expected="a finite number", got=f"{limit}", next_step=f"Drop {name}."
            )
    if at_least is not None and at_most is not None:
        return _between(float(at_least), float(at_most), margin)
    if at_least is not None:
        limit, good, bad = float(at_least), (float(at_least), math.inf), (-math.inf, float(at_least))
    elif at_most is not None:
        limit, good, bad = float(at_most), (-math.inf, float(at_most)), (float(at_most), math.inf)
    else:
        raise InputError(
            "a verdict needs a limit",
            expected="at_least, at_most, or both for equivalence",
            got="neither",
            next_step="Pass at_least=0.0 to ask whether the value is above zero.",
        )
    near = [_Region("equivalent", limit - margin, limit + margin)] if margin else []
    return [*near, _Region("holds", *good), _Region("does not hold", *bad)]


def _between(at_least: float, at_most: float, margin: float) -> list[_Region]:
    if margin:
        raise InputError(
            "a margin goes with one limit",
            expected="one limit and a margin, or two limits",
            got=f"two limits and margin={margin:g}",
            next_step="Drop margin: the two limits say what counts as equivalent.",
        )
    if at_least > at_most:
        raise InputError(
            "at_least lies below at_most",
            expected="at_least <= at_most",
            got=f"{at_least:g} > {at_most:g}",
            next_step="Swap them.",
        )
    return [
        _Region("equivalent", at_least, at_most),
        _Region("does not hold", -math.inf, at_least),
        _Region("does not hold", at_most, math.inf),
    ]


def _interval(estimate: Estimate, level: float) -> tuple[float, float]:
    """The estimate's interval at `level`, NaN where it has none."""
    if estimate.n == 0:
        return estimate.interval
    if estimate.n == 1 or math.isnan(estimate.value):
        return math.nan, math.nan
    if estimate.method == CLOPPER_PEARSON:
        return clopper_pearson(round(estimate.value * estimate.n), estimate.n, level=level)
    same_level = math.isclose(estimate.level, level, rel_tol=0.0, abs_tol=1e-9)
    if estimate.method == RESAMPLED and same_level:
        return estimate.interval
    if math.isnan(estimate.stderr) and all(map(math.isfinite, estimate.interval)):
        raise InputError(
            "a verdict at another level needs a standard error",
            expected=f"an interval at level {level:g}, or a stderr",
            got=f"an interval at level {estimate.level:g} alone",
            next_step=f"Judge at level={estimate.level:g}, or make the interval at level {level:g}.",
        )
    half = quantile((1.0 + level) / 2.0, dof=degrees_of_freedom(estimate, estimate.n)) * estimate.stderr
    return estimate.value - half, estimate.value + half


def degrees_of_freedom(estimate: Estimate, m: int) -> float:
    """Return the degrees of freedom that m units have by the estimate's own method."""
    if estimate.method in _BY_STEPS:
        return _BY_STEPS[estimate.method](m)
    # A standard error without degrees of freedom came from n units all the same; with few of them, normal
    # quantiles would decide too easily.
    lost = 1.0 if estimate.dof is None else estimate.n - estimate.dof
    return max(1.0, m - lost)


_BY_STEPS = {"ewc": lambda m: float(ewc_dof(m)), "hac": lambda m: bartlett_reference(m)[1]}


def _decide(
    estimate: Estimate, interval: tuple[float, float], regions: list[_Region], level: float
) -> tuple[str, Reason]:
    low, high = interval
    if estimate.method == IDENTICAL_LOSSES:
        # An exact gain: on a limit it is a tie, beside one it is on its side.
        value = estimate.value
        near = any(r.low <= value <= r.high for r in regions if r.verdict == "equivalent")
        beside = (region.verdict for region in regions if region.low < value < region.high)
        return "equivalent" if near else next(beside, "equivalent"), Reason.IDENTICAL
    if estimate.n == 1:
        return "undecided", Reason.ONE_UNIT
    if math.isnan(low) or math.isnan(high):
        return "undecided", Reason.NO_INTERVAL
    if too_flat(estimate, level):
        return "undecided", Reason.EQUAL_VALUES
    region = next((region for region in regions if region.low <= low and high <= region.high), None)
    # What reaches up to the limit may be the limit, which keeps it.
    touches = region is not None and (low == region.low > -math.inf or high == region.high < math.inf)
    if region is None or (region.verdict == "does not hold" and touches):
        at_limit = estimate.n and not any(r.low < estimate.value < r.high for r in regions)
        return "undecided", Reason.AT_LIMIT if at_limit else Reason.OPEN
    if estimate.n == 0:
        return region.verdict, Reason.EXACT
    return region.verdict, Reason.INSIDE if region.verdict == "equivalent" else Reason.CLEAR


def too_flat(estimate: Estimate, level: float) -> bool:
    """Return whether all values are equal and too few for a sign test, so that they only look certain."""
    return _is_flat(estimate) and _effective(estimate, estimate.n) < _sign_test_units(level)


def _is_flat(estimate: Estimate) -> bool:
    """Whether the units do not spread at all, rounding aside."""
    return (
        estimate.n > 0
        and estimate.method != CLOPPER_PEARSON
        and _stderr(estimate) <= ROUNDING * abs(estimate.value)
    )


def _effective(estimate: Estimate, m: int) -> float:
    """Independent units that m units amount to: one more than their degrees of freedom."""
    return degrees_of_freedom(estimate, m) + 1.0


def _sign_test_units(level: float) -> int:
    """The fewest units n with 2^-n <= (1 - level) / 2, the chance that all fall on one side of the limit."""
    return math.ceil(math.log2(2.0 / (1.0 - level)) - 1e-9)


def _needed(estimate: Estimate, reason: Reason, regions: list[_Region], level: float) -> float:
    if reason is Reason.EXACT:
        return 0.0
    if reason is Reason.ONE_UNIT:
        return 2.0
    if _is_flat(estimate) and reason is not Reason.IDENTICAL:
        enough = _sign_test_units(level)
        return next(m for m in itertools.count(2) if _effective(estimate, m) >= enough)
    if estimate.n == 0 or reason in (Reason.IDENTICAL, Reason.NO_INTERVAL):
        return math.inf
    value, sd = estimate.value, _stderr(estimate) * math.sqrt(estimate.n)
    around = [region for region in regions if region.low <= value <= region.high]
    if estimate.method == CLOPPER_PEARSON:
        return min(trials_between(value, region.low, region.high, level=level) for region in around)
    needed = min(
        units_between(
            value - region.low,
            region.high - value,
            sd,
            dof=lambda m: degrees_of_freedom(estimate, m),
            alpha=(1.0 - level) / 2.0,
        )
        for region in around
    )
    # An interval by resampling need not be symmetric; undecided, it needs more units than it has.
    asymmetric = estimate.method == RESAMPLED and reason is Reason.OPEN
    return max(needed, estimate.n + 1) if asymmetric else needed


def _stderr(estimate: Estimate) -> float:
    """The standard error, or the one that the wider side of a resampled interval amounts to."""
    if estimate.n < 2 or not math.isnan(estimate.stderr) or estimate.method != RESAMPLED:
        return estimate.stderr
    half = max(estimate.value - estimate.interval[0], estimate.interval[1] - estimate.value)
    return half / quantile((1.0 + estimate.level) / 2.0, dof=degrees_of_freedom(estimate, estimate.n))


def _p_value(estimate: Estimate, reason: Reason, regions: list[_Region]) -> float:
    """Twice the one-sided p-value of the region that is easiest to decide."""
    if reason is Reason.EXACT:
        return 0.0
    if reason not in (Reason.CLEAR, Reason.INSIDE, Reason.OPEN, Reason.AT_LIMIT) or estimate.n == 0:
        return 1.0
    chances = [
        max(one_sided(estimate, region.low, above=True), one_sided(estimate, region.high, above=False))
        for region in regions
    ]
    return min(1.0, 2.0 * min(chances))


def one_sided(estimate: Estimate, limit: float, *, above: bool) -> float:
    """Return the one-sided p-value that the true value lies above the limit, or below it."""
    if math.isinf(limit):
        return 0.0
    if estimate.method == CLOPPER_PEARSON:
        return binomial_tail(round(estimate.value * estimate.n), estimate.n, limit, above=above)
    distance = estimate.value - limit if above else limit - estimate.value
    if _is_flat(estimate):
        return 2.0 ** -_effective(estimate, estimate.n) if distance >= 0.0 else 1.0
    return lower_tail(-distance / _stderr(estimate), dof=degrees_of_freedom(estimate, estimate.n))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
