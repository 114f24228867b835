"""General losses: four nuisances fitted fold by fold at every w, one sample or two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import ensure
from metier.core.rng import derive

from .arrays import Codes, Floats, added, take
from .crossfit import fold_codes, folds_within, rows_of, train_and_test
from .inner import InnerSurface, InnerTask, fit_inner
from .losses import N_ROWS, CustomLoss, Derivatives, Loss, TorchLoss, check_loss
from .risks import RATIO_BELOW, CurvatureSurface, Parts, RegressorSurface, quadratic_risk
from .scores import (
    Evaluation,
    Fitted,
    Nuisances,
    inner_adjoint_terms,
    inner_scores,
    objective_scores,
    outer_adjoint_terms,
    outer_scores,
)
from .setup import Sample, Setup
from .sieve import is_tuned

NAMES = ("h", "adjoint", "jacobian", "adjoint_jacobian")
NESTED_FOLDS = 3
Split = dict[str, NDArray[np.intp]]
"""Rows of a fold by part: "train" and "test", and of an outer sample "outer_train" and "outer_test"."""


@dataclass(slots=True)
class Extras:
    """What folds report beside their nuisances."""

    constant: Any = 0.0
    objective_constant: float = 0.0
    least: float = float("nan")
    floored: int = 0


class Fold:
    """One fold at one w: fit on its training rows, predict its test rows."""

    def __init__(self, setup: Setup, split: Split, w: Floats, given: dict[str, Floats]) -> None:
        self.setup, self.split, self.w, self.given = setup, split, w, given
        sample, outer = setup.sample, setup.sample if setup.outer is None else setup.outer
        self.train, self.q = split["train"], setup.problem.outputs(sample.rows)
        self.parts = Parts(
            **{p: rows_of((outer if p.startswith("outer") else sample).X, rows) for p, rows in split.items()}
        )
        self.rows, self.weights = take(sample.rows, self.train), sample.weights_of(self.train)
        self.total = len(self.train) if self.weights is None else float(self.weights.sum())

    def fill(self, inner: Nuisances, outer: Nuisances | None, extras: Extras) -> None:
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
                getattr(inner, name)[split["test"]] = self.given[name][split["test"]]
                continue
            for part, predicted in (("test", inner), ("outer_test", outer)):
                if predicted is not None:
                    values = surfaces[name].predict(part)
                    getattr(predicted, name)[split[part]] = values[:, 0] if name == "adjoint" else values
        self._report(surfaces, extras)

    def _inner(self, parts: Parts, rows: dict[str, NDArray[Any]], weights: Floats | None) -> InnerSurface:
        task = InnerTask(self.setup.problem.inner_loss, self.w, rows, weights, parts, self.q)
        return fit_inner(self.setup.learners["h"], task)

    def _train_values(self, surface: InnerSurface | None) -> Floats:
        """Return h on the training rows: given, in sample, or from inner folds."""
        if surface is None:
            return self.given["h"][self.train]
        if not self.setup.nested:
            return surface.predict("train")
        out = np.empty((len(self.train), self.q))
        rng, X = derive(self.setup.seed, "nested"), self.parts.X["train"]
        codes = folds_within(self.train, NESTED_FOLDS, rng, self.setup.sample.clusters)
        for train, test in train_and_test(codes):
            parts = Parts(train=rows_of(X, train), test=rows_of(X, test))
            om = None if self.weights is None else self.weights[train]
            out[test] = self._inner(parts, take(self.rows, train), om).predict("test")
        return out

    def _linear(self, h: Floats, surface: InnerSurface | None, missing: list[str]) -> dict[str, Any]:
        """Fit a, J and A2 at h on the training rows."""
        problem, outer_sample, d = self.setup.problem, self.setup.outer, len(self.w)
        at = problem.inner_loss.derivatives(self.w, h, self.rows)
        risks: dict[int, Any] = {}

        def solve(name: str, within: Floats | None, outside: Floats | None = None) -> Any:
            learner = self.setup.learners[name]
            if id(learner) not in risks:
                alpha = surface.alpha if surface is not None and outer_sample is not None else None
                risks[id(learner)] = quadratic_risk(learner, self.parts, at.d2_v, self.weights, alpha=alpha)
            if outer_sample is None:
                within, outside = added(within, outside), None
            if within is None and outside is None:
                within = np.zeros((len(h), d, self.q))
            return risks[id(learner)].solve(within, outer=outside, share=self._share())

        out: dict[str, Any] = {}
        out_rows, h_out = self.rows, h
        if outer_sample is not None and surface is not None:
            out_rows = take(outer_sample.rows, self.split["outer_train"])
            h_out = surface.predict("outer_train")
        outer = problem.outer_loss.derivatives(self.w, h_out, out_rows)
        if "adjoint" in missing:
            out["adjoint"] = solve("adjoint", None, outer.d_v[:, None, :])
        if "jacobian" in missing:
            out["jacobian"] = solve("jacobian", at.d2_wv)
        if "adjoint_jacobian" in missing:
            a, J = self._at("adjoint", out, "train")[:, 0], self._at("jacobian", out, "train")
            J_out = J if outer_sample is None else self._at("jacobian", out, "outer_train")
            terms = inner_adjoint_terms(at, a, J), outer_adjoint_terms(outer, J_out)
            out["adjoint_jacobian"] = solve("adjoint_jacobian", *terms)
        return out

    def _at(self, name: str, surfaces: dict[str, Any], part: str) -> Floats:
        if name in surfaces:
            values: Floats = surfaces[name].predict(part)
            return values
        given = self.given[name][self.train]
        return given[:, None, :] if name == "adjoint" else given

    def _share(self) -> Any:
        """Return the weight of outer rows that makes their mean count like one over the inner rows."""
        if self.setup.outer is None:
            return 1.0
        om = self.setup.outer.weights_of(self.split["outer_train"])
        rows = np.ones(len(self.split["outer_train"])) if om is None else om
        return rows * (self.total / rows.sum())

    def _report(self, surfaces: dict[str, Any], extras: Extras) -> None:
        reported: set[int] = set()
        for surface in surfaces.values():
            curvature = getattr(surface, "curvature", None)
            if isinstance(surface, RegressorSurface) and isinstance(curvature, CurvatureSurface):
                if id(curvature) not in reported:
                    extras.floored += curvature.floored.get("test", 0)
                    extras.least = float(np.fmin(extras.least, curvature.least.get("test", np.nan)))
                reported.add(id(curvature))
        if self.setup.is_restricted:
            self._penalty(surfaces, extras)

    def _penalty(self, surfaces: dict[str, Any], extras: Extras) -> None:
        """The penalty is part of the inner loss: its share of every row's score is one constant."""
        theta = surfaces["h"].coefficients[1:]
        a, J, A2 = (surfaces[name].coefficients[1:] for name in NAMES[1:])
        pull = float(self.setup.learners["h"].penalty) / self.total
        extras.constant = pull * (np.einsum("pqd,pq->d", J, a[:, :, 0]) + np.einsum("pqd,pq->d", A2, theta))
        extras.objective_constant = pull * float((a[:, :, 0] * theta).sum())


