"""Shares, means and ratios over seeds, as records with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from metier.core import Estimate
from metier.core.estimate import clopper_pearson as clopper_pearson
from metier.records import Measured, measured

LEVEL = 0.95


def share(flags: Sequence[bool], *, level: float = LEVEL, unit: str = "seeds") -> Measured:
    """Share of true flags with its exact interval."""
    return measured(Estimate.share(sum(flags), len(flags), level=level, unit=unit), percent=True)


def mean(values: Sequence[float], *, percent: bool = False, unit: str = "seeds") -> Measured:
    """Mean over seeds with its Student interval; a single seed has none."""
    return measured(Estimate.from_values(values, level=LEVEL, unit=unit), percent=percent)


def ratio(part: Sequence[float], whole: Sequence[float], *, unit: str = "seeds") -> Measured:
    """mean(part) / mean(whole) over paired seeds, with the linearized Student interval."""
    return measured(Estimate.ratio(part, whole, level=LEVEL, unit=unit), percent=True)
