"""The inner solution h_w: Newton on a sieve, a classifier's log-odds, or damped reweighted regressions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logit

from metier.core.checks import ensure
from metier.core.errors import InputError

from .arrays import Floats, Rows, two_dimensional
from .crossfit import weight_arguments
from .loss_families import Logistic, SoftmaxCE, Squared
from .losses import Derivatives, Loss
from .risks import Parts, SieveRisk, quadratic_risk
from .sieve import SieveRidge, checked_penalty

NEWTON_STEPS = 100
TUNED_STEPS = 4
"""Newton steps that choose their penalty anew; then it stays, so that the iteration can settle."""
REGRESSOR_STEPS = 6
CLIP = 1e-4
"""Least and largest probability of a classifier that is turned into a logit."""


@dataclass(frozen=True, slots=True)
class InnerSurface:
    """h as a function of the part, (n, q), with the penalty and the coefficients of a sieve."""

    predict: Callable[[str], Floats]
    alpha: float | None = None
    coefficients: Floats | None = None


@dataclass(frozen=True, slots=True)
class InnerTask:
    """What an inner solve needs: the loss at w, the training rows and their weights."""

    loss: Loss
    w: Floats
    rows: Rows
    weights: Floats | None
    parts: Parts
    n_outputs: int

    def derivatives(self, v: Floats) -> Derivatives:
        """Return the loss's derivatives at v (n, q)."""
        return self.loss.derivatives(self.w, v, self.rows)

    def total(self, values: Floats) -> float:
        """Return the weighted sum; infinity where a value overflowed."""
        total = float(values.sum() if self.weights is None else self.weights @ values)
        return total if np.isfinite(total) else np.inf


def fit_inner(learner: Any, task: InnerTask) -> InnerSurface:
    """Minimize E l_in(w, h(X), Z) over the learner's functions."""
    if hasattr(learner, "fit_risk"):
        fitted = learner.fit_risk(task.parts.X["train"], task.loss, task.w, task.rows, task.weights)
        return InnerSurface(lambda part: two_dimensional(fitted.predict(task.parts.X[part])))
    if hasattr(learner, "predict_proba"):
        return _log_odds(learner, task)
    if isinstance(learner, SieveRidge):
        return _newton(learner, task)
    if isinstance(task.loss, Squared) and task.loss.weight is None:
        g, _ = task.loss.target_of(task.w, task.rows)
        K = np.ones((len(g), 1, 1))
        risks = [
            quadratic_risk(learner, task.parts, K, task.weights).solve(-g[:, None, [k]])
            for k in range(g.shape[1])
        ]
        return InnerSurface(lambda part: np.concatenate([r.predict(part)[:, 0] for r in risks], axis=1))
    return _reweighted(learner, task)


def _newton(learner: SieveRidge, task: InnerTask) -> InnerSurface:
    """Penalized Newton with halved steps, to machine precision; convex losses have one answer."""
    psi = task.parts.features(learner, "train")
    P, q, n = psi.shape[1], task.n_outputs, len(psi)
    alpha = checked_penalty(learner.penalty)
    tuned, theta = alpha is None, np.zeros((P, q))
    at = task.derivatives(psi @ theta)
    for step in range(NEWTON_STEPS):
        response = at.d_v - np.einsum("nqp,np->nq", at.d2_v, psi @ theta)
        if tuned and step < TUNED_STEPS:
            alpha = SieveRisk(learner, task.parts, at.d2_v, task.weights).tuned_penalty(response)
        assert alpha is not None
        risk = SieveRisk(learner, task.parts, at.d2_v, task.weights, alpha=alpha)
        move = risk.solve(response[:, None, :]).coefficients[:, :, 0] - theta
        theta, at, settled = _halved(task, psi, theta, move, at, alpha)
        if settled and not (tuned and step < TUNED_STEPS):
            break
    else:
        raise InputError(
            "the inner problem has a minimum",
            expected=f"Newton's method to settle within {NEWTON_STEPS} steps",
            got=f"a last move of {np.abs(move).max():.3g} on {n} rows",
            next_step="Raise the penalty of the SieveRidge, or check that the inner loss is convex in v.",
        )
    return InnerSurface(lambda part: task.parts.features(learner, part) @ theta, alpha, theta)


