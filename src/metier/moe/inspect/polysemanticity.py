"""What switching experts off does to classes: scores with the counts, nulls and intervals they need."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from metier.core.checks import ensure, open_fraction, positive_int
from metier.core.errors import InputError
from metier.core.rng import derive
from metier.moe.multilinear.layer import MultilinearMoE

FEW_FLIPS = 5


def class_polysemanticity(effects: ArrayLike) -> float:
    """Return ||d / sum(d) - onehot(argmax d)||_2 for effects d >= 0 on classes: 0 if one class is affected.

    Two equal classes give 1/sqrt(2), C equal ones sqrt(1 - 1/C). Without any effect it is NaN.

    Args:
        effects: |change of accuracy| by class, (C,).

    Example:
        >>> class_polysemanticity([0.0, 0.3, 0.0]), round(class_polysemanticity([0.2, 0.2]), 4)
        (0.0, 0.7071)

    Source: arXiv 2402.12550, section 4.1.
    """
    d = np.abs(np.asarray(effects, dtype=np.float64))
    if not d.any():
        return float("nan")
    share = d / d.sum()
    share[share.argmax()] -= 1.0
    return float(np.sqrt(np.square(share).sum()))


@dataclass(frozen=True, slots=True, eq=False)
class Polysemanticity:
    """What removing experts (or groups of experts) does to classes.

    Attributes:
        scores: Class-level polysemanticity of each expert, (M,); NaN without any effect on accuracy.
        gained: Predictions that become right without the expert, (M,).
        lost: Predictions that become wrong without it, (M,).
        graded: Mean change of the true class's log-probability by class, (M, C).
        mean: Mean score of experts with an effect.
        interval: Interval of the score that this number of rows gives on average: the spread over bootstrap
            samples of rows around `mean`. Their percentiles would lie too low, as flips drawn twice make an
            expert look like it serves fewer classes.
        null_mean: Mean score if the same numbers of flips fell on random rows.
        null_interval: Central interval of the null's mean.
        affected: Experts with an effect on accuracy.
        median_flips: Median number of flips per expert.
        level: Level of the intervals.
    """

    scores: NDArray[np.float64]
    gained: NDArray[np.int64]
    lost: NDArray[np.int64]
    graded: NDArray[np.float64]
    mean: float
    interval: tuple[float, float]
    null_mean: float
    null_interval: tuple[float, float]
    affected: int
    median_flips: float
    level: float

    def summary(self) -> str:
        """Return two lines for people: the score never stands without flips, null and interval."""
        low, high = self.interval
        null_low, null_high = self.null_interval
        few = f" Fewer than {FEW_FLIPS} flips per expert: the score says little." if self.few else ""
        return (
            f"polysemanticity {self.mean:.3f} ({self.level:.0%} interval {low:.3f} to {high:.3f}) over "
            f"{self.affected} of {len(self.scores)} experts with an effect; {self.median_flips:g} flips per "
            f"expert (median), {int(self.lost.sum())} lost, {int(self.gained.sum())} gained.\n"
            f"The same flips on random rows: {self.null_mean:.3f} ({null_low:.3f} to {null_high:.3f}).{few}"
        )

    @property
    def few(self) -> bool:
        """Whether the median expert flips too few predictions for its score to mean much."""
        return self.median_flips < FEW_FLIPS

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; scores without effect are None."""
        return {
            "scores": [None if np.isnan(s) else float(s) for s in self.scores],
            "gained": self.gained.tolist(),
            "lost": self.lost.tolist(),
            "graded": self.graded.tolist(),
            "mean": self.mean,
            "interval": list(self.interval),
            "null_mean": self.null_mean,
            "null_interval": list(self.null_interval),
            "affected": self.affected,
            "median_flips": self.median_flips,
            "level": self.level,
        }


