"""Roots of the hypergradient: exact, Newton, gradient and L-BFGS; statistical stops; the sandwich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, minimize
from scipy.special import chdtri

from metier.core.checks import finite_array, one_of, positive_int
from metier.core.errors import InputError

from .arrays import Floats
from .cautions import root_warnings
from .crossfit import Mean, median_of_repeats
from .estimate import Solution, Step
from .learners import is_linear_smoother
from .sieve import SieveRidge
from .targets import AffineTarget

if TYPE_CHECKING:
    from .obigrad import OBiGrad

SMALL_STEP = 0.1
"""A Newton step below this share of a standard error is the last one."""
DIFFERENCE = 1e-3
ROUGH_DIFFERENCE = 0.15
"""For learners whose fits jump with w: over a short step the jumps would drown the slope."""
HALVINGS = 8


class _Stopped(Exception):  # noqa: N818
    """Raised to leave scipy's loop with the point that met the rule."""


def solve(
    model: OBiGrad, w0: ArrayLike | None, *, method: str, stop: str | float, max_steps: int
) -> Solution:
    """Return the root; see `OBiGrad.solve`."""
    chosen = one_of("method", method, ("newton", "gd", "lbfgs"))
    if not isinstance(stop, int | float):
        one_of("stop", stop, ("statistical",))
    steps = positive_int("max_steps", max_steps)
    start = _start(model, w0)
    _refuse_fixed(model)
    if chosen == "newton" and is_affine_estimate(model):
        return _closed_form(model, start)
    return {"newton": _newton, "gd": _gradient_descent, "lbfgs": _lbfgs}[chosen](model, start, stop, steps)


def _start(model: OBiGrad, w0: ArrayLike | None) -> Floats:
    if w0 is not None:
        return finite_array("w0", np.atleast_1d(np.asarray(w0, dtype=np.float64)), ndim=1)
    target = getattr(model.problem.inner_loss, "target", None)
    if not isinstance(target, AffineTarget):
        raise InputError(
            "a solver starts somewhere",
            expected="w0, the start",
            got="None, and a problem that does not say how long w is",
            next_step="Pass w0=np.zeros(d).",
        )
    return np.zeros(target.parts(model.sample_.rows)[1].shape[1])


def _refuse_fixed(model: OBiGrad) -> None:
    """A root needs nuisances at every w; arrays are those of one w alone."""
    rests = ("jacobian", "outcome") if model.problem.is_affine else ("outcome",)
    for name in model.external_.given:
        if name not in rests and not model.external_.moves(name):
            raise InputError(
                f"external prediction of {name!r} moves with w",
                expected="a function of (w, X), because a solver visits many w",
                got="an array",
                next_step="Pass the function; for squared losses, jacobian and outcome may be arrays.",
            )


def is_affine_estimate(model: OBiGrad) -> bool:
    """Whether the estimate is affine in w with a slope in closed form."""
    return all(repeat.exact_slope for repeat in model.repeats_)


def _slopes(model: OBiGrad, w: Floats) -> list[Floats]:
    """Return the Jacobian of each repeat's estimate in w, exact where the estimate is affine."""
    out = []
    for evaluation in model._evaluate(w):
        if model.estimator == "plugin" and model.problem.is_affine:
            j, om = evaluation.fitted["jacobian"].prediction, evaluation.fitted["jacobian"].weight
            out.append((j if om is None else j * (om / om.mean())[:, None]).T @ j / len(j))
        elif model.estimator == "adjoint_instrument" and model.problem.is_affine:
            fit = evaluation.fitted["jacobian"]
            j = (
                fit.prediction
                if fit.weight is None
                else fit.prediction * (fit.weight / fit.weight.mean())[:, None]
            )
            out.append(j.T @ fit.response / len(j))
        elif evaluation.slope is not None and model.problem.is_affine:
            out.append(evaluation.slope)
        else:
            return [difference_slope(model, w)]
    return out


def difference_slope(model: OBiGrad, w: Floats) -> Floats:
    """Return central differences of the estimate in w, with the same folds and seeds."""
    columns = []
    share = ROUGH_DIFFERENCE if is_rough(model) else DIFFERENCE
    for k in range(len(w)):
        step = np.zeros(len(w))
        step[k] = share * (1.0 + abs(w[k]))
        up, down = model._estimate(w + step).value, model._estimate(w - step).value
        columns.append((up - down) / (2.0 * step[k]))
    return np.stack(columns, axis=1)


