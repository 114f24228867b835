"""A root of a hypergradient in a box, where a coordinate may end at a wall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.bilevel.obigrad import OBiGrad
from metier.bilevel.solve import difference_slope, sandwich

Floats = NDArray[np.float64]
STEPS = 25
LONGEST_STEP = 1.0
SMALL_STEP = 0.1
"""A step below this share of a standard error is the last one."""


@dataclass(frozen=True, slots=True)
class BoxRoot:
    """Where the gradient vanishes, or points out of the box.

    Attributes:
        w: (d,).
        covariance: (d, d) sandwich of the free coordinates; NaN for those at a wall.
        at_bound: (d,) -1, 0 or 1: at the lower wall, free, at the upper wall.
        gradient: (d,) there.
        converged: whether the last step was small.
        warnings: what a person should know.
    """

    w: Floats
    covariance: Floats
    at_bound: tuple[int, ...]
    gradient: Floats
    converged: bool
    warnings: tuple[str, ...]


def root_in_box(engine: OBiGrad, d: int, bound: float) -> BoxRoot:
    """Newton steps from zero, on curvature made positive, at most 1 long, inside |w| <= bound.

    Args:
        engine: fitted.
        d: length of w.
        bound: half the width of the box.

    Returns:
        The root. A step below a tenth of a standard error ends the search.
    """
    w = np.zeros(d)
    for _ in range(STEPS):
        mean = engine._estimate(w)
        slope = difference_slope(engine, w)
        free = ~(((w <= -bound) & (mean.value > 0)) | ((w >= bound) & (mean.value < 0)))
        if not free.any():
            return _finished(w, mean.value, mean.covariance, slope, free, bound, True)
        step = np.zeros(d)
        step[free] = -_positive_inverse(slope[np.ix_(free, free)]) @ mean.value[free]
        step *= min(1.0, LONGEST_STEP / max(float(np.abs(step).max()), 1e-300))
        moved = np.clip(w + step, -bound, bound)
        stderr = np.sqrt(np.diag(_covariance(slope, mean.covariance, free)))
        still = np.abs(moved - w)[free] <= SMALL_STEP * np.where(
            np.isfinite(stderr[free]), stderr[free], 1e-3
        )
        w = moved
        if still.all():
            mean, slope = engine._estimate(w), difference_slope(engine, w)
            return _finished(w, mean.value, mean.covariance, slope, free, bound, True)
    return _finished(w, mean.value, mean.covariance, slope, free, bound, False)


def _positive_inverse(slope: Floats) -> Floats:
    """Inverse of the symmetric part with eigenvalues made positive, so that every step descends."""
    values, vectors = np.linalg.eigh((slope + slope.T) / 2.0)
    size = np.maximum(np.abs(values), 1e-6 * max(float(np.abs(values).max()), 1e-12))
    return np.asarray((vectors / size) @ vectors.T)


def _covariance(slope: Floats, covariance: Floats, free: NDArray[np.bool_]) -> Floats:
    out = np.full_like(covariance, np.nan)
    block = np.ix_(free, free)
    if free.any() and np.linalg.cond(slope[block]) < 1e12:
        out[block] = sandwich(slope[block], covariance[block])
    return out


def _finished(
    w: Floats,
    gradient: Floats,
    covariance: Floats,
    slope: Floats,
    free: NDArray[np.bool_],
    bound: float,
    converged: bool,
) -> BoxRoot:
    warnings = []
    at_wall = np.where(np.abs(w) >= bound, np.sign(w), 0).astype(int)
    inside = at_wall == 0
    if not converged:
        warnings.append("The search for the weights did not settle: read them as a direction.")
    block = slope[np.ix_(inside, inside)]
    if inside.any() and np.linalg.eigvalsh((block + block.T) / 2.0)[0] <= 0:
        warnings.append("The loss is not curved upward at these weights: the data hardly tell them apart.")
    return BoxRoot(
        w,
        _covariance(slope, covariance, inside),
        tuple(int(side) for side in at_wall),
        gradient,
        converged,
        tuple(warnings),
    )
