"""The kernel rival: a kernel-ridge plug-in, whose target is that of the regularized problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from metier.core.errors import InputError

from .arrays import Floats
from .crossfit import Codes
from .evaluation import Evaluation, Fitted
from .kernel import GaussianRidge
from .learners import RegressorCrossFit
from .targets import AffineTarget, as_target

if TYPE_CHECKING:
    from .obigrad import OBiGrad


class KernelRepeat:
    """C'(C w + c0 - Y) / m, where C predicts dg and c0 predicts g0 on the outer rows.

    With an outer sample the ridge is fitted on the inner rows; with one sample it is cross-fitted. The
    reported covariance is that of the outer rows alone, and no covariance repairs the regularization bias.
    """

    exact_slope = True

    def __init__(self, model: OBiGrad, rng: np.random.Generator, *, scalar: bool) -> None:
        from .obigrad import fold_codes

        learner = _kernel_learner(model, scalar=scalar)
        target = as_target(model.problem.inner_loss.target)  # type: ignore[attr-defined]
        assert isinstance(target, AffineTarget)
        sample = model.sample_
        g0, dg = target.parts(sample.rows)
        constant = bool((g0 == g0[0]).all())
        Y = dg[:, :, 0] if constant else np.concatenate([dg[:, :, 0], g0], axis=1)
        self.codes: Codes | None = None
        if model.outer_ is None:
            self.sample, d = sample, dg.shape[1]
            self.codes = fold_codes(model.folds, sample, rng)
            predicted = RegressorCrossFit(learner, sample.X, self.codes, None).predict(Y)
            self.fitted = {"jacobian": Fitted(dg[:, :, 0], predicted[:, :d])}
        else:
            self.sample, d, self.fitted = model.outer_, dg.shape[1], {}
            predicted = learner.fit(sample.X, Y).predict(model.outer_.X)
        self.C = predicted[:, :d]
        self.c0 = np.full(len(predicted), g0[0, 0]) if constant else predicted[:, d]
        outer = as_target(model.problem.outer_loss.target)  # type: ignore[attr-defined]
        self.y = outer.evaluate(np.zeros(0), self.sample.rows)[0][:, 0]

    def at(self, w: Floats, *, with_objective: bool = False) -> Evaluation:
        """Return the plug-in scores at w."""
        error = self.C @ w + self.c0 - self.y
        om = self.sample.weights
        weighted = self.C if om is None else self.C * (om / om.mean())[:, None]
        scores = error[:, None] * self.C
        return Evaluation(
            samples=(self.sample,),
            orthogonal=(scores,),
            plugin=(scores,),
            slope=weighted.T @ self.C / len(self.C),
            fitted=self.fitted,
        )


def _kernel_learner(model: OBiGrad, *, scalar: bool) -> GaussianRidge:
    if not (scalar and model.problem.is_affine):
        raise InputError(
            'estimator="kbo" is one of affine squared problems',
            expected="Squared(AffineTarget(...)) inside and Squared outside, with one value per row",
            got=f"{type(model.problem.inner_loss).__name__} inside",
            next_step='Use estimator="obigrad".',
        )
    if model.sample_.weights is not None:
        raise InputError(
            'estimator="kbo" takes rows of equal weight',
            expected="weights=None",
            got="weights",
            next_step='Drop weights, or use estimator="obigrad".',
        )
    if model.learner is None:
        return GaussianRidge()
    if not isinstance(model.learner, GaussianRidge):
        raise InputError(
            'estimator="kbo" learns with a kernel',
            expected="learner=GaussianRidge(width, penalty=...)",
            got=type(model.learner).__name__,
            next_step="Pass a GaussianRidge, or None for a tuned one.",
        )
    return model.learner
