"""Roots of an estimated gradient: exact, Newton, gradient descent, L-BFGS, and in a box; the sandwich."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize
from scipy.special import chdtri

from metier.core.checks import ensure

from .arrays import Floats
from .estimate import Step
from .scores import Mean, median_of_repeats

SMALL_STEP = 0.1
"""A Newton step below this share of a standard error is the last one."""
DIFFERENCE = 1e-3
ROUGH_DIFFERENCE = 0.15
"""For learners whose fits jump with w: over a short step the jumps would drown the slope."""
HALVINGS = 8
BOX_STEPS = 25
LONGEST_STEP = 1.0
"""In a box the curvature may be far from what it is at the root: no step is longer than this."""


@dataclass(frozen=True, slots=True)
class Gradient:
    """An estimated gradient as functions of w.

    Attributes:
        estimate: w -> the estimate with its covariance.
        slope: w -> (d, d), the Jacobian of the estimate in w.
        objective: w -> the debiased objective.
    """

    estimate: Callable[[Floats], Mean]
    slope: Callable[[Floats], Floats]
    objective: Callable[[Floats], float]


@dataclass(frozen=True, slots=True)
class Root:
    """Where a search ended.

    Attributes:
        w: (d,).
        slope: (d, d) S there; None where the search did not compute it.
        trace: Its steps.
        reason: Why it ended.
        converged: Whether it met its rule.
    """

    w: Floats
    slope: Floats | None
    trace: tuple[Step, ...]
    reason: str
    converged: bool = True


class _Stopped(Exception):  # noqa: N818
    """Raised to leave scipy's loop with the point that met the rule."""


def sandwich(S: Floats, covariance: Floats) -> Floats:
    """Return S^-1 V S^-T."""
    return _solved(S, _solved(S, covariance).T)


def _solved(S: Floats, b: Floats) -> Floats:
    ensure(
        np.linalg.cond(S) < 1e13,
        "the root is identified",
        expected="a hypergradient whose Jacobian in w is invertible",
        got=f"a singular {S.shape[0]} x {S.shape[0]} Jacobian",
        next_step="Drop collinear treatments, or use stronger or more instruments.",
    )
    return np.asarray(np.linalg.solve(S, b), dtype=np.float64)


def difference_slope(estimate: Callable[[Floats], Mean], w: Floats, *, rough: bool = False) -> Floats:
    """Return central differences of an estimate in w, over a wide step where its fits are rough in w."""
    columns = []
    for unit, size in zip(np.eye(len(w)), np.abs(w), strict=True):
        step = (ROUGH_DIFFERENCE if rough else DIFFERENCE) * (1.0 + size)
        up, down = estimate(w + step * unit).value, estimate(w - step * unit).value
        columns.append((up - down) / (2.0 * step))
    return np.stack(columns, axis=1)


def closed_form(
    start: Floats,
    at_start: Sequence[Mean],
    slopes: Sequence[Floats],
    estimates: Sequence[Callable[[Floats], Mean]],
) -> tuple[Root, Floats, Floats]:
    """Return the median of the roots of estimates that are affine in w, its slope and its covariance.

    Args:
        start: (d,) any w.
        at_start: The estimates there, one per repeat.
        slopes: Their Jacobians, (d, d) each.
        estimates: The estimates as functions of w.
    """
    means = []
    for estimate, mean, S in zip(estimates, at_start, slopes, strict=True):
        root = start - _solved(S, mean.value)
        at_root = estimate(root)
        means.append(Mean(root, sandwich(S, at_root.covariance), at_root.n))
    combined, _ = median_of_repeats(means)
    trace = (_step(start, median_of_repeats(at_start)[0], combined.value - start),)
    reason = "the estimate is affine in w: one exact step"
    S = np.asarray(np.mean(slopes, axis=0))
    return Root(combined.value, S, trace, reason), S, combined.covariance


def _step(w: Floats, mean: Mean, move: Floats | float = 0.0, objective: float = float("nan")) -> Step:
    return Step(w, mean.value, _statistic(mean), objective, float(np.linalg.norm(move)))


def _statistic(mean: Mean) -> float:
    return float(mean.value @ np.linalg.lstsq(mean.covariance, mean.value, rcond=None)[0])


def _met(stop: str | float, mean: Mean) -> bool:
    if isinstance(stop, str):
        return _statistic(mean) <= float(chdtri(len(mean.value), 0.05))
    return bool(np.abs(mean.value).max() <= stop)


def newton(gradient: Gradient, w: Floats, stop: str | float, max_steps: int) -> Root:
    """Newton's method; a statistical stop is a step below `SMALL_STEP` standard errors."""
    trace: list[Step] = []
    mean = gradient.estimate(w)
    for _ in range(max_steps):
        S = gradient.slope(w)
        step = -_solved(S, mean.value)
        spread = np.sqrt(np.maximum(np.diag(sandwich(S, mean.covariance)), 1e-300))
        if isinstance(stop, str) and (np.abs(step) <= SMALL_STEP * spread).all():
            trace.append(_step(w, mean, step))
            return Root(w + step, S, tuple(trace), f"the last step is below {SMALL_STEP:g} standard errors")
        if not isinstance(stop, str) and _met(stop, mean):
            trace.append(_step(w, mean))
            return Root(w, S, tuple(trace), "the gradient is small")
        moved, after = _shortened(gradient, w, step, mean)
        trace.append(_step(w, mean, moved - w))
        w, mean = moved, after
    return Root(w, None, tuple(trace), f"{max_steps} steps", converged=False)


