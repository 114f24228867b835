"""Claims: a sentence, a measured value against its limits, and the one verdict of `metier.judge`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from metier.core import Comparison, Estimate, Verdict, judge
from metier.records import Claim, Measured, estimate_of, measured as as_record

LEVEL = 0.95


def claim(
    measured: Measured | Estimate | Comparison,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    margin: float = 0.0,
    percent: bool = False,
    shown: Measured | None = None,
    unless: str = "",
    reason: str = "",
    **sentences: Any,
) -> Claim:
    """Judge a claim: its value is to keep a limit, or to lie between two.

    Args:
        measured: what is judged: an estimate, a comparison (its gain), or a record of either.
        at_least, at_most, margin: as in `metier.judge`. A value shown to lie between two limits keeps
            the claim, so that *equivalent* is read as *holds* there.
        percent: the value is a fraction, to be shown in percent.
        shown: the number that the report shows, where it is not the judged one itself.
        unless: why this run cannot decide the claim, whatever it measured.
        reason: what else a reader should know.
        **sentences: `id`, `statement`, `source`, `minimum_effect`, `command` of the record.

    Example:
        >>> sentences = {"id": "cover", "statement": "It covers.", "source": "ours", "command": "metier list"}
        >>> covers = Estimate.share(19, 20, unit="seeds")
        >>> judged = claim(covers, at_least=0.5, minimum_effect="in half of the seeds", **sentences)
        >>> judged.verdict, judged.measured.n
        ('holds', 20)
    """
    estimate = estimate_of(measured) if isinstance(measured, Measured) else measured
    # A record with a level of its own, such as one-sided limits, was asked for at that level.
    level = (measured.level or LEVEL) if isinstance(measured, Measured) else LEVEL
    verdict = judge(estimate, at_least=at_least, at_most=at_most, margin=margin, level=level)
    between = at_least is not None and at_most is not None
    decided = "holds" if between and verdict.verdict == "equivalent" else verdict.verdict
    needed = needed_of(verdict) if decided == "undecided" and not unless else None
    own = measured if isinstance(measured, Measured) else None
    record = shown or own or as_record(estimate, percent=percent)
    limit = margin or (at_least if at_least is not None else at_most)
    return Claim(
        minimum_effect_value=None if between else limit,
        measured=record,
        verdict="undecided" if unless else decided,
        needed=needed,
        needed_unit=verdict.unit if needed is not None else "",
        reason="; ".join(part for part in (unless, reason) if part),
        **sentences,
    )


def needed_of(verdict: Verdict) -> int | None:
    """Return how many units would decide, where any number would."""
    return math.ceil(verdict.needed) if math.isfinite(verdict.needed) and verdict.needed else None


def all_hold(verdicts: Sequence[str]) -> Estimate:
    """Return a claim of several parts as one exact value: the share of parts that hold.

    Parts that are undecided make an enclosure: they may hold or not.

    Example:
        >>> judge(all_hold(["holds", "undecided"]), at_least=1.0).verdict
        'undecided'
    """
    n, held, open_ = len(verdicts), verdicts.count("holds"), verdicts.count("undecided")
    return Estimate.enclosure(held / n, (held + open_) / n)
