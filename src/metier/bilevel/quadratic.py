"""Squared losses: two regressions make the score, and an affine target makes it affine in w."""

from __future__ import annotations

from typing import Any

import numpy as np

from metier.core.checks import ensure
from metier.core.errors import InputError
from metier.core.rng import derive

from .arrays import Codes, Floats
from .crossfit import cross_fitter, fit_regressor, folds_within, is_linear_smoother, rows_of
from .scores import Evaluation, Fitted, quadratic_scores
from .setup import Setup
from .sieve import SieveRidge
from .targets import AffineTarget, as_target


class QuadraticRepeat:
    """Cross-fitted nuisances of squared losses for one draw of folds.

    With an affine target, j is fitted once. The residual r_w = E[g_w - Y | X] is fitted once too where its
    learner is a linear smoother (r_w = r_0 + j_r' w) or where `residual="separate"` (r_w = h_w - m);
    otherwise it is refitted at every w. Nothing of size n x d x d is stored.
    """

    def __init__(self, setup: Setup, codes: Codes | None) -> None:
        self.setup, self.sample, self.codes = setup, setup.sample, codes
        self.learners, self.external = setup.learners, setup.external
        self.separate = setup.residual == "separate"
        self.target = as_target(setup.problem.inner_loss.target)  # type: ignore[attr-defined]
        outer = as_target(setup.problem.outer_loss.target)  # type: ignore[attr-defined]
        y = outer.evaluate(np.zeros(0), self.sample.rows)[0]
        _one_value("the outer target", y)
        self.y: Floats = y[:, 0]
        self.fitters: dict[int, Any] = {}
        self._halves: list[tuple[Floats, Floats]] | None = None
        self.affine: _AffineFits | None = None
        if isinstance(self.target, AffineTarget):
            self.affine = _AffineFits(self, *self.target.parts(self.sample.rows))
        self.exact_slope = self.affine is not None and self.affine.residual is not None

    def regress(self, requests: dict[str, tuple[str, Floats]]) -> dict[str, Floats]:
        """Cross-fit {answer: (nuisance, targets (n, m))}, targets of one linear learner in one go."""
        if not requests:
            return {}
        ensure(
            self.codes is not None,
            'estimator="oracle" fits nothing',
            expected="every nuisance in external_predictions",
            got=f"none for {', '.join(requests)}",
            next_step="Pass the true nuisances: jacobian, and residual or h and outcome.",
        )
        out: dict[str, Floats] = {}
        for answers in self._batches(requests):
            learner = self.learners[requests[answers[0]][0]]
            if id(learner) not in self.fitters:
                self.fitters[id(learner)] = cross_fitter(
                    learner, self.sample.X, self.codes, self.sample.weights, backend=self.setup.backend
                )
            targets = [requests[answer][1] for answer in answers]
            fitted = self.fitters[id(learner)].predict(np.concatenate(targets, axis=1))
            cuts = np.cumsum([t.shape[1] for t in targets])[:-1]
            out.update(zip(answers, np.split(fitted, cuts, axis=1), strict=True))
        return out

    def _batches(self, requests: dict[str, tuple[str, Floats]]) -> list[list[str]]:
        """Return which requests share a fit: a forest of several outputs would tie nuisances together."""
        batches: dict[object, list[str]] = {}
        for answer, (nuisance, _) in requests.items():
            learner = self.learners[nuisance]
            alone = not (isinstance(learner, SieveRidge) or is_linear_smoother(learner))
            batches.setdefault(answer if alone else id(learner), []).append(answer)
        return list(batches.values())

    def half_fits(self, w: Floats) -> list[tuple[Floats, Floats]] | None:
        """Return (j, r) at the first fold's rows, fitted on either half of the other rows."""
        if not isinstance(self.target, AffineTarget) or self.codes is None:
            return None
        g0, dg = self.target.parts(self.sample.rows)
        if not is_linear_smoother(self.learners["residual"]) and not self.separate:
            g = (g0[:, 0] + dg[:, :, 0] @ w)[:, None]
            return [(j, r[:, 0]) for j, r in _half_fits(self, dg[:, :, 0], g - self.y[:, None])]
        if self._halves is None:
            self._halves = _half_fits(self, dg[:, :, 0], np.column_stack([g0[:, 0] - self.y, dg[:, :, 0]]))
        return [(j, r[:, 0] + r[:, 1:] @ w) for j, r in self._halves]

    def at(self, w: Floats) -> Evaluation:
        """Return the scores at w."""
        g, dg = self.target.evaluate(w, self.sample.rows)
        if dg is None:
            raise InputError(
                "the inner target moves with w",
                expected="AffineTarget or FunctionTarget",
                got="a target that is free of w",
                next_step="Without w in the inner problem there is no hypergradient to correct.",
            )
        _one_value("the inner target", g)
        g, dg = g[:, 0], dg[:, :, 0]
        j, h, r = self._fitted_affine(w, g) if self.affine is not None else self._fitted(w, g, dg)
        return self._evaluation(g, dg, j, h, r)

    def _fitted_affine(self, w: Floats, g: Floats) -> tuple[Floats, Floats, Floats]:
        fits = self.affine
        assert fits is not None
        n = self.sample.n
        h = self.external.at("h", w, (n,)) if "h" in self.external else fits.h0 + fits.j @ w
        if "residual" in self.external:
            r = self.external.at("residual", w, (n,))
        elif fits.residual is not None:
            r = fits.residual[0] + fits.residual[1] @ w
        elif fits.outcome is not None:
            r = h - fits.outcome
        else:
            r = self.regress({"r": ("residual", (g - self.y)[:, None])})["r"][:, 0]
        return fits.j, h, r

    def _fitted(self, w: Floats, g: Floats, dg: Floats) -> tuple[Floats, Floats, Floats]:
        """Fit at w what is not given from outside."""
        given, n = self.external, self.sample.n
        requests: dict[str, tuple[str, Floats]] = {}
        if "jacobian" not in given:
            requests["j"] = ("jacobian", dg)
        if "h" not in given and self.codes is not None:
            requests["h"] = ("h", g[:, None])
        direct = "residual" not in given and "outcome" not in given and not self.separate
        if direct:
            requests["r"] = ("residual", (g - self.y)[:, None])
        if self.separate and not {"residual", "outcome"} & set(given.given):
            requests["m"] = ("outcome", self.y[:, None])
        fits = self.regress(requests)
        j = fits["j"] if "j" in fits else given.at("jacobian", w, dg.shape)
        h = fits["h"][:, 0] if "h" in fits else self._external_or_nan("h", w)
        if "residual" in given:
            return j, h, given.at("residual", w, (n,))
        if direct:
            return j, h, fits["r"][:, 0]
        return j, h, h - (fits["m"][:, 0] if "m" in fits else given.at("outcome", w, (n,)))

    def _external_or_nan(self, name: str, w: Floats) -> Floats:
        n = self.sample.n
        return self.external.at(name, w, (n,)) if name in self.external else np.full(n, np.nan)

    def _evaluation(self, g: Floats, dg: Floats, j: Floats, h: Floats, r: Floats) -> Evaluation:
        y, om = self.y, self.sample.weights
        weighted = self.sample.weighted(j)
        slope_j = j if self.affine is None or self.affine.residual is None else self.affine.residual[1]
        slope = (weighted.T @ dg + self.sample.weighted(dg - j).T @ slope_j) / len(y)
        if self.external.given and not self.exact_slope:
            slope = (weighted.T @ dg + dg.T @ weighted - weighted.T @ j) / len(y)
        return Evaluation(
            samples=(self.sample,),
            orthogonal=(quadratic_scores(g, dg, y, j, r),),
            plugin=((h - y)[:, None] * j,),
            objective=((y - h) ** 2 / 2.0 - r * (h - g),),
            plugin_objective=((y - h) ** 2 / 2.0,),
            instrument=((g - y)[:, None] * j,),
            slope=slope,
            fitted={
                "jacobian": Fitted(dg, j, om),
                "h": Fitted(g[:, None], h[:, None], om),
                "residual": Fitted((g - y)[:, None], r[:, None], om),
            },
            errors=((dg - j, g - y - r, np.ones(len(y)), np.column_stack([j, r])),),
            slopes={
                "jacobian": (g - y - r)[:, None] * j,
                "residual": (dg - j) * r[:, None],
            },
        )


