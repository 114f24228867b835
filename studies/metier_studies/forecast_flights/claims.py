"""Claims of the forecasting studies: each against a minimum effect that was stated before measuring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core import Estimate, compare_paired, information, judge
from metier.core.mutual_information import InformationResult
from metier.forecast.report import relative_estimate, relative_gain
from metier.forecast.report.gains import LEVEL
from metier.runs import Claim, Measured
from metier_studies.lib.claims import claim
from metier_studies.lib.shares import share

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
    gain = relative_gain(loss, base)
    sentences: dict[str, Any] = {
        "id": claim_id,
        "statement": statement,
        "source": "metier",
        "minimum_effect": effect or f"{100 * minimum:g} % of the loss",
        "command": command,
    }
    estimate = relative_estimate(loss, base)
    judged = claim(estimate, at_least=minimum, shown=gain, **sentences)
    if judged.verdict == "does not hold" and minimum:
        # Too small to matter is another finding than a loss.
        near = judge(estimate, at_least=-abs(minimum), at_most=abs(minimum)).verdict
        judged = judged.model_copy(update={"verdict": near}) if near == "equivalent" else judged
    return judged.model_copy(update={"minimum_effect_value": minimum})


def coverage_claim(
    shares: ArrayLike, level: float, *, tolerance: float, claim_id: str, command: str
) -> Claim:
    """The coverage over time lies within `tolerance` of its level: both one-sided tests pass."""
    x = np.asarray(shares, dtype=np.float64)
    excess = compare_paired(np.full(len(x), level), x, dependence="time", level=LEVEL)
    mean, half = float(x.mean()), (excess.interval[1] - excess.interval[0]) / 2
    return claim(
        excess,
        at_least=-tolerance,
        at_most=tolerance,
        shown=Measured(
            value=mean,
            low=mean - half,
            high=mean + half,
            level=LEVEL,
            n=len(x),
            unit="time steps",
            method="EWC Student t",
            percent=True,
        ),
        id=claim_id,
        statement=f"{100 * level:g} % intervals hold {100 * level:g} % of the values that come",
        source="metier",
        minimum_effect=f"within {100 * tolerance:g} points",
        command=command,
    ).model_copy(update={"minimum_effect_value": tolerance})


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
    estimate = Estimate.from_stderr(
        found.excess,
        jackknife_error(contexts, labels),
        n=found.n_units,
        dof=found.n_units - 1.0,
        method="jackknife over series, less the permutation mean",
        unit="series",
    )
    return found, claim(
        estimate,
        at_least=minimum,
        id=claim_id,
        statement=statement,
        source="metier",
        minimum_effect=f"{minimum:g} nats above chance",
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
    return claim(
        measured,
        at_least=None if below else limit,
        at_most=limit if below else None,
        id=claim_id,
        statement=statement,
        source=source,
        minimum_effect=f"at {'most' if below else 'least'} {100 * limit:g} % of panels",
        command=command,
    )


def adopted_share(adopted: int, panels: int) -> Measured:
    """Share of panels in which a gate specialized; each end of the interval is a one-sided 95 % limit."""
    return share([k < adopted for k in range(panels)], level=0.9, unit="panels")