def _halved(
    task: InnerTask, psi: Floats, theta: Floats, move: Floats, at: Derivatives, alpha: float
) -> tuple[Floats, Derivatives, bool]:
    """Return the first of theta + move / 2^k that does not raise the objective, and whether it settled."""

    def objective(coefficients: Floats, derivatives: Derivatives) -> float:
        return task.total(derivatives.value) + alpha / 2.0 * float((coefficients[1:] ** 2).sum())

    before, share = objective(theta, at), 1.0
    tiny = bool(np.abs(move).max() <= 1e-13 * (1.0 + np.abs(theta).max()))
    while share > 1e-10:
        proposal = theta + share * move
        with np.errstate(over="ignore", invalid="ignore"):
            after = task.derivatives(psi @ proposal)
        slack = 1e-13 * (1.0 + abs(before))
        if objective(proposal, after) <= before + slack:
            # Rounding of the objective ends the descent before rounding of the step does.
            small = bool(np.abs(share * move).max() <= 1e-11 * (1.0 + np.abs(theta).max()))
            return proposal, after, tiny or small
        share /= 2.0
    return theta, at, True


def _log_odds(learner: Any, task: InnerTask) -> InnerSurface:
    """A probability learner's logits, for the two losses whose minimizer they are."""
    from sklearn.base import clone

    if not isinstance(task.loss, Logistic | SoftmaxCE):
        raise InputError(
            "a classifier learns h of a logistic or softmax inner loss",
            expected="Logistic or SoftmaxCE as inner loss",
            got=type(task.loss).__name__,
            next_step="Pass a regressor for the nuisance h.",
        )
    t, _ = task.loss.target_of(task.w, task.rows)
    ensure(
        np.isin(t, (0.0, 1.0)).all(),
        "a classifier learns from labels",
        expected="targets 0 or 1",
        got=lambda: f"values such as {t[~np.isin(t, (0.0, 1.0))][0]:g}",
        next_step="Pass a regressor for the nuisance h; it is fitted by reweighted regressions.",
    )
    labels = (t * np.arange(1, t.shape[1] + 1)).sum(axis=1).astype(int)
    om = task.weights
    if task.loss.weight is not None:
        c, _ = task.loss.weight.evaluate(task.w, task.rows)
        om = c if om is None else om * c
    fitted = clone(learner).fit(task.parts.X["train"], labels, **weight_arguments(learner, om))

    def predict(part: str) -> Floats:
        p = np.full((len(task.parts.X[part]), t.shape[1] + 1), CLIP)
        p[:, fitted.classes_] = np.clip(fitted.predict_proba(task.parts.X[part]), CLIP, 1.0 - CLIP)
        return np.asarray(logit(p[:, 1:]) if t.shape[1] == 1 else np.log(p[:, 1:]) - np.log(p[:, :1]))

    return InnerSurface(predict)


def _reweighted(learner: Any, task: InnerTask) -> InnerSurface:
    """Iteratively reweighted regressions, each mixed with the last where that lowers the training loss."""
    n, q = len(task.rows["X"]), task.n_outputs
    constant = _constant(task, n, q)
    pieces: list[tuple[float, Any]] = []
    base = 1.0
    v = np.broadcast_to(constant, (n, q))
    at = task.derivatives(v)
    for _ in range(REGRESSOR_STEPS):
        response = at.d_v - np.einsum("nqp,np->nq", at.d2_v, v)
        surface = quadratic_risk(learner, task.parts, at.d2_v, task.weights).solve(response[:, None, :])
        proposed, before, share = surface.predict("train")[:, 0], task.total(at.value), 1.0
        while share > 1e-3:
            mixed = (1.0 - share) * v + share * proposed
            with np.errstate(over="ignore", invalid="ignore"):
                after = task.derivatives(mixed)
            if task.total(after.value) < before:
                break
            share /= 2.0
        else:
            break
        gain = before - task.total(after.value)
        pieces = [*((part * (1.0 - share), piece) for part, piece in pieces), (share, surface)]
        base, v, at = base * (1.0 - share), mixed, after
        if gain <= 1e-6 * (1.0 + abs(before)):
            break

    def predict(part: str) -> Floats:
        out = np.broadcast_to(base * constant, (len(task.parts.X[part]), q))
        return np.asarray(sum((c * s.predict(part)[:, 0] for c, s in pieces), start=out))

    return InnerSurface(predict)


def _constant(task: InnerTask, n: int, q: int) -> Floats:
    """Return the best constant, (q,): Newton on an intercept alone."""
    nothing = SieveRidge(lambda X: np.zeros((len(X), 0)), penalty=0.0)
    alone = InnerTask(task.loss, task.w, task.rows, task.weights, Parts(train=np.zeros((n, 1))), q)
    coefficients = _newton(nothing, alone).coefficients
    assert coefficients is not None
    return np.asarray(coefficients[0])
