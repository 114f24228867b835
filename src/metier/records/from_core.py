"""From core's results to records: the same three objects answer for every system."""

from __future__ import annotations

import math

from metier.core.comparison import Comparison
from metier.core.decision import Decision
from metier.core.estimate import CLOPPER_PEARSON, Estimate, quantile
from metier.core.mutual_information import InformationResult
from metier.core.verdict import Reason, too_flat
from metier.records.results import Measured, Paid, Specialized


def measured(
    result: Estimate | Comparison | Decision, *, scale: float = 1.0, percent: bool = False
) -> Measured:
    """Record an estimate, a comparison's gain or a decision's gain with its interval.

    Args:
        result: what core returned.
        scale: multiplies value and interval, for example 1 / mean loss of the generalist for a relative gain.
        percent: the scaled number is a fraction, to be shown in percent.

    Returns:
        The record; `n` and `unit` are those of the result.

    Raises:
        ValueError: an interval end is not finite.

    Example:
        >>> from metier.core import compare_paired
        >>> measured(compare_paired([1.0, 2.0, 3.0], [1.5, 2.25, 3.75])).value
        0.5
    """
    value = result.value if isinstance(result, Estimate) else result.gain
    level = 1.0 - 2.0 * result.alpha if isinstance(result, Decision) else result.level
    low, high = sorted(scale * end for end in result.interval)
    # Neither an exact value nor a single unit has an interval, and equal values of a few units only seem to.
    estimate = result.estimate if isinstance(result, Comparison) else result
    flat = (
        too_flat(estimate, level) if isinstance(estimate, Estimate) else estimate.code == Reason.EQUAL_VALUES
    )
    bare = result.n == 0 or flat or math.isnan(low)
    bounds = {} if bare else {"low": low, "high": high, "level": round(level, 6)}
    return Measured(
        value=scale * value,
        **bounds,
        n=result.n or None,
        unit=result.unit,
        method=result.method,
        percent=percent,
    )


def estimate_of(record: Measured) -> Estimate:
    """Return the estimate that a record shows, for a verdict on it.

    Shares by Clopper and Pearson are counted again; a Student interval over n units gives its standard
    error back; no interval means an exact value where n is None, and an unknown spread otherwise; any other
    interval stands as it is.

    Example:
        >>> from metier.core import judge
        >>> told = measured(Estimate.from_values([1.0, 1.2, 1.1], unit="seeds"))
        >>> judge(estimate_of(told), at_least=0.5).verdict
        'holds'
    """
    if record.low is None and record.high is None:
        if record.n is None:
            return Estimate.exact(record.value, method=record.method or "exact")
        if record.n > 1 and record.method.startswith("Student t"):  # equal values of a few units
            return Estimate.from_stderr(
                record.value, 0.0, n=record.n, dof=record.n - 1.0, method="Student t", unit=record.unit
            )
        return Estimate.from_stderr(record.value, math.nan, n=record.n, unit=record.unit)
    level, n = record.level or 0.95, record.n or 0
    low = -math.inf if record.low is None else record.low
    high = math.inf if record.high is None else record.high
    if not n:
        return Estimate.enclosure(low, high, method=record.method or "enclosure")
    if record.method == CLOPPER_PEARSON:
        return Estimate.share(round(record.value * n), n, level=level, unit=record.unit)
    if record.method.startswith("Student t"):
        stderr = (high - low) / 2.0 / quantile((1.0 + level) / 2.0, dof=n - 1.0)
        return Estimate.from_stderr(
            record.value, stderr, n=n, level=level, dof=n - 1.0, method="Student t", unit=record.unit
        )
    return Estimate.resampled(record.value, (low, high), n=n, level=level, unit=record.unit)


def specialized(result: InformationResult, *, text: str) -> Specialized:
    """Record how much the assignment tells, beside its permutation null.

    Args:
        result: what `metier.information` returned.
        text: one sentence for people.

    Example:
        >>> from metier.core import information
        >>> specialized(information(["a", "b"] * 20, [0, 1] * 20), text="t").information > 0.69
        True
    """
    return Specialized(
        text=text,
        information=result.value,
        null_mean=result.null_mean,
        p_value=result.p_value,
        ceiling=result.ceiling,
    )


def paid(decision: Decision, *, text: str | None = None, scale: float = 1.0, percent: bool = False) -> Paid:
    """Record a decision: its gain with the interval, its verdict, and the units that would decide it.

    Args:
        decision: what `metier.specialize_or_fall_back` returned.
        text: one sentence for people; by default the decision's own reason.
        scale: multiplies gain and interval.
        percent: the scaled gain is a fraction, to be shown in percent.

    Example:
        >>> from metier.core import specialize_or_fall_back
        >>> paid(specialize_or_fall_back([1.0, 1.1, 0.9, 1.0], [1.5, 1.7, 1.3, 1.6])).verdict
        'pays'
    """
    undecided = decision.verdict == "undecided" and math.isfinite(decision.needed)
    return Paid(
        text=decision.reason if text is None else text,
        gain=measured(decision, scale=scale, percent=percent),
        verdict=decision.verdict,
        needed=math.ceil(decision.needed) if undecided else None,
        needed_unit=decision.unit if undecided else "",
    )
