"""General losses: four cross-fitted nuisances at every w, one sample or two, pointwise or restricted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metier.core.errors import InputError
from metier.core.rng import derive

from .arrays import Floats, added, take
from .crossfit import Codes, draw_folds
from .evaluation import Evaluation, Fitted
from .inner import InnerSurface, InnerTask, fit_inner
from .learners import rows_of
from .loss_check import N_ROWS, check_loss
from .losses import CustomLoss, Derivatives, Loss
from .risks import RATIO_BELOW, CurvatureSurface, Parts, RegressorSurface, quadratic_risk
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

NAMES = ("h", "adjoint", "jacobian", "adjoint_jacobian")
NESTED_FOLDS = 3


@dataclass(slots=True)
class _Split:
    """Training and test rows of a fold, of both samples where there are two."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    outer_train: NDArray[np.intp] | None = None
    outer_test: NDArray[np.intp] | None = None


@dataclass(slots=True)
class _Predicted:
    """Nuisances at the rows of one sample, filled fold by fold."""

    n: int
    d: int
    q: int
    h: Floats = field(init=False)
    adjoint: Floats = field(init=False)
    jacobian: Floats = field(init=False)
    adjoint_jacobian: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.h, self.adjoint = np.empty((self.n, self.q)), np.empty((self.n, self.q))
        self.jacobian = np.empty((self.n, self.d, self.q))
        self.adjoint_jacobian = np.empty((self.n, self.d, self.q))

    def nuisances(self) -> Nuisances:
        """Return them as the scores take them."""
        return Nuisances(self.h, self.adjoint, self.jacobian, self.adjoint_jacobian)


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

    def _splits(self, codes: Codes | None, outer_codes: Codes | None) -> list[_Split]:
        everything = np.arange(self.sample.n)
        outer_rows = None if self.outer is None else np.arange(self.outer.n)
        if codes is None:
            return [_Split(everything, everything, outer_rows, outer_rows)]
        out = []
        for k in range(int(codes.max()) + 1):
            split = _Split(np.flatnonzero(codes != k), np.flatnonzero(codes == k))
            if outer_codes is not None:
                split.outer_train = np.flatnonzero(outer_codes != k)
                split.outer_test = np.flatnonzero(outer_codes == k)
            out.append(split)
        return out

    def at(self, w: Floats, *, with_objective: bool = False) -> Evaluation:
        """Return scores at w."""
        d, q = len(w), self.q
        inner = _Predicted(self.sample.n, d, q)
        outer = None if self.outer is None else _Predicted(self.outer.n, d, q)
        given = self._given(w, d)
        self._check(w)
        extras = _Extras()
        for split in self.splits:
            fold = _Fold(self, split, w, given)
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

    def _evaluation(
        self, w: Floats, inner: _Predicted, outer: _Predicted | None, extras: _Extras
    ) -> Evaluation:
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


@dataclass(slots=True)
class _Extras:
    """What folds report beside their nuisances."""

    constant: Any = 0.0
    objective_constant: float = 0.0
    least: float = float("nan")
    floored: int = 0


