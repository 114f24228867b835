"""Claims of the forecasting studies: each against a minimum effect that was stated before measuring."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core import Decision, compare_paired, information, specialize_or_fall_back
from metier.core.mutual_information import InformationResult
from metier.forecast.report import gain_decision, relative_gain
from metier.forecast.report.gains import ALPHA, LEVEL
from metier.runs import Claim, Measured
from metier_studies.lib.shares import seeds_needed, share, verdict_above, verdict_below

Floats = NDArray[np.float64]


def gain_claim(
    loss: ArrayLike,
    base: ArrayLike,
    *,
    minimum: float,
    claim_id: str,
    statement: str,
    command: str,
    effect: str = "",
) -> Claim:
    """A relative gain of more than `minimum` (negative: a loss of less than that)."""
    decision = gain_decision(loss, base, minimum=minimum)
    gain = relative_gain(loss, base)
    verdict = {"pays": "holds", "hurts": "does not hold"}.get(decision.verdict, "undecided")
    small = (
        gain.low is not None
        and gain.high is not None
        and -abs(minimum) <= gain.low <= gain.high <= abs(minimum)
    )
    if verdict == "does not hold" and small:
        verdict = "equivalent"
    return Claim(
        id=claim_id,
        statement=statement,
        source="metier",
        minimum_effect=effect or f"{100 * minimum:g} % of the loss",
        minimum_effect_value=minimum,
        measured=gain,
        verdict=verdict,
        **_needed(decision, verdict),
        command=command,
    )


def coverage_claim(
    shares: ArrayLike, level: float, *, tolerance: float, claim_id: str, command: str
) -> Claim:
    """The coverage over time lies within `tolerance` of its level: both one-sided tests pass."""
    x = np.asarray(shares, dtype=np.float64)
    comparison = compare_paired(np.full(len(x), level), x, dependence="time", level=LEVEL)
    mean = float(x.mean())
    half = (comparison.interval[1] - comparison.interval[0]) / 2
    sides = [
        specialize_or_fall_back(
            sign * (x - level), np.full(len(x), tolerance), dependence="time", alpha=ALPHA
        )
        for sign in (1.0, -1.0)
    ]
    verdicts = [side.verdict for side in sides]
    verdict = "holds" if verdicts == ["pays", "pays"] else "undecided"
    verdict = "does not hold" if "hurts" in verdicts else verdict
    return Claim(
        id=claim_id,
        statement=f"{100 * level:g} % intervals hold {100 * level:g} % of the values that come",
        source="metier",
        minimum_effect=f"within {100 * tolerance:g} points",
        minimum_effect_value=tolerance,
        measured=Measured(
            value=mean,
            low=mean - half,
            high=mean + half,
            level=LEVEL,
            n=len(x),
            unit="time steps",
            method="EWC Student t",
            percent=True,
        ),
        verdict=verdict,
        **_needed(max(sides, key=lambda side: side.needed), verdict),
        command=command,
    )


def _needed(decision: Decision, verdict: str) -> dict[str, Any]:
    if verdict != "undecided" or not math.isfinite(decision.needed):
        return {}
    return {"needed": math.ceil(decision.needed), "needed_unit": "time steps"}


def information_claim(
    contexts: Sequence[str],
    labels: ArrayLike,
    *,
    minimum: float,
    permutations: int,
    rng: int | np.random.Generator,
    claim_id: str,
    statement: str,
    command: str,
) -> tuple[InformationResult, Claim]:
    """The clusters tell more than chance about what a series is, in nats; the interval is a jackknife's."""
    labels = np.asarray(labels)
    found = information(contexts, labels, permutations=permutations, rng=rng)
    half = 1.96 * jackknife_error(contexts, labels)
    verdict = "undecided"
    if found.excess - half > minimum and found.p_value < 1 - LEVEL:
        verdict = "holds"
    elif found.excess + half < minimum:
        verdict = "does not hold"
    needed: dict[str, Any] = {}
    if verdict == "undecided" and found.excess != minimum:
        ratio = (1.96 + 0.8416) * half / 1.96 / abs(found.excess - minimum)
        needed = {"needed": math.ceil(len(labels) * ratio**2), "needed_unit": "series"}
    return found, Claim(
        id=claim_id,
        statement=statement,
        source="metier",
        minimum_effect=f"{minimum:g} nats above chance",
        minimum_effect_value=minimum,
        measured=Measured(
            value=found.excess,
            low=found.excess - half,
            high=found.excess + half,
            level=LEVEL,
            n=found.n_units,
            unit="series",
            method="jackknife over series, less the permutation mean",
        ),
        verdict=verdict,
        **needed,
        command=command,
    )


def jackknife_error(contexts: Sequence[str], labels: NDArray[Any]) -> float:
    """Standard error of the plug-in information by leaving out one item at a time."""
    codes = np.unique(np.asarray(contexts), return_inverse=True)[1]
    groups = np.unique(labels, return_inverse=True)[1]
    table = np.zeros((codes.max() + 1, groups.max() + 1))
    np.add.at(table, (codes, groups), 1.0)
    n = len(codes)
    values = np.empty_like(table)
    for c, k in np.argwhere(table > 0):
        left = table.copy()
        left[c, k] -= 1.0
        values[c, k] = plug_in(left)
    left_out = values[codes, groups]
    return float(np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2)))


def plug_in(table: Floats) -> float:
    """Information of a contingency table in nats.

    Example:
        >>> round(plug_in(np.array([[2.0, 0.0], [0.0, 2.0]])), 4)
        0.6931
    """
    p = table / table.sum()
    product = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / product[seen])))


def share_claim(
    measured: Measured, *, limit: float, below: bool, claim_id: str, statement: str, source: str, command: str
) -> Claim:
    """A share of panels of at most (`below`) or at least the limit, by its one-sided 95 % binomial limits."""
    verdict = (verdict_below if below else verdict_above)(measured, limit)
    needed = seeds_needed(measured, limit) if verdict == "undecided" else None
    return Claim(
        id=claim_id,
        statement=statement,
        source=source,
        minimum_effect=f"at {'most' if below else 'least'} {100 * limit:g} % of panels",
        minimum_effect_value=limit,
        measured=measured,
        verdict=verdict,
        needed=needed,
        needed_unit="" if needed is None else "panels",
        command=command,
    )


def adopted_share(adopted: int, panels: int) -> Measured:
    """Share of panels in which a gate specialized; each end of the interval is a one-sided 95 % limit."""
    return share([k < adopted for k in range(panels)], level=0.9, unit="panels")
