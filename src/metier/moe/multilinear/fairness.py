"""Group fairness of predictions: equality of opportunity, spread of accuracy, the worst group."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metier.core.checks import ensure, label_codes


@dataclass(frozen=True, slots=True)
class GroupFairness:
    """How predictions treat groups.

    Attributes:
        groups: Names of the groups.
        counts: Rows of each.
        accuracy: Accuracy of each.
        true_positive_rate: P(prediction = positive | label = positive) of each, NaN without positives.
        opportunity_gap: Largest difference of true positive rates between two groups.
        accuracy_spread: Standard deviation of the groups' accuracies (divided by the number of groups).
        worst_accuracy: Least accuracy of a group, what max-min fairness maximizes.

    Example:
        >>> group_fairness([1, 1, 0, 0], [1, 0, 0, 0], ["a", "b", "a", "b"]).opportunity_gap
        1.0
    """

    groups: tuple[Any, ...]
    counts: tuple[int, ...]
    accuracy: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    opportunity_gap: float
    accuracy_spread: float
    worst_accuracy: float

    def summary(self) -> str:
        """Return one line for people."""
        worst = self.groups[int(np.argmin(self.accuracy))]
        return (
            f"{len(self.groups)} groups: opportunity gap {self.opportunity_gap:.3f}, accuracy spread "
            f"{self.accuracy_spread:.3f}, worst accuracy {self.worst_accuracy:.3f} (group {worst!r})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def group_fairness(
    y_true: ArrayLike, y_pred: ArrayLike, groups: ArrayLike, *, positive: Any = 1
) -> GroupFairness:
    """Measure how predicted labels treat groups.

    Args:
        y_true: Labels, (n,).
        y_pred: Predicted labels, (n,).
        groups: Group of each row, (n,).
        positive: The label whose opportunity counts.

    Returns:
        Rates by group, and three summaries.

    Raises:
        InputError: Lengths differ, or no row has the positive label.

    Example:
        >>> print(group_fairness([1, 1, 0, 0], [1, 0, 0, 0], ["a", "b", "a", "b"]).summary())
        2 groups: opportunity gap 1.000, accuracy spread 0.250, worst accuracy 0.500 (group 'b')

    Source: Hardt, Price and Srebro (2016) for equality of opportunity; equal to Fairlearn's MetricFrame.
    """
    truth, guess = np.asarray(y_true), np.asarray(y_pred)
    codes, names = label_codes("groups", groups)
    ensure(
        truth.shape == guess.shape == codes.shape,
        "labels, predictions and groups belong to the same rows",
        expected="three lists of one length",
        got=f"shapes {truth.shape}, {guess.shape} and {codes.shape}",
        next_step="Check how the rows were selected.",
    )
    is_positive = truth == positive
    ensure(
        is_positive.any(),
        "equality of opportunity looks at rows with the positive label",
        expected=f"rows labelled {positive!r}",
        got="none",
        next_step="Pass positive=... as it is written in y_true.",
    )
    counts = np.bincount(codes, minlength=len(names))
    accuracy = _rate(codes, (truth == guess).astype(float), counts)
    hits = _rate(codes, (is_positive & (guess == positive)).astype(float), np.bincount(codes, is_positive))
    return GroupFairness(
        groups=tuple(names),
        counts=tuple(counts.tolist()),
        accuracy=tuple(accuracy.tolist()),
        true_positive_rate=tuple(hits.tolist()),
        opportunity_gap=float(np.nanmax(hits) - np.nanmin(hits)),
        accuracy_spread=float(np.std(accuracy)),
        worst_accuracy=float(accuracy.min()),
    )


def _rate(codes: NDArray[np.int64], hits: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.float64]:
    sums = np.bincount(codes, hits, minlength=len(counts))
    rates: NDArray[np.float64] = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return rates