def is_rough(model: OBiGrad) -> bool:
    """Whether a nuisance learner's fit may jump where its targets move a little: trees, forests, networks."""
    return any(not _is_continuous(one) for one in model.learners_.values())


def _is_continuous(learner: Any) -> bool:
    last = learner.steps[-1][1] if hasattr(learner, "steps") else learner
    linear = type(last).__module__.startswith("sklearn.linear_model")
    return linear or isinstance(last, SieveRidge) or is_linear_smoother(last)


def _slope(model: OBiGrad, w: Floats) -> Floats:
    return np.asarray(np.mean(_slopes(model, w), axis=0))


def sandwich(S: Floats, covariance: Floats) -> Floats:
    """Return S^-1 V S^-T."""
    half = _solved(S, covariance)
    return _solved(S, half.T)


def _solved(S: Floats, b: Floats) -> Floats:
    if not np.linalg.cond(S) < 1e13:
        raise InputError(
            "the root is identified",
            expected="a hypergradient whose Jacobian in w is invertible",
            got=f"a singular {S.shape[0]} x {S.shape[0]} Jacobian",
            next_step="Drop collinear treatments, or use stronger or more instruments.",
        )
    return np.asarray(np.linalg.solve(S, b), dtype=np.float64)


def _closed_form(model: OBiGrad, start: Floats) -> Solution:
    """Each repeat's exact root, combined by the median."""
    roots = []
    for evaluation, S in zip(model._evaluate(start), _slopes(model, start), strict=True):
        mean = evaluation.mean(model._scores(evaluation))
        roots.append(start - _solved(S, mean.value))
    first = model._estimate(start)
    means = []
    for k, root in enumerate(roots):
        at_root = model.repeats_[k].at(root)
        mean = at_root.mean(model._scores(at_root))
        means.append(Mean(root, sandwich(_repeat_slope(model, start, k), mean.covariance), mean.n))
    combined, _ = median_of_repeats(means)
    step = _step(start, first, size=float(np.linalg.norm(combined.value - start)))
    return _solution(
        model,
        combined.value,
        covariance=combined.covariance,
        S=_slope(model, start),
        trace=[step],
        converged=True,
        method="closed form",
        reason="the estimate is affine in w: one exact step",
    )


def _repeat_slope(model: OBiGrad, w: Floats, k: int) -> Floats:
    return _slopes(model, w)[k]


def _step(w: Floats, mean: Mean, *, size: float = 0.0, objective: float = float("nan")) -> Step:
    return Step(w, mean.value, _statistic(mean), objective, size)


def _statistic(mean: Mean) -> float:
    return float(mean.value @ np.linalg.lstsq(mean.covariance, mean.value, rcond=None)[0])


def _met(stop: str | float, mean: Mean) -> bool:
    if isinstance(stop, str):
        return _statistic(mean) <= float(chdtri(len(mean.value), 0.05))
    return bool(np.abs(mean.value).max() <= stop)


def _newton(model: OBiGrad, w: Floats, stop: str | float, max_steps: int) -> Solution:
    trace: list[Step] = []
    mean = model._estimate(w)
    for _ in range(max_steps):
        S = _slope(model, w)
        step = -_solved(S, mean.value)
        spread = np.sqrt(np.maximum(np.diag(sandwich(S, mean.covariance)), 1e-300))
        small = bool((np.abs(step) <= SMALL_STEP * spread).all())
        if isinstance(stop, str) and small:
            trace.append(_step(w, mean, size=float(np.linalg.norm(step))))
            reason = f"the last step is below {SMALL_STEP:g} standard errors"
            return _finished(model, w + step, S, trace, method="newton", reason=reason)
        if not isinstance(stop, str) and _met(stop, mean):
            trace.append(_step(w, mean))
            return _finished(model, w, S, trace, method="newton", reason="the gradient is small")
        moved, after = _shortened(model, w, step, mean)
        trace.append(_step(w, mean, size=float(np.linalg.norm(moved - w))))
        w, mean = moved, after
    return _finished(model, w, None, trace, method="newton", reason=f"{max_steps} steps", converged=False)