@torch.no_grad()
def polysemanticity(
    layer: MultilinearMoE,
    log_probabilities: Callable[[], Tensor],
    labels: ArrayLike,
    *,
    experts: Sequence[int] | Sequence[Sequence[int]] | None = None,
    samples: int = 200,
    level: float = 0.95,
    rng: int = 0,
) -> Polysemanticity:
    """Switch experts off one by one and see which classes change.

    Args:
        layer: The layer (or block) whose experts are switched off.
        log_probabilities: Returns the model's log-probabilities (n, C) on fixed rows, as the layer is now.
        labels: Classes 0..C-1 of the rows, (n,).
        experts: Experts, or groups to remove together (see `mass_matched_groups`); all if left out.
        samples: Bootstrap samples and draws of the null.
        level: Level of the intervals.
        rng: Seed.

    Returns:
        Scores with flips in both directions, graded effects, a null at the same flips, an interval.

    Raises:
        InputError: Labels and probabilities do not fit.

    Warns:
        UserWarning: The median expert flips fewer than 5 predictions: one flip always scores 0, so the
            score then falls as experts are added, whatever they do.

    Example:
        >>> layer = MultilinearMoE(4, 3, n_experts=2, norm="none", rank=3, rng=0)
        >>> x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
        >>> report = polysemanticity(layer, lambda: layer(x).log_softmax(-1), layer(x).argmax(-1))
        >>> report.scores.shape, int(report.gained.sum())
        ((2,), 0)

    Source: arXiv 2402.12550 for the score; flips, graded effects, null and interval are ours.
    """
    samples, level = positive_int("samples", samples), open_fraction("level", level)
    targets = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    targets = targets.astype(np.int64) if targets.dtype == bool else targets
    base = _values(log_probabilities(), targets)
    removals = (
        [[n] for n in range(layer.n_joint)]
        if experts is None
        else [np.atleast_1d(e).tolist() for e in experts]
    )
    right = base.argmax(1) == targets
    flips = np.zeros((len(removals), len(targets)), dtype=np.int8)
    graded = np.zeros((len(removals), base.shape[1]))
    counts = np.maximum(np.bincount(targets, minlength=base.shape[1]), 1)
    rows = np.arange(len(targets))
    for m, removed in enumerate(removals):
        with layer.ablated(removed):
            without = _values(log_probabilities(), targets)
        flips[m] = (without.argmax(1) == targets).astype(np.int8) - right
        change = without[rows, targets] - base[rows, targets]
        graded[m] = np.bincount(targets, change, minlength=base.shape[1]) / counts
    return _report(flips, targets, graded, samples=samples, level=level, rng=rng)


def _values(log_probabilities: Tensor, targets: NDArray[Any]) -> NDArray[np.float64]:
    values = torch.as_tensor(log_probabilities).detach().cpu().double().numpy()
    whole = targets.size > 0 and np.issubdtype(targets.dtype, np.integer)
    fits = values.ndim == 2 and targets.shape == values.shape[:1]
    if not whole or not fits or targets.min() < 0 or targets.max() >= values.shape[1]:
        span = f"from {targets.min()} to {targets.max()}" if whole else f"of type {targets.dtype}"
        raise InputError(
            "labels number the classes of the rows",
            expected=f"classes from 0 to {values.shape[-1] - 1} for probabilities of shape {values.shape}",
            got=f"shape {targets.shape}, {span}",
            next_step="Encode the classes as columns of the probabilities.",
        )
    ensure(
        not np.isnan(values).any(),
        "log-probabilities say what the model predicts",
        expected="numbers",
        got=lambda: f"NaN in {int(np.isnan(values).any(1).sum())} of {len(values)} rows",
        next_step="Check the model's inputs.",
    )
    return values