class GeneralRepeat:
    """Evaluator of general losses for one draw of folds; every w refits, always from the same start."""

    exact_slope = False

    def __init__(self, setup: Setup, codes: Codes | None, outer_codes: Codes | None) -> None:
        self.setup, self.codes = setup, codes
        self.splits = _splits(setup, codes, outer_codes)
        self.checked = False

    def at(self, w: Floats) -> Evaluation:
        """Return scores at w."""
        setup, d = self.setup, len(w)
        q = setup.problem.outputs(setup.sample.rows)
        inner = Nuisances.empty(setup.sample.n, d, q)
        outer = None if setup.outer is None else Nuisances.empty(setup.outer.n, d, q)
        given = self._given(w, d, q)
        self._check(w, q)
        extras = Extras()
        for split in self.splits:
            Fold(setup, split, w, given).fill(inner, outer, extras)
        return self._evaluation(w, inner, outer, extras)

    def _given(self, w: Floats, d: int, q: int) -> dict[str, Floats]:
        n, external = self.setup.sample.n, self.setup.external
        shapes = {"h": (n, q), "adjoint": (n, q), "jacobian": (n, d, q), "adjoint_jacobian": (n, d, q)}
        given = {name: external.at(name, w, shapes[name]) for name in NAMES if name in external}
        ensure(
            not given or self.setup.outer is None,
            "external predictions cover one sample",
            expected="a problem with one sample",
            got="an outer sample and external_predictions",
            next_step="Drop external_predictions.",
        )
        ensure(
            self.codes is not None or self.setup.is_restricted or set(given) == set(NAMES),
            'estimator="oracle" fits nothing',
            expected="external_predictions for " + ", ".join(NAMES),
            got=", ".join(given) or "none",
            next_step="Pass the true nuisances, as arrays or functions of (w, X).",
        )
        return given

    def _check(self, w: Floats, q: int) -> None:
        """Compare a user's derivatives with finite differences, once, on the first rows, near the start."""
        if self.checked:
            return
        problem, inner, outer = self.setup.problem, self.setup.sample, self.setup.outer
        for name, loss, sample in (
            ("inner loss", problem.inner_loss, inner),
            ("outer loss", problem.outer_loss, inner if outer is None else outer),
        ):
            if _is_users(loss):
                rows = {column: x[:N_ROWS] for column, x in sample.rows.items()}
                few = len(rows["X"])
                v = 0.1 * np.cos(np.arange(1.0, few * q + 1)).reshape(few, q)
                check_loss(loss, w, v, rows, name=name)
        self.checked = True

    def _evaluation(self, w: Floats, inner: Nuisances, outer: Nuisances | None, extras: Extras) -> Evaluation:
        problem, sample, outer_sample = self.setup.problem, self.setup.sample, self.setup.outer
        d_in = problem.inner_loss.derivatives(w, inner.h, sample.rows)
        phi_in = inner_scores(d_in, inner) + extras.constant
        notes: dict[str, Any] = {
            "min_curvature": extras.least,
            "floored": extras.floored,
            "flat": self._flat(d_in),
        }
        if outer is None or outer_sample is None:
            d_out = problem.outer_loss.derivatives(w, inner.h, sample.rows)
            plugin = outer_scores(d_out, inner)
            return Evaluation(
                samples=(sample,),
                orthogonal=(plugin + phi_in,),
                plugin=(plugin,),
                objective=(objective_scores(d_in, d_out, inner.adjoint) + extras.objective_constant,),
                plugin_objective=(d_out.value,),
                fitted=_fitted(sample, d_in, d_out, inner),
                slopes=_slopes(d_in, d_out, inner),
                errors=_errors(d_in, d_out, inner),
                **notes,
            )
        d_out = problem.outer_loss.derivatives(w, outer.h, outer_sample.rows)
        plugin = outer_scores(d_out, outer)
        corrected = np.einsum("nq,nq->n", inner.adjoint, d_in.d_v) + extras.objective_constant
        return Evaluation(
            samples=(sample, outer_sample),
            orthogonal=(phi_in, plugin),
            plugin=(np.zeros((sample.n, len(w))), plugin),
            objective=(corrected, d_out.value),
            plugin_objective=(np.zeros(sample.n), d_out.value),
            **notes,
        )

    def _flat(self, inner: Derivatives) -> int:
        """Return how many rows without curvature a tuned penalty counted as rows that it was tuned on."""
        if not any(is_tuned(one) for one in self.setup.learners.values()):
            return 0
        size = np.trace(inner.d2_v, axis1=1, axis2=2)
        return int((size <= RATIO_BELOW * size.mean()).sum())


