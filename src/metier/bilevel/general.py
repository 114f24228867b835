"""General losses: four cross-fitted nuisances at every w, one sample or two, pointwise or restricted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from metier.core.errors import InputError

from .arrays import Floats
from .crossfit import Codes
from .evaluation import Evaluation, Fitted
from .general_fold import NAMES, Extras, Fold, Predicted, Split
from .loss_check import N_ROWS, check_loss
from .losses import CustomLoss, Derivatives, Loss
from .risks import RATIO_BELOW
from .sample import Sample
from .scores import (
    Nuisances,
    inner_adjoint_terms,
    inner_scores,
    objective_scores,
    outer_adjoint_terms,
    outer_scores,
)
from .sieve import SieveRidge, checked_penalty
from .torch_loss import TorchLoss

if TYPE_CHECKING:
    from .obigrad import OBiGrad


class GeneralRepeat:
    """Evaluator of general losses for one draw of folds; every w refits, always from the same start."""

    exact_slope = False

    def __init__(self, model: OBiGrad, codes: Codes | None, outer_codes: Codes | None) -> None:
        self.model, self.problem = model, model.problem
        self.sample, self.outer, self.external = model.sample_, model.outer_, model.external_
        self.codes = codes
        self.q = self.problem.outputs(self.sample.rows)
        self.restricted = model.inner_class == "restricted"
        self.splits = self._splits(codes, outer_codes)
        self.checked = False

    def _splits(self, codes: Codes | None, outer_codes: Codes | None) -> list[Split]:
        everything = np.arange(self.sample.n)
        outer_rows = None if self.outer is None else np.arange(self.outer.n)
        if codes is None:
            return [Split(everything, everything, outer_rows, outer_rows)]
        out = []
        for k in range(int(codes.max()) + 1):
            split = Split(np.flatnonzero(codes != k), np.flatnonzero(codes == k))
            if outer_codes is not None:
                split.outer_train = np.flatnonzero(outer_codes != k)
                split.outer_test = np.flatnonzero(outer_codes == k)
            out.append(split)
        return out

    def at(self, w: Floats, *, with_objective: bool = False) -> Evaluation:
        """Return scores at w."""
        d, q = len(w), self.q
        inner = Predicted(self.sample.n, d, q)
        outer = None if self.outer is None else Predicted(self.outer.n, d, q)
        given = self._given(w, d)
        self._check(w)
        extras = Extras()
        for split in self.splits:
            fold = Fold(self, split, w, given)
            fold.fill(inner, outer, extras)
        return self._evaluation(w, inner, outer, extras)

    def _given(self, w: Floats, d: int) -> dict[str, Floats]:
        n, q = self.sample.n, self.q
        shapes = {"h": (n, q), "adjoint": (n, q), "jacobian": (n, d, q), "adjoint_jacobian": (n, d, q)}
        given = {name: self.external.at(name, w, shapes[name]) for name in NAMES if name in self.external}
        if given and self.outer is not None:
            raise InputError(
                "external predictions cover one sample",
                expected="a problem with one sample",
                got="an outer sample and external_predictions",
                next_step="Drop external_predictions.",
            )
        if self.codes is None and not self.restricted and set(given) != set(NAMES):
            raise InputError(
                'estimator="oracle" fits nothing',
                expected="external_predictions for " + ", ".join(NAMES),
                got=", ".join(given) or "none",
                next_step="Pass the true nuisances, as arrays or functions of (w, X).",
            )
        return given

    def _check(self, w: Floats) -> None:
        """Compare a user's derivatives with finite differences, once, on the first rows, near the start."""
        if self.checked:
            return
        outer = self.sample if self.outer is None else self.outer
        for name, loss, sample in (
            ("inner loss", self.problem.inner_loss, self.sample),
            ("outer loss", self.problem.outer_loss, outer),
        ):
            if _is_users(loss):
                rows = {column: x[:N_ROWS] for column, x in sample.rows.items()}
                few = len(rows["X"])
                v = 0.1 * np.cos(np.arange(1.0, few * self.q + 1)).reshape(few, self.q)
                check_loss(loss, w, v, rows, name=name)
        self.checked = True

    def _evaluation(self, w: Floats, inner: Predicted, outer: Predicted | None, extras: Extras) -> Evaluation:
        n_in = inner.nuisances()
        d_in = self.problem.inner_loss.derivatives(w, inner.h, self.sample.rows)
        if outer is None or self.outer is None:
            d_out = self.problem.outer_loss.derivatives(w, inner.h, self.sample.rows)
            plugin = outer_scores(d_out, n_in)
            phi_in = inner_scores(d_in, n_in) + extras.constant
            return Evaluation(
                samples=(self.sample,),
                orthogonal=(plugin + phi_in,),
                plugin=(plugin,),
                objective=(objective_scores(d_in, d_out, inner.adjoint) + extras.objective_constant,),
                plugin_objective=(d_out.value,),
                fitted=_fitted(self.sample, d_in, d_out, n_in),
                slopes=_slopes(d_in, d_out, n_in),
                errors=_errors(d_in, d_out, n_in),
                min_curvature=extras.least,
                floored=extras.floored,
                flat=self._flat(d_in),
            )
        n_out = outer.nuisances()
        d_out = self.problem.outer_loss.derivatives(w, outer.h, self.outer.rows)
        plugin = outer_scores(d_out, n_out)
        corrected = np.einsum("nq,nq->n", inner.adjoint, d_in.d_v) + extras.objective_constant
        return Evaluation(
            samples=(self.sample, self.outer),
            orthogonal=(inner_scores(d_in, n_in) + extras.constant, plugin),
            plugin=(np.zeros((self.sample.n, len(w))), plugin),
            objective=(corrected, d_out.value),
            plugin_objective=(np.zeros(self.sample.n), d_out.value),
            min_curvature=extras.least,
            floored=extras.floored,
            flat=self._flat(d_in),
        )

    def _flat(self, inner: Derivatives) -> int:
        """Return how many rows without curvature a tuned penalty counted as rows that it was tuned on."""
        learners = self.model.learners_.values()
        if not any(isinstance(one, SieveRidge) and checked_penalty(one.penalty) is None for one in learners):
            return 0
        size = np.trace(inner.d2_v, axis1=1, axis2=2)
        return int((size <= RATIO_BELOW * size.mean()).sum())