class _Fold:
    """One fold at one w: fit on its training rows, predict its test rows."""

    def __init__(self, repeat: GeneralRepeat, split: _Split, w: Floats, given: dict[str, Floats]) -> None:
        self.repeat, self.split, self.w, self.given = repeat, split, w, given
        sample, outer = repeat.sample, repeat.outer
        X = {"train": rows_of(sample.X, split.train), "test": rows_of(sample.X, split.test)}
        if outer is not None:
            X["outer_train"] = rows_of(outer.X, split.outer_train)
            X["outer_test"] = rows_of(outer.X, split.outer_test)
        self.parts = Parts(**X)
        self.rows = take(sample.rows, split.train)
        self.weights = None if sample.weights is None else sample.weights[split.train]
        self.learners = repeat.model.learners_

    def fill(self, inner: _Predicted, outer: _Predicted | None, extras: _Extras) -> None:
        """Fit what is not given and write the predictions of the test rows."""
        split, surfaces = self.split, {}
        if "h" not in self.given:
            surfaces["h"] = self._inner(self.parts, self.rows, self.weights)
        h_train = self._train_values(surfaces.get("h"))
        missing = [name for name in NAMES[1:] if name not in self.given]
        if missing:
            surfaces.update(self._linear(h_train, surfaces.get("h"), missing))
        for name in NAMES:
            if name in self.given:
                getattr(inner, name)[split.test] = self.given[name][split.test]
                continue
            for part, rows, predicted in (
                ("test", split.test, inner),
                ("outer_test", split.outer_test, outer),
            ):
                if predicted is not None and rows is not None:
                    values = surfaces[name].predict(part)
                    getattr(predicted, name)[rows] = values[:, 0] if name == "adjoint" else values
        self._report(surfaces, extras)

    def _inner(self, parts: Parts, rows: dict[str, NDArray[Any]], weights: Floats | None) -> InnerSurface:
        task = InnerTask(self.repeat.problem.inner_loss, self.w, rows, weights, parts, self.repeat.q)
        return fit_inner(self.learners["h"], task)

    def _train_values(self, surface: InnerSurface | None) -> Floats:
        """Return h on the training rows: given, in sample, or from inner folds."""
        if surface is None:
            return self.given["h"][self.split.train]
        if not self.repeat.model.nested:
            return surface.predict("train")
        n = len(self.split.train)
        out = np.empty((n, self.repeat.q))
        clusters = self.repeat.sample.clusters
        unit = np.arange(n) if clusters is None else clusters[self.split.train]
        units, order = np.unique(unit, return_inverse=True)
        codes = draw_folds(len(units), NESTED_FOLDS, derive(self.repeat.model.seed_, "nested"))[order]
        for k in range(NESTED_FOLDS):
            train, test = np.flatnonzero(codes != k), np.flatnonzero(codes == k)
            X = self.parts.X["train"]
            parts = Parts(train=rows_of(X, train), test=rows_of(X, test))
            om = None if self.weights is None else self.weights[train]
            out[test] = self._inner(parts, take(self.rows, train), om).predict("test")
        return out

    def _linear(self, h: Floats, surface: InnerSurface | None, missing: list[str]) -> dict[str, Any]:
        """Fit a, J and A2 at h on the training rows."""
        problem, split, d = self.repeat.problem, self.split, len(self.w)
        at = problem.inner_loss.derivatives(self.w, h, self.rows)
        risks: dict[int, Any] = {}

        def solve(name: str, G: Floats | None, G_outer: Floats | None = None) -> Any:
            learner = self.learners[name]
            if id(learner) not in risks:
                alpha = surface.alpha if surface is not None and self.repeat.outer is not None else None
                risks[id(learner)] = quadratic_risk(learner, self.parts, at.d2_v, self.weights, alpha=alpha)
            if G is None and G_outer is None:
                G = np.zeros((len(h), d, self.repeat.q))
            return risks[id(learner)].solve(G, outer=G_outer, share=self._share())

        out: dict[str, Any] = {}
        out_rows, h_out = self.rows, h
        if self.repeat.outer is not None and surface is not None and split.outer_train is not None:
            out_rows, h_out = take(self.repeat.outer.rows, split.outer_train), surface.predict("outer_train")
        outer = problem.outer_loss.derivatives(self.w, h_out, out_rows)
        two = self.repeat.outer is not None
        if "adjoint" in missing:
            G = outer.d_v[:, None, :]
            out["adjoint"] = solve("adjoint", None, G) if two else solve("adjoint", G)
        if "jacobian" in missing:
            out["jacobian"] = solve("jacobian", at.d2_wv)
        if "adjoint_jacobian" in missing:
            a, J = self._at("adjoint", out, "train")[:, 0], self._at("jacobian", out, "train")
            J_out = self._at("jacobian", out, "outer_train") if two else J
            within, outside = inner_adjoint_terms(at, a, J), outer_adjoint_terms(outer, J_out)
            if two:
                out["adjoint_jacobian"] = solve("adjoint_jacobian", within, outside)
            else:
                out["adjoint_jacobian"] = solve("adjoint_jacobian", added(within, outside))
        return out

    def _at(self, name: str, surfaces: dict[str, Any], part: str) -> Floats:
        if name in surfaces:
            values: Floats = surfaces[name].predict(part)
            return values
        given = self.given[name][self.split.train]
        return given[:, None, :] if name == "adjoint" else given

    def _share(self) -> Any:
        """Return the weight of outer rows that makes their mean count like one over the inner rows."""
        outer = self.repeat.outer
        if outer is None or self.split.outer_train is None:
            return 1.0
        om = outer.weights
        rows = np.ones(len(self.split.outer_train)) if om is None else om[self.split.outer_train]
        total = len(self.split.train) if self.weights is None else float(self.weights.sum())
        return rows * (total / rows.sum())

    def _report(self, surfaces: dict[str, Any], extras: _Extras) -> None:
        seen: set[int] = set()
        for surface in surfaces.values():
            curvature = getattr(surface, "curvature", None)
            if isinstance(surface, RegressorSurface) and isinstance(curvature, CurvatureSurface):
                if id(curvature) not in seen:
                    extras.floored += curvature.floored.get("test", 0)
                    extras.least = float(np.fmin(extras.least, curvature.least.get("test", np.nan)))
                seen.add(id(curvature))
        if self.repeat.restricted:
            self._penalty(surfaces, extras)

    def _penalty(self, surfaces: dict[str, Any], extras: _Extras) -> None:
        """The penalty is part of the inner loss: its share of every row's score is one constant."""
        learner = self.learners["h"]
        assert isinstance(learner, SieveRidge)
        total = len(self.split.train) if self.weights is None else float(self.weights.sum())
        theta = surfaces["h"].coefficients[1:]
        a, J, A2 = (surfaces[name].coefficients[1:] for name in NAMES[1:])
        pull = float(learner.penalty) / total
        extras.constant = pull * (np.einsum("pqd,pq->d", J, a[:, :, 0]) + np.einsum("pqd,pq->d", A2, theta))
        extras.objective_constant = pull * float((a[:, :, 0] * theta).sum())


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