def _shortened(model: OBiGrad, w: Floats, step: Floats, before: Mean) -> tuple[Floats, Mean]:
    """Return the Newton point, halved toward w while the gradient would grow."""
    after = model._estimate(w + step)
    for _ in range(HALVINGS):
        if np.linalg.norm(after.value) <= np.linalg.norm(before.value):
            break
        step = step / 2.0
        after = model._estimate(w + step)
    return w + step, after


def _gradient_descent(model: OBiGrad, w: Floats, stop: str | float, max_steps: int) -> Solution:
    S = _slope(model, w)
    L = float(np.linalg.norm((S + S.T) / 2.0, 2))
    trace: list[Step] = []
    for _ in range(max_steps):
        mean = model._estimate(w)
        if _met(stop, mean):
            trace.append(_step(w, mean))
            return _polished(model, w, trace, stop, method="gd")
        step = -mean.value / L
        trace.append(_step(w, mean, size=float(np.linalg.norm(step))))
        w = w + step
    return _finished(model, w, None, trace, method="gd", reason=f"{max_steps} steps", converged=False)


def _lbfgs(model: OBiGrad, w: Floats, stop: str | float, max_steps: int) -> Solution:
    trace: list[Step] = []

    def value_and_gradient(at: Floats) -> tuple[float, Floats]:
        mean, objective = model._estimate(at), model.objective(at).value
        trace.append(_step(at.copy(), mean, objective=objective))
        if _met(stop, mean):
            raise _Stopped
        return objective, mean.value

    try:
        found: OptimizeResult = minimize(
            value_and_gradient,
            w,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": max_steps, "ftol": 0.0, "gtol": 0.0},
        )
    except _Stopped:
        return _polished(model, trace[-1].w, trace, stop, method="lbfgs")
    reason = f"no further descent ({found.message})"
    return _finished(model, found.x, None, trace, method="lbfgs", reason=reason, converged=False)


def _polished(model: OBiGrad, w: Floats, trace: list[Step], stop: str | float, *, method: str) -> Solution:
    """After a statistical stop, one Newton step, because the sandwich is that of a root."""
    if not isinstance(stop, str):
        return _finished(model, w, None, trace, method=method, reason="the gradient is small")
    S = _slope(model, w)
    mean = model._estimate(w)
    step = -_solved(S, mean.value)
    trace.append(_step(w, mean, size=float(np.linalg.norm(step))))
    reason = "the gradient is within its noise; one Newton step"
    return _finished(model, w + step, S, trace, method=method, reason=reason)


def _finished(
    model: OBiGrad,
    w: Floats,
    S: Floats | None,
    trace: list[Step],
    *,
    method: str,
    reason: str,
    converged: bool = True,
) -> Solution:
    S = _slope(model, w) if S is None else S
    covariance = sandwich(S, model._estimate(w).covariance)
    return _solution(
        model, w, covariance=covariance, S=S, trace=trace, converged=converged, method=method, reason=reason
    )


def _solution(
    model: OBiGrad,
    w: Floats,
    *,
    covariance: Floats,
    S: Floats,
    trace: list[Step],
    converged: bool,
    method: str,
    reason: str,
) -> Solution:
    gradient = model.hypergradient(w)
    warnings = [*gradient.warnings, *root_warnings(gradient.diagnostics)]
    eigenvalues = np.linalg.eigvalsh((S + S.T) / 2.0)
    if not model.problem.is_affine and is_rough(model):
        warnings.append(
            "fits of a nuisance learner jump with w: the root's standard error rests on a wide difference "
            "and is rough; compare with a smooth learner such as SieveRidge"
        )
    if eigenvalues[0] < 0:
        warnings.append(
            "the Jacobian of the hypergradient is indefinite: the root may be no minimum; use stronger "
            "instruments or more rows"
        )
    if not converged:
        warnings.append(f"the solver did not meet its rule ({reason}): raise max_steps or change method")
    return Solution(w, covariance, S, gradient, tuple(trace), converged, method, reason, tuple(warnings))
