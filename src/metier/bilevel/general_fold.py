"""One fold of general losses: fit the four nuisances on its training rows, predict its test rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metier.core.rng import derive

from .arrays import Floats, added, take
from .crossfit import draw_folds
from .inner import InnerSurface, InnerTask, fit_inner
from .learners import rows_of
from .risks import CurvatureSurface, Parts, RegressorSurface, quadratic_risk
from .scores import Nuisances, inner_adjoint_terms, outer_adjoint_terms
from .sieve import SieveRidge

if TYPE_CHECKING:
    from .general import GeneralRepeat

NAMES = ("h", "adjoint", "jacobian", "adjoint_jacobian")
NESTED_FOLDS = 3


@dataclass(slots=True)
class Split:
    """Training and test rows of a fold, of both samples where there are two."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    outer_train: NDArray[np.intp] | None = None
    outer_test: NDArray[np.intp] | None = None


@dataclass(slots=True)
class Predicted:
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


@dataclass(slots=True)
class Extras:
    """What folds report beside their nuisances."""

    constant: Any = 0.0
    objective_constant: float = 0.0
    least: float = float("nan")
    floored: int = 0


class Fold:
    """One fold at one w: fit on its training rows, predict its test rows."""

    def __init__(self, repeat: GeneralRepeat, split: Split, w: Floats, given: dict[str, Floats]) -> None:
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

    def fill(self, inner: Predicted, outer: Predicted | None, extras: Extras) -> None:
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

    def _report(self, surfaces: dict[str, Any], extras: Extras) -> None:
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

    def _penalty(self, surfaces: dict[str, Any], extras: Extras) -> None:
        """The penalty is part of the inner loss: its share of every row's score is one constant."""
        learner = self.learners["h"]
        assert isinstance(learner, SieveRidge)
        total = len(self.split.train) if self.weights is None else float(self.weights.sum())
        theta = surfaces["h"].coefficients[1:]
        a, J, A2 = (surfaces[name].coefficients[1:] for name in NAMES[1:])
        pull = float(learner.penalty) / total
        extras.constant = pull * (np.einsum("pqd,pq->d", J, a[:, :, 0]) + np.einsum("pqd,pq->d", A2, theta))
        extras.objective_constant = pull * float((a[:, :, 0] * theta).sum())