def _one_value(name: str, values: Floats) -> None:
    ensure(
        values.shape[1] == 1,
        f"{name} has one value per row, as the inner solution has",
        expected="a column (n,)",
        got=f"{values.shape[1]} columns",
        next_step="Name one column, or set n_outputs in the BilevelProblem.",
    )


class _AffineFits:
    """What an affine target lets us fit once: j, h0, and either r = r0 + j_r' w or the outcome m."""

    def __init__(self, repeat: QuadraticRepeat, g0: Floats, dg: Floats) -> None:
        given, y = repeat.external, repeat.y
        g0, dg = g0[:, 0], dg[:, :, 0]
        constant = bool((g0 == g0[0]).all())
        requests: dict[str, tuple[str, Floats]] = {}
        if "jacobian" not in given:
            requests["j"] = ("jacobian", dg)
        if "h" not in given and not constant and repeat.codes is not None:
            requests["h0"] = ("h", g0[:, None])
        ours = not {"residual", "outcome"} & set(given.given)
        linear = ours and not repeat.separate and is_linear_smoother(repeat.learners["residual"])
        shared = repeat.learners["residual"] is repeat.learners["jacobian"] and "jacobian" not in given
        if linear and repeat.codes is not None:
            requests["r0"] = ("residual", (g0 - y)[:, None])
            if not shared:
                requests["jr"] = ("residual", dg)
        if ours and repeat.separate:
            requests["m"] = ("outcome", y[:, None])
        fits = repeat.regress(requests)
        nowhere = np.zeros(dg.shape[1])
        self.j = fits["j"] if "j" in fits else given.at("jacobian", nowhere, dg.shape)
        self.h0 = fits["h0"][:, 0] if "h0" in fits else (g0 if constant else np.full(len(y), np.nan))
        self.residual: tuple[Floats, Floats] | None = None
        self.outcome: Floats | None = None
        if "r0" in fits:
            self.residual = fits["r0"][:, 0], fits.get("jr", self.j)
        if "m" in fits or "outcome" in given:
            self.outcome = fits["m"][:, 0] if "m" in fits else given.at("outcome", nowhere, (len(y),))
            if "h" not in given:
                self.residual = self.h0 - self.outcome, self.j


def _half_fits(repeat: QuadraticRepeat, dg: Floats, residual: Floats) -> list[tuple[Floats, Floats]]:
    """Fit the jacobian's targets (n, d) and the residual's (n, m) on two random halves."""
    assert repeat.codes is not None
    sample, codes = repeat.sample, repeat.codes
    test, train = np.flatnonzero(codes == 0), np.flatnonzero(codes != 0)
    half_of = folds_within(train, 2, derive(repeat.setup.seed, "halves"), sample.clusters)
    out = []
    for half in (0, 1):
        rows = train[half_of == half]
        om = sample.weights_of(rows)
        X, X_test = rows_of(sample.X, rows), rows_of(sample.X, test)
        j = fit_regressor(repeat.learners["jacobian"], X, dg[rows], om)(X_test)
        r = fit_regressor(repeat.learners["residual"], X, residual[rows], om)(X_test)
        out.append((j, r))
    return out