def _scores(
    cells: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    targets: NDArray[Any],
    weights: NDArray[Any],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Return each expert's score from its flips (expert, row, direction), rows weighted."""
    expert, row, sign = cells
    where = expert * shape[1] + targets[row]
    sums = np.bincount(where, sign * weights[row], minlength=shape[0] * shape[1]).reshape(shape)
    counts = np.bincount(targets, weights, minlength=shape[1])
    effects = np.abs(sums) / np.maximum(counts, 1)
    total = effects.sum(1, keepdims=True)
    share = np.divide(effects, total, out=np.full(shape, np.nan), where=total > 0)
    share[np.arange(shape[0]), effects.argmax(1)] -= 1.0
    scores: NDArray[np.float64] = np.sqrt(np.square(share).sum(1))
    return scores


def _report(
    flips: NDArray[Any],
    targets: NDArray[Any],
    graded: NDArray[np.float64],
    *,
    samples: int,
    level: float,
    rng: int,
) -> Polysemanticity:
    expert, row = np.nonzero(flips)
    cells, shape = (expert, row, flips[expert, row].astype(float)), graded.shape
    draw, n = derive(rng, "polysemanticity"), len(targets)
    once = np.ones(n)
    scores = _scores(cells, targets, once, shape)
    booted, null = [], []
    for _ in range(samples):
        weights = np.bincount(draw.integers(n, size=n), minlength=n).astype(float)
        booted.append(_mean(_scores(cells, targets, weights, shape)))
        # Flips keep their number and direction, and fall on random rows.
        null.append(_mean(_scores(cells, targets[draw.permutation(n)], once, shape)))
    tail = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    changed = np.abs(flips).sum(1)
    median = float(np.median(changed))
    if median < FEW_FLIPS:
        warnings.warn(
            f"the median expert flips {median:g} predictions, fewer than {FEW_FLIPS}: class-level "
            "polysemanticity says little here; use more rows, groups of experts, or the graded effects.",
            stacklevel=3,
        )
    center = _mean(scores)
    low, high = _centered(booted, tail, center, top=float(np.sqrt(1 - 1 / shape[1])))
    null_low, null_high = _percentiles(null, tail)
    return Polysemanticity(
        scores=scores,
        gained=(flips > 0).sum(1),
        lost=(flips < 0).sum(1),
        graded=graded,
        mean=center,
        interval=(low, high),
        null_mean=_mean(np.array(null)),
        null_interval=(null_low, null_high),
        affected=int((~np.isnan(scores)).sum()),
        median_flips=median,
        level=level,
    )


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _percentiles(values: list[float], tail: list[float]) -> tuple[float, float]:
    known = [v for v in values if not np.isnan(v)]
    if not known:
        return float("nan"), float("nan")
    low, high = np.percentile(known, tail)
    return float(low), float(high)


def _centered(values: list[float], tail: list[float], center: float, *, top: float) -> tuple[float, float]:
    """Return percentiles moved so that their samples have their mean at `center`, within 0 and `top`."""
    moved = [v + center - _mean(np.array(values)) for v in values]
    low, high = np.clip(_percentiles(moved, tail), 0.0, top)
    return float(low), float(high)


def mass_matched_groups(load: ArrayLike | Tensor, n_groups: int) -> list[list[int]]:
    """Split experts into groups of nearly equal total load, so that removals of layers of any N compare.

    Args:
        load: Mean coefficient of each expert, (N,).
        n_groups: Number of groups, at most N.

    Returns:
        Lists of experts; the heaviest expert goes to the lightest group, in turn.

    Raises:
        InputError: There are more groups than experts.

    Example:
        >>> mass_matched_groups([0.4, 0.3, 0.2, 0.1], 2)
        [[0, 3], [1, 2]]

    Source: ours.
    """
    mass = np.asarray(load.detach().cpu() if isinstance(load, Tensor) else load, dtype=np.float64)
    ensure(
        positive_int("n_groups", n_groups) <= mass.size,
        "every group holds an expert",
        expected=f"at most {mass.size} groups",
        got=n_groups,
        next_step="Ask for fewer groups.",
    )
    groups: list[list[int]] = [[] for _ in range(n_groups)]
    total = np.zeros(n_groups)
    for n in np.argsort(-mass, kind="stable"):
        lightest = min(range(n_groups), key=lambda g: (total[g], len(groups[g])))
        groups[lightest].append(int(n))
        total[lightest] += mass[n]
    return [sorted(group) for group in groups]