def _shortened(gradient: Gradient, w: Floats, step: Floats, before: Mean) -> tuple[Floats, Mean]:
    """Return the Newton point, halved toward w while the gradient would grow."""
    after = gradient.estimate(w + step)
    for _ in range(HALVINGS):
        if np.linalg.norm(after.value) <= np.linalg.norm(before.value):
            break
        step = step / 2.0
        after = gradient.estimate(w + step)
    return w + step, after


def gradient_descent(gradient: Gradient, w: Floats, stop: str | float, max_steps: int) -> Root:
    """Steps of one over the largest curvature at the start."""
    S = gradient.slope(w)
    L = float(np.linalg.norm((S + S.T) / 2.0, 2))
    trace: list[Step] = []
    for _ in range(max_steps):
        mean = gradient.estimate(w)
        if _met(stop, mean):
            return _polished(gradient, w, [*trace, _step(w, mean)], stop)
        step = -mean.value / L
        trace.append(_step(w, mean, step))
        w = w + step
    return Root(w, None, tuple(trace), f"{max_steps} steps", converged=False)


def lbfgs(gradient: Gradient, w: Floats, stop: str | float, max_steps: int) -> Root:
    """L-BFGS on the debiased objective."""
    trace: list[Step] = []

    def value_and_gradient(at: Floats) -> tuple[float, Floats]:
        mean, objective = gradient.estimate(at), gradient.objective(at)
        trace.append(_step(at.copy(), mean, objective=objective))
        if _met(stop, mean):
            raise _Stopped
        return objective, mean.value

    options = {"maxiter": max_steps, "ftol": 0.0, "gtol": 0.0}
    try:
        end: OptimizeResult = minimize(value_and_gradient, w, jac=True, method="L-BFGS-B", options=options)
    except _Stopped:
        return _polished(gradient, trace[-1].w, trace, stop)
    return Root(end.x, None, tuple(trace), f"no further descent ({end.message})", converged=False)


METHODS = {"newton": newton, "gd": gradient_descent, "lbfgs": lbfgs}


def _polished(gradient: Gradient, w: Floats, trace: list[Step], stop: str | float) -> Root:
    """After a statistical stop, one Newton step, because the sandwich is that of a root."""
    if not isinstance(stop, str):
        return Root(w, None, tuple(trace), "the gradient is small")
    S, mean = gradient.slope(w), gradient.estimate(w)
    step = -_solved(S, mean.value)
    reason = "the gradient is within its noise; one Newton step"
    return Root(w + step, S, (*trace, _step(w, mean, step)), reason)


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


def root_in_box(gradient: Gradient, d: int, bound: float) -> BoxRoot:
    """Newton steps from zero, on curvature made positive, at most 1 long, inside |w| <= bound.

    Args:
        gradient: The gradient.
        d: Length of w.
        bound: Half the width of the box.

    Returns:
        The root. A step below a tenth of a standard error ends the search.
    """
    w, converged = np.zeros(d), False
    mean, slope = gradient.estimate(w), gradient.slope(w)
    for _ in range(BOX_STEPS):
        free = ~(((w <= -bound) & (mean.value > 0)) | ((w >= bound) & (mean.value < 0)))
        if not free.any():
            return _box_root(w, mean, slope, bound, converged=True)
        step = np.zeros(d)
        step[free] = -_positive_inverse(slope[np.ix_(free, free)]) @ mean.value[free]
        step *= min(1.0, LONGEST_STEP / max(float(np.abs(step).max()), 1e-300))
        moved = np.clip(w + step, -bound, bound)
        stderr = np.sqrt(np.diag(_free_covariance(slope, mean.covariance, free)))[free]
        small = SMALL_STEP * np.where(np.isfinite(stderr), stderr, 1e-3)
        converged = bool((np.abs(moved - w)[free] <= small).all())
        w = moved
        mean, slope = gradient.estimate(w), gradient.slope(w)
        if converged:
            break
    return _box_root(w, mean, slope, bound, converged=converged)


def _positive_inverse(slope: Floats) -> Floats:
    """Inverse of the symmetric part with eigenvalues made positive, so that every step descends."""
    values, vectors = np.linalg.eigh((slope + slope.T) / 2.0)
    size = np.maximum(np.abs(values), 1e-6 * max(float(np.abs(values).max()), 1e-12))
    return np.asarray((vectors / size) @ vectors.T)


def _free_covariance(slope: Floats, covariance: Floats, free: NDArray[np.bool_]) -> Floats:
    out = np.full_like(covariance, np.nan)
    block = np.ix_(free, free)
    if free.any() and np.linalg.cond(slope[block]) < 1e12:
        out[block] = sandwich(slope[block], covariance[block])
    return out


def _box_root(w: Floats, mean: Mean, slope: Floats, bound: float, *, converged: bool) -> BoxRoot:
    warnings = []
    at_wall = np.where(np.abs(w) >= bound, np.sign(w), 0).astype(int)
    inside = at_wall == 0
    if not converged:
        warnings.append("The search for the weights did not settle: read them as a direction.")
    block = slope[np.ix_(inside, inside)]
    if inside.any() and np.linalg.eigvalsh((block + block.T) / 2.0)[0] <= 0:
        warnings.append("The loss is not curved upward at these weights: the data hardly tell them apart.")
    covariance = _free_covariance(slope, mean.covariance, inside)
    return BoxRoot(w, covariance, tuple(at_wall.tolist()), mean.value, converged, tuple(warnings))