def _splits(setup: Setup, codes: Codes | None, outer_codes: Codes | None) -> list[Split]:
    everything = np.arange(setup.sample.n)
    folds = [(everything, everything)] if codes is None else train_and_test(codes)
    splits = [{"train": train, "test": test} for train, test in folds]
    if setup.outer is not None:
        everything = np.arange(setup.outer.n)
        folds = [(everything, everything)] if outer_codes is None else train_and_test(outer_codes)
        for split, (train, test) in zip(splits, folds, strict=True):
            split |= {"outer_train": train, "outer_test": test}
    return splits


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


def general_repeats(setup: Setup, rng: np.random.Generator) -> list[Any]:
    """Return one evaluator per draw of folds."""
    if setup.estimator == "oracle" or setup.is_restricted:
        return [GeneralRepeat(setup, None, None)]
    sample, outer = setup.sample, setup.outer
    pair = outer is not None and isinstance(setup.folds, tuple)
    folds, outer_folds = setup.folds if pair else (setup.folds, setup.folds)
    out = []
    for _ in range(setup.repeats):
        codes = fold_codes(folds, sample.n, rng, sample.clusters)
        outer_codes = None if outer is None else fold_codes(outer_folds, outer.n, rng, outer.clusters)
        if outer_codes is not None:
            ensure(
                outer_codes.max() == codes.max(),
                "both samples are cut into the same folds",
                expected=f"{int(codes.max()) + 1} folds of the outer sample too",
                got=int(outer_codes.max()) + 1,
                next_step="Name the same folds in both samples, or pass their number.",
            )
        out.append(GeneralRepeat(setup, codes, outer_codes))
    return out
