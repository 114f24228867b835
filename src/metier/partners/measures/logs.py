"""Counts of behaviours from a table of logged episodes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError, label_codes, non_negative

from .behaviour import BehaviourInformation, behaviour_information


@dataclass(frozen=True, slots=True)
class BehaviourCounts:
    """Episodes by partner and behaviour.

    Attributes:
        partners: Names of the rows.
        behaviours: Names of the columns.
        counts: Episodes, shape (partners, behaviours).
        failures: Episodes without a behaviour, shape (partners,).
    """

    partners: tuple[Hashable, ...]
    behaviours: tuple[Hashable, ...]
    counts: NDArray[np.int64]
    failures: NDArray[np.int64]

    @property
    def success(self) -> NDArray[np.float64]:
        """Share of each partner's episodes that had a behaviour, shape (partners,)."""
        defined = self.counts.sum(axis=1)
        return np.asarray(defined / (defined + self.failures))

    def capable(self, threshold: float = 0.5) -> BehaviourCounts:
        """Keep the partners that succeed in more than `threshold` of their episodes, as the paper does."""
        keep = np.flatnonzero(self.success > non_negative("threshold", threshold))
        return BehaviourCounts(
            tuple(self.partners[i] for i in keep), self.behaviours, self.counts[keep], self.failures[keep]
        )

    def information(self, **options: Any) -> BehaviourInformation:
        """Return `behaviour_information` of these counts; options pass through."""
        return behaviour_information(counts=self.counts, failures=self.failures, **options)


def behaviour_counts(partners: Any, behaviours: Any) -> BehaviourCounts:
    """Count a log with one entry per episode: who played, and what was done.

    Args:
        partners: One label per episode, shape (episodes,).
        behaviours: One label per episode; None, NaN and -1 mean that the episode had none (it failed).

    Returns:
        The counts, rows and columns in sorted order of their labels.

    Raises:
        InputError: Lengths differ, or a partner's label is missing.

    Example:
        >>> log = behaviour_counts(["a", "a", "b", "b"], ["soup", None, "salad", "salad"])
        >>> log.counts.tolist(), log.failures.tolist()
        ([[0, 1], [2, 0]], [1, 0])
    """
    row, names = label_codes("partners", partners)
    what = np.asarray(behaviours, dtype=object).ravel()
    if len(what) != len(row):
        raise InputError(
            "partners and behaviours describe the same episodes",
            expected=f"{len(row)} behaviours",
            got=f"{len(what)}",
            next_step="Pass one behaviour per episode, None where it failed.",
        )
    defined = np.array([not _undefined(value) for value in what], dtype=bool)
    columns: list[Hashable] = []
    counts = np.zeros((len(names), 0), np.int64)
    if defined.any():
        column, columns = label_codes("behaviours", what[defined])
        counts = np.zeros((len(names), len(columns)), np.int64)
        np.add.at(counts, (row[defined], column), 1)
    failures = np.bincount(row[~defined], minlength=len(names))
    return BehaviourCounts(tuple(names), tuple(columns), counts, failures)


def _undefined(value: Any) -> bool:
    return value is None or value != value or (not isinstance(value, str) and value == -1)
