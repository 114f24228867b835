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
        return self._evaluation(g, dg, *self._nuisances(w, g, dg))

    def _nuisances(self, w: Floats, g: Floats, dg: Floats) -> tuple[Floats, Floats, Floats]:
        """Return j, h and r at w: as given from outside, else as fitted once, else fitted now."""
        n, given = len(g), self.external
        known = {} if self.affine is None else self.affine.at(w)
        known |= {name: given.at(name, w, dg.shape if name == "jacobian" else (n,)) for name in given.given}
        requests: dict[str, tuple[str, Floats]] = {}
        if "jacobian" not in known:
            requests["jacobian"] = ("jacobian", dg)
        if "h" not in known and self.codes is not None:
            requests["h"] = ("h", g[:, None])
        if "residual" not in known and "outcome" not in known:
            requests |= self._residual_request(g)
        for name, fit in self.regress(requests).items():
            known[name] = fit if name == "jacobian" else fit[:, 0]
        h = known.get("h", np.full(n, np.nan))
        return known["jacobian"], h, known["residual"] if "residual" in known else h - known["outcome"]

    def _residual_request(self, g: Floats) -> dict[str, tuple[str, Floats]]:
        """Return what to regress for r: g_w - Y itself, or Y alone."""
        if self.separate:
            return {"outcome": ("outcome", self.y[:, None])}
        return {"residual": ("residual", (g - self.y)[:, None])}

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
        learners = repeat.learners
        if not {"residual", "outcome"} & set(given.given):
            if repeat.separate:
                requests["m"] = ("outcome", y[:, None])
            elif is_linear_smoother(learners["residual"]) and repeat.codes is not None:
                requests["r0"] = ("residual", (g0 - y)[:, None])
                if learners["residual"] is not learners["jacobian"] or "jacobian" in given:
                    requests["jr"] = ("residual", dg)
        fits, nowhere = repeat.regress(requests), np.zeros(dg.shape[1])
        self.j = fits["j"] if "j" in fits else given.at("jacobian", nowhere, dg.shape)
        self.h0 = fits["h0"][:, 0] if "h0" in fits else (g0 if constant else np.full(len(y), np.nan))
        self.residual: tuple[Floats, Floats] | None = None
        if "r0" in fits:
            self.residual = fits["r0"][:, 0], fits.get("jr", self.j)
        elif ("m" in fits or "outcome" in given) and "h" not in given:
            m = fits["m"][:, 0] if "m" in fits else given.at("outcome", nowhere, (len(y),))
            self.residual = self.h0 - m, self.j
        self.outcome = fits["m"][:, 0] if "m" in fits else None

    def at(self, w: Floats) -> dict[str, Floats]:
        """Return the nuisances that are known at w."""
        known = {"jacobian": self.j, "h": self.h0 + self.j @ w}
        if self.residual is not None:
            known["residual"] = self.residual[0] + self.residual[1] @ w
        if self.outcome is not None:
            known["outcome"] = self.outcome
        return known


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
