"""What experts tell about classes: their information with its null, and how few of them suffice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from metier.core.checks import ensure, finite_array, label_codes, open_fraction, positive_int
from metier.core.estimate import quantile
from metier.core.mutual_information import InformationResult, information
from metier.core.rng import derive


def class_information(
    coefficients: Tensor | ArrayLike,
    classes: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    permutations: int = 199,
    rng: int = 0,
) -> InformationResult:
    """Return the information in nats between classes and experts, with its permutation null.

    Args:
        coefficients: Gate values (n, N), rows summing to 1.
        classes: Class of each row, (n,).
        groups: Independent unit of each row (document, image), within which the class is constant.
        permutations: Number of permutations of the null.
        rng: Seed.

    Returns:
        The information with its null: with many experts chance alone gives a positive value.

    Example:
        >>> a = np.eye(2)[[0, 1] * 20]
        >>> round(class_information(a, ["cat", "dog"] * 20).value, 4)
        0.6931

    Source: `metier.information`; its use for experts is ours.
    """
    values: Any = (
        coefficients.detach().cpu().double().numpy() if isinstance(coefficients, Tensor) else coefficients
    )
    weights = finite_array("coefficients", values, ndim=2)
    # Half-precision gates sum to 1 only to three digits.
    weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return information(classes, weights, groups=groups, permutations=permutations, rng=rng)


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe of k experts.

    Attributes:
        k: Number of experts used.
        experts: Which, in order of their difference between the classes on the training rows.
        accuracy: Accuracy on held-out rows.
        interval: Its Wilson interval; with groups, for the number of independent rows that the spread
            between held-out groups is worth.
        majority: Accuracy of always naming the more frequent class, on the same rows.
        n: Held-out rows.
    """

    k: int
    experts: tuple[int, ...]
    accuracy: float
    interval: tuple[float, float]
    majority: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def sparse_probe(
    coefficients: Tensor | ArrayLike,
    labels: ArrayLike,
    *,
    k: int | Sequence[int] = (1, 2, 5),
    held_out: float = 0.3,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    rng: int = 0,
) -> list[Probe]:
    """Fit logistic regressions on the k experts that differ most between two classes.

    Experts are chosen and probes are fitted on training rows; held-out rows are never looked at before.

    Args:
        coefficients: Gate values (n, N).
        labels: One of two labels per row, (n,).
        k: Numbers of experts, or one number.
        held_out: Share of rows, or of whole groups, that are held out.
        groups: Independent unit of each row; a unit is held out as a whole.
        level: Level of the intervals.
        rng: Seed of the split.

    Returns:
        One probe per k.

    Raises:
        InputError: There are not two labels, k exceeds the number of experts, or values do not fit.

    Example:
        >>> draw = np.random.default_rng(0)
        >>> y = draw.integers(2, size=400)
        >>> a = np.eye(3)[np.where(y == 1, 2, draw.integers(2, size=400))]
        >>> sparse_probe(a, y, k=(1,))[0].experts, sparse_probe(a, y, k=(1,))[0].accuracy
        ((2,), 1.0)

    Source: Gurnee et al. (2023), mean-difference selection; its use for expert coefficients is ours.
    """
    from sklearn.linear_model import LogisticRegression

    values: Any = (
        coefficients.detach().cpu().double().numpy() if isinstance(coefficients, Tensor) else coefficients
    )
    a = finite_array("coefficients", values)
    held_out, level = open_fraction("held_out", held_out), open_fraction("level", level)
    y, names = label_codes("labels", labels)
    ensure(
        a.ndim == 2 and len(a) == len(y) and len(names) == 2,
        "a probe tells two labels apart",
        expected="coefficients (n, N) and n labels of two kinds",
        got=f"shape {a.shape} and {len(y)} labels of {len(names)} kinds",
        next_step="Compare one class with the others: labels == name.",
    )
    unit = np.arange(len(y)) if groups is None else label_codes("groups", groups)[0]
    ensure(
        len(unit) == len(y),
        "groups say which rows belong together",
        expected=f"one entry per row, {len(y)}",
        got=len(unit),
        next_step="Check how the rows were selected.",
    )
    order = derive(rng, "probe").permutation(int(unit.max()) + 1)
    test = np.isin(unit, order[: max(1, round(held_out * len(order)))])
    ensure(
        len(np.unique(y[~test])) == 2 and test.any(),
        "training rows hold both labels",
        expected="both labels among the rows that are not held out",
        got="one label",
        next_step="Pass more rows, or another rng.",
    )
    gap = a[~test][y[~test] == 1].mean(0) - a[~test][y[~test] == 0].mean(0)
    ranked = np.argsort(-np.abs(gap), kind="stable")
    probes = []
    for size in k if isinstance(k, Sequence) else (k,):
        ensure(
            positive_int("k", size) <= a.shape[1],
            "a probe uses experts there are",
            expected=f"k <= {a.shape[1]}",
            got=size,
            next_step="Lower k.",
        )
        chosen = ranked[:size]
        spread = a[~test][:, chosen].std(0)
        scale = np.where(spread > 1e-9, spread, 1.0)
        model = LogisticRegression(max_iter=1000).fit(a[~test][:, chosen] / scale, y[~test])
        hits = model.predict(a[test][:, chosen] / scale) == y[test]
        share = y[test].mean()
        probes.append(
            Probe(
                k=int(size),
                experts=tuple(int(n) for n in chosen),
                accuracy=float(hits.mean()),
                interval=wilson(float(hits.mean()), independent_rows(hits, unit[test]), level),
                majority=float(max(share, 1 - share)),
                n=int(hits.size),
            )
        )
    return probes


def independent_rows(hits: NDArray[np.bool_], unit: NDArray[np.int64]) -> float:
    """Return how many independent rows tell as much about the mean of `hits` as rows in units do.

    p (1 - p) over the clustered variance of the mean, at most the number of rows; without any spread, the
    number of units.

    Example:
        >>> hits, unit = np.array([1, 1, 0, 0]) == 1, np.array([0, 0, 1, 1])
        >>> independent_rows(hits, unit), independent_rows(hits, np.arange(4))
        (1.0, 3.0)
    """
    codes, counts = np.unique(unit, return_inverse=True, return_counts=True)[1:]
    share, n_units = float(hits.mean()), len(counts)
    if share in (0.0, 1.0) or n_units == 1:
        return float(n_units)
    sums = np.bincount(codes, hits - share)
    variance = float(np.square(sums).sum()) * n_units / (n_units - 1) / hits.size**2
    return float(hits.size if variance == 0 else min(hits.size, share * (1 - share) / variance))


def wilson(share: float, n: float, level: float) -> tuple[float, float]:
    """Return the Wilson interval of a proportion.

    Args:
        share: The proportion.
        n: Number of independent rows.
        level: Level of the interval.

    Example:
        >>> [round(end, 3) for end in wilson(0.8, 10, 0.95)]
        [0.49, 0.943]
    """
    z = quantile(0.5 + level / 2)
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return center - half, center + half