def _is_users(loss: Loss) -> bool:
    terms = getattr(loss, "terms", (loss,))
    return any(
        isinstance(term, CustomLoss | TorchLoss) or not type(term).__module__.startswith("metier.")
        for term in terms
    )


def _fitted(sample: Sample, inner: Derivatives, outer: Derivatives, at: Nuisances) -> dict[str, Fitted]:
    """Return responses and predictions of the weighted regressions, where values are scalar and curved."""
    k = inner.d2_v[:, 0, 0]
    if inner.d2_v.shape[1] != 1 or not (k > 1e-8 * k.mean()).all():
        return {}
    om = k if sample.weights is None else k * sample.weights
    out = {"adjoint": Fitted(-outer.d_v / k[:, None], at.adjoint, om)}
    if inner.d2_wv is not None:
        out["jacobian"] = Fitted(-inner.d2_wv[:, :, 0] / k[:, None], at.jacobian[:, :, 0], om)
    return out


def _slopes(inner: Derivatives, outer: Derivatives, at: Nuisances) -> dict[str, Floats]:
    """Return rows whose mean is the slope of the estimate when a nuisance grows in proportion to itself."""
    pull = np.einsum("nqp,np->nq", inner.d2_v, at.adjoint) + outer.d_v
    push = np.einsum("ndq,nqp->ndp", at.jacobian, inner.d2_v)
    push = push if inner.d2_wv is None else push + inner.d2_wv
    return {
        "jacobian": np.einsum("ndq,nq->nd", at.jacobian, pull),
        "adjoint": np.einsum("ndq,nq->nd", push, at.adjoint),
        "adjoint_jacobian": np.einsum("ndq,nq->nd", at.adjoint_jacobian, inner.d_v),
    }


def _errors(
    inner: Derivatives, outer: Derivatives, at: Nuisances
) -> tuple[tuple[Floats, Floats, Floats, Floats], ...]:
    """Return the products (J, a) and (A2, h) that the remainder holds, where values are scalar."""
    if inner.d_v.shape[1] != 1:
        return ()
    k = inner.d2_v[:, 0, 0]
    J, A2, a = at.jacobian[:, :, 0], at.adjoint_jacobian[:, :, 0], at.adjoint[:, 0]
    J_error = k[:, None] * J if inner.d2_wv is None else k[:, None] * J + inner.d2_wv[:, :, 0]
    within = inner_adjoint_terms(inner, at.adjoint, at.jacobian)
    M = outer_adjoint_terms(outer, at.jacobian)
    M = M if within is None else M + within
    fits = np.column_stack([at.h, a, J])
    return (
        (J_error, k * a + outer.d_v[:, 0], k, fits),
        (k[:, None] * A2 + M[:, :, 0], inner.d_v[:, 0], k, fits),
    )


def general_repeats(model: OBiGrad, rng: np.random.Generator) -> list[Any]:
    """Return one evaluator per draw of folds."""
    from .obigrad import fold_codes

    if model.estimator == "oracle":
        return [GeneralRepeat(model, None, None)]
    if model.inner_class == "restricted":
        return [GeneralRepeat(model, None, None)]
    folds, outer_folds = model.folds, model.folds
    if model.outer_ is not None and isinstance(folds, tuple):
        folds, outer_folds = folds
    out = []
    for _ in range(model.repeats):
        codes = fold_codes(folds, model.sample_, rng)
        outer_codes = None if model.outer_ is None else fold_codes(outer_folds, model.outer_, rng)
        if outer_codes is not None and outer_codes.max() != codes.max():
            raise InputError(
                "both samples are cut into the same folds",
                expected=f"{int(codes.max()) + 1} folds of the outer sample too",
                got=f"{int(outer_codes.max()) + 1}",
                next_step="Name the same folds in both samples, or pass their number.",
            )
        out.append(GeneralRepeat(model, codes, outer_codes))
    return out
