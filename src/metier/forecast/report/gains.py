"""The gain of a candidate over the global model, as a share of its loss, with its interval in time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from metier.core import Decision, Estimate, compare_paired, specialize_or_fall_back
from metier.core.estimate import IDENTICAL_LOSSES
from metier.core.long_run import ewc_dof
from metier.records import Measured, measured

LEVEL = 0.95
ALPHA = (1 - LEVEL) / 2


def relative_gain(loss: ArrayLike, base: ArrayLike) -> Measured:
    """Share of the base loss that is saved: r = 1 - mean(loss) / mean(base), in time.

    The interval is that of the mean of loss - (1 - r) base over the mean of base, so that the noise of the
    denominator counts too.

    Example:
        >>> relative_gain([0.9, 0.8, 1.0, 0.9], [1.0, 1.0, 1.1, 0.9]).value
        0.1
    """
    estimate = relative_estimate(loss, base)
    return measured(replace(estimate, method="EWC Student t of the ratio"), percent=True)


def relative_estimate(loss: ArrayLike, base: ArrayLike) -> Estimate:
    """The same as an estimate, for a verdict on it."""
    a, b = np.asarray(loss, dtype=np.float64), np.asarray(base, dtype=np.float64)
    share = 1.0 - float(a.mean() / b.mean())
    spread = compare_paired(a, (1.0 - share) * b, dependence="time", level=LEVEL)
    half = (spread.interval[1] - spread.interval[0]) / 2 / float(b.mean())
    same = spread.method == IDENTICAL_LOSSES and share != 0.0
    # Proportional losses save the same share at every step: no spread, and no tie either.
    method, dof = ("ewc", float(ewc_dof(spread.n))) if same else (spread.method, spread.dof)
    return replace(
        spread.estimate,
        method=method,
        dof=dof,
        value=round(share, 15),
        stderr=spread.stderr / float(b.mean()),
        interval=(share - half, share + half),
    )


def gain_decision(loss: ArrayLike, base: ArrayLike, *, minimum: float = 0.0) -> Decision:
    """Whether the loss is below (1 - minimum) of the base loss, in time, at two-sided 5 %."""
    b = np.asarray(base, dtype=np.float64)
    return specialize_or_fall_back(loss, (1.0 - minimum) * b, dependence="time", alpha=ALPHA)
