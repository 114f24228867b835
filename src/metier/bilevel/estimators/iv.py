"""`IVBilevel`: instrumental variables as a bilevel problem, with the tables econometricians expect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from metier.bilevel.arrays import Floats
from metier.bilevel.crossfit import draw_folds, fit_regressor
from metier.bilevel.estimate import HypergradientEstimate, Solution
from metier.bilevel.loss_families import Squared
from metier.bilevel.obigrad import OBiGrad
from metier.bilevel.scores import Mean, median_of_repeats
from metier.bilevel.setup import BilevelProblem, seeded
from metier.bilevel.sieve import SieveRidge
from metier.bilevel.targets import AffineTarget
from metier.core.checks import finite_array, one_of, positive_int
from metier.core.errors import InputError
from metier.core.rng import derive, derive_seed, seed_of

from .columns import Columns, InstrumentRows, read_rows
from .effects import Effect, make_effect, plot_coefficients, plot_effect
from .features import make_features
from .first_stage import FirstStage, first_stage
from .moments import (
    LinearFit,
    Moments,
    TestResult,
    is_solvable,
    least_squares,
    over_identification,
    partial_out,
    refuse_explained,
    two_stage_least_squares,
)
from .tables import SMALL_SAMPLE, CoefficientTable, IVReport, iv_warnings
from .weak_instruments import ConfidenceSet, anderson_rubin_set, anderson_rubin_test

LEARNER_KNOTS = 8
CACHED = (
    *("has_enough_instruments", "first_stage_", "over_identification_"),
    *("two_stage_least_squares_", "warnings_"),
)
"""What is computed once on demand; a new fit forgets it."""
ESTIMATORS = ("obigrad", "plugin", "adjoint_instrument")


class IVBilevel:
    r"""Instrumental variables with a debiased gradient: the w that makes E[y - Phi(t)'w | z, controls] small.

    Outer F(w) = E[(y - h_w)^2] / 2, inner h_w = E[Phi(t)'w | z, controls]. Outcome, features and instruments
    are first freed of what the controls explain, by cross-fitting; an intercept always goes. The coefficient
    is the root of the orthogonal gradient, its covariance the sandwich. Where the model is misspecified, w is
    the projection.

    Args:
        features: Phi: "linear" (one coefficient per column of t), "spline", "fourier", a callable
            (n, m) -> (n, d), or a scikit-learn transformer.
        learner: regression on (z, controls), as in `OBiGrad`; None for a tuned ridge, linear in them for
            linear features and on cubic splines of them otherwise.
        estimator: "obigrad", "plugin" or "adjoint_instrument".
        folds: folds of cross-fitting; whole `groups` stay together.
        repeats: independent divisions into folds; the median is kept.
        rng: seed of the folds.
        control_learner: regression on the controls, any scikit-learn regressor; None for least squares.

    Attributes:
        coef_: (d,) coefficients.
        stderr_: (d,) standard errors.
        covariance_: (d, d).
        feature_names_, instrument_names_, control_names_: names, from columns where the input has them.
        warnings_: sentences, each with what to do.
        first_stage_: `FirstStage`, the strength of the instruments.
        over_identification_: Hansen's J as `TestResult`; None where no instrument is to spare.
        two_stage_least_squares_: `LinearFit` on the same residuals, for comparison.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> z, u = rng.normal(size=(800, 2)), rng.normal(size=800)
        >>> t = z.sum(axis=1) + u
        >>> iv = IVBilevel(rng=0).fit(2.0 * t - u + rng.normal(size=800), t, z)
        >>> bool(abs(iv.coef_[0] - 2.0) < 4 * iv.stderr_[0]), iv.feature_names_
        (True, ('t',))

    Source: the score is the paper's (quadratic losses, affine in w); features, controls by cross-fitting,
        weights, clusters and the tables are ours.
    """

    def __init__(
        self,
        *,
        features: Any = "linear",
        learner: Any = None,
        estimator: str = "obigrad",
        folds: int = 5,
        repeats: int = 1,
        rng: int | np.random.Generator = 0,
        control_learner: Any = None,
    ) -> None:
        self.features = features
        self.learner = learner
        self.estimator = one_of("estimator", estimator, ESTIMATORS)
        self.folds = positive_int("folds", folds, minimum=2)
        self.repeats = positive_int("repeats", repeats)
        self.rng = rng
        self.control_learner = control_learner

    def fit(
        self,
        y: Any,
        t: Any,
        z: Any,
        *,
        controls: Any = None,
        weights: Any = None,
        groups: Any = None,
        data: Any = None,
    ) -> Self:
        """Fit; every argument is a frame, a series or an array, or with `data` the name(s) of its columns.

        Args:
            y: (n,) outcome.
            t: (n,) or (n, m) treatment.
            z: (n,) or (n, k) instruments; exogenous columns of t belong here too.
            controls: (n, p) exogenous controls, or None; text columns become indicators.
            weights: (n,) positive, or None; with `data` a name or an array.
            groups: (n,) cluster labels, or None for independent rows; with `data` a name or an array.
            data: frame that holds the named columns.

        Returns:
            Itself.

        Raises:
            InputError: missing or infinite values (with their counts per column), constant columns, fewer
                instruments than features, fewer clusters than folds.
        """
        for name in CACHED:
            self.__dict__.pop(name, None)
        rows = read_rows(y, t, z, controls=controls, weights=weights, groups=groups, data=data)
        self._rows = rows
        self.outcome_name_, self.treatment_names_ = rows.outcome.names[0], rows.treatment.names
        self.instrument_names_ = rows.instruments.names
        self.control_names_ = () if rows.controls is None else rows.controls.names
        self.n_, self.groups_ = rows.n, rows.groups
        self._seed = seed_of(self.rng)
        self._fit_features(rows.treatment)
        self._fit_repeats(rows)
        return self

    def _fit_features(self, treatment: Columns) -> None:
        self._map = make_features(self.features)
        self.feature_names_ = self._map.fit(treatment.values, treatment.names)
        self._phi = self._map.transform(treatment.values)
        flat = [
            n for n, width in zip(self.feature_names_, np.ptp(self._phi, axis=0), strict=True) if width == 0
        ]
        if flat:
            raise InputError(
                "features must vary",
                expected="no constant feature: the intercept is always there",
                got=", ".join(map(repr, flat)),
                next_step="Leave constant features out.",
            )

    def _fit_repeats(self, rows: InstrumentRows) -> None:
        z = rows.instruments.values
        controls = None if rows.controls is None else rows.controls.values
        targets = np.column_stack([rows.outcome.values, self._phi, z])
        d = self._phi.shape[1]
        names = (self.outcome_name_, *self.feature_names_, *self.instrument_names_)
        x = z if controls is None else np.column_stack([z, controls])
        # Without controls there is nothing to cross-fit here, and OBiGrad repeats by itself.
        rounds, inner = (1, self.repeats) if controls is None else (self.repeats, 1)
        self._moments: list[Moments] = []
        self._engines: list[OBiGrad] = []
        for r in range(rounds):
            folds = draw_folds(self.n_, self.folds, derive(self._seed, "controls", r), self.groups_)
            residuals = partial_out(
                targets, controls, weights=rows.weights, folds=folds, fit=self._fit_controls
            )
            refuse_explained(residuals, names, "outcome, treatment and instruments")
            v = residuals.values
            n_controls = 1 + (0 if controls is None else controls.shape[1])
            m = Moments(v[:, 0], v[:, 1 : 1 + d], v[:, 1 + d :], rows.weights, self.groups_, n_controls)
            self._moments.append(m)
            self._engines.append(self._engine(x, m, derive_seed(self._seed, "folds", r), inner))
            self.control_r2_ = (
                dict(zip(names, residuals.r2.tolist(), strict=True)) if rows.controls is not None else {}
            )
        self._check_rank()
        solutions = [engine.solve(np.zeros(d)) for engine in self._engines]
        middle, self._kept = median_of_repeats([Mean(s.w, s.covariance, s.gradient.n) for s in solutions])
        self.coef_, self.covariance_ = middle.value, middle.covariance
        self.solution_: Solution = solutions[self._kept]

    def _fit_controls(self, x: Floats, y: Floats, weights: Floats) -> Callable[[Floats], Floats]:
        if self.control_learner is None:
            return least_squares(x, y, weights)
        return fit_regressor(
            seeded(self.control_learner, self._seed), x, y, None if np.ptp(weights) == 0 else weights
        )

    def _engine(self, x: Floats, m: Moments, seed: int, repeats: int) -> OBiGrad:
        problem = BilevelProblem(Squared(AffineTarget(None, "t")), Squared("y"))
        engine = OBiGrad(
            problem,
            learner=self._learner(),
            estimator=self.estimator,
            folds=self.folds,
            repeats=repeats,
            rng=seed,
        )
        return engine.fit(
            X=x,
            Z={"y": m.y, "t": m.t},
            groups=self.groups_,
            weights=None if np.ptp(m.weights) == 0 else m.weights,
        )

    def _learner(self) -> Any:
        if self.learner is not None or self.features == "linear":
            return self.learner
        from sklearn.preprocessing import SplineTransformer

        return SieveRidge(SplineTransformer(n_knots=LEARNER_KNOTS), penalty="gcv")

    def _check_rank(self) -> None:
        d, k = self._phi.shape[1], len(self.instrument_names_)
        if np.linalg.matrix_rank(self._moments[0].t) < d:
            raise InputError(
                "features must vary separately, given the controls",
                expected=f"{d} linearly independent features",
                got="features that repeat each other or the controls",
                next_step="Leave some out.",
            )
        if k < d and self.features == "linear":
            raise InputError(
                "each coefficient needs an instrument",
                expected=f"at least {d} instruments for {d} treatment columns",
                got=f"{k}",
                next_step="Add instruments, or leave treatment columns out.",
            )

    @property
    def treatment_values_(self) -> Floats:
        """The treatment as fitted, (n, m)."""
        return self._rows.treatment.values

    @property
    def stderr_(self) -> Floats:
        """Standard errors, (d,)."""
        return np.sqrt(np.maximum(np.diag(self.covariance_), 0.0))

    def interval(self, level: float = 0.95) -> Floats:
        """Return Wald intervals, (d, 2); they trust the instruments to be strong."""
        return CoefficientTable(self.feature_names_, self.coef_, self.stderr_, level).interval

    def hypergradient(self, w: ArrayLike) -> HypergradientEstimate:
        """Return the gradient of F at w with its covariance; over repeats, their median."""
        estimates = [engine.hypergradient(finite_array("w", w, ndim=1)) for engine in self._engines]
        if len(estimates) == 1:
            return estimates[0]
        middle, kept = median_of_repeats([Mean(e.value, e.covariance, e.n) for e in estimates])
        plugin = np.median([e.plugin for e in estimates], axis=0)
        return replace(estimates[kept], value=middle.value, covariance=middle.covariance, plugin=plugin)

    @property
    def moments_(self) -> Moments:
        """The residualized data (of the repeat that was kept)."""
        return self._moments[self._kept]

    @cached_property
    def has_enough_instruments(self) -> bool:
        """Whether linear first stages can be fitted and identify all features.

        That needs as many instruments as features, none that repeats others, and more rows or clusters.
        """
        m = self.moments_
        if not len(self.feature_names_) <= m.z.shape[1] < m.n_units:
            return False
        return is_solvable((m.z * m.weights[:, None]).T @ m.z)

    def _needs_linear_stage(self) -> None:
        if not self.has_enough_instruments:
            raise InputError(
                "tests of the instruments as given need a linear first stage",
                expected="as many instruments as features, none repeated, fewer than rows or clusters",
                got=f"{len(self.instrument_names_)} instruments, {len(self.feature_names_)} features, "
                f"{self.moments_.n_units} units",
                next_step="Leave out instruments that repeat others, or test a subset.",
            )

    @cached_property
    def first_stage_(self) -> FirstStage:
        """Strength of the instruments as given, in linear regressions."""
        self._needs_linear_stage()
        return first_stage(self.moments_, self.feature_names_)

    @cached_property
    def over_identification_(self) -> TestResult | None:
        """Hansen's J; None where no instrument is to spare."""
        return over_identification(self.moments_) if self.has_enough_instruments else None

    @cached_property
    def two_stage_least_squares_(self) -> LinearFit | None:
        """Two-stage least squares on the same residuals; None where there is no linear first stage."""
        return two_stage_least_squares(self.moments_) if self.has_enough_instruments else None

    def anderson_rubin(self, w: ArrayLike) -> TestResult:
        """Test w by the instruments as given: valid however weak they are."""
        if len(self.instrument_names_) >= len(self.feature_names_):
            self._needs_linear_stage()
        return anderson_rubin_test(self.moments_, w)

    def anderson_rubin_set(self, level: float = 0.95) -> ConfidenceSet:
        """All values of the one coefficient that this test does not reject; it may be unbounded or empty."""
        self._needs_linear_stage()
        return anderson_rubin_set(self.moments_, level=level)

    @cached_property
    def warnings_(self) -> tuple[str, ...]:
        """What to know before trusting the numbers, each sentence with what to do."""
        return iv_warnings(
            self.solution_.warnings,
            n_features=len(self.feature_names_),
            n_instruments=len(self.instrument_names_),
            first_stage=self.first_stage_ if self.has_enough_instruments else None,
            over_identification=self.over_identification_,
            one_small_division=self.repeats == 1 and bool(self.control_names_) and self.n_ < SMALL_SAMPLE,
        )

    def _report(self, level: float) -> IVReport:
        enough = self.has_enough_instruments
        single = enough and len(self.feature_names_) == 1
        return IVReport(
            outcome=self.outcome_name_,
            treatment=self.treatment_names_,
            instruments=self.instrument_names_,
            controls=self.control_names_,
            n=self.n_,
            clusters=None if self.groups_ is None else self.moments_.n_units,
            estimator=self.estimator,
            folds=self.folds,
            repeats=self.repeats,
            coefficients=self.coefficients(level),
            covariance=self.covariance_,
            first_stage=self.first_stage_ if enough else None,
            two_stage_least_squares=self.two_stage_least_squares_,
            anderson_rubin=self.anderson_rubin_set(level) if single else None,
            over_identification=self.over_identification_,
            warnings=self.warnings_,
        )

    def effect(
        self, treatment: ArrayLike, *, reference: ArrayLike | None = None, level: float = 0.95
    ) -> Effect:
        """Return Phi(t)'w - Phi(reference)'w with pointwise and simultaneous bands.

        Args:
            treatment: (m,) or (m, p) values of the treatment.
            reference: (p,) where the effect is zero; the medians of the data by default.
            level: coverage aimed at.
        """
        p = len(self.treatment_names_)
        t = finite_array("treatment", treatment).reshape(-1, p)
        observed = self._rows.treatment.values
        base = np.median(observed, axis=0) if reference is None else finite_array("reference", reference)
        base = base.reshape(p)
        contrast = self._map.transform(t) - self._map.transform(base[None, :])
        return make_effect(contrast, self.coef_, self.covariance_, treatment=t, reference=base, level=level)

    def plot(self, *, ax: Any = None, level: float = 0.95) -> Any:
        """Draw coefficients with intervals, or with one non-linear treatment the curve with its bands.

        Returns:
            The matplotlib axes.
        """
        title = f"{self.outcome_name_} on {', '.join(self.treatment_names_)}"
        if self.features == "linear" or len(self.treatment_names_) > 1:
            interval = self.interval(level)
            return plot_coefficients(self.feature_names_, self.coef_, interval, ax=ax, title=title)
        column = self._rows.treatment.values[:, 0]
        low, high = np.quantile(column, [0.01, 0.99])
        grid = np.linspace(low, high, 101)
        return plot_effect(self.effect(grid, level=level), name=self.treatment_names_[0], ax=ax, title=title)

    def coefficients(self, level: float = 0.95) -> CoefficientTable:
        """Return names, coefficients, standard errors, tests and intervals as one table."""
        return CoefficientTable(self.feature_names_, self.coef_, self.stderr_, level)

    def summary(self, level: float = 0.95) -> str:
        """Return the tables as text: coefficients, first stage, tests, warnings."""
        return self._report(level).text()

    def to_dict(self, level: float = 0.95) -> dict[str, Any]:
        """Return everything the summary shows as plain Python values."""
        return self._report(level).to_dict()
