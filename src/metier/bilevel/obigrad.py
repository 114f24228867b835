"""The front object: fit the nuisances once, ask for gradients, objectives and roots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metier.core.checks import ensure, finite_array, one_of, positive_int
from metier.core.errors import InputError
from metier.core.estimate import Estimate
from metier.core.rng import as_generator, check_rng, seed_of

from .arrays import Floats
from .crossfit import fold_codes, is_rough
from .diagnostics import diagnose, root_warnings
from .estimate import HypergradientEstimate, Solution
from .general import NAMES as GENERAL_NAMES, general_repeats
from .kernel import KernelRepeat
from .quadratic import QuadraticRepeat
from .roots import METHODS, Gradient, Root, closed_form, difference_slope, sandwich
from .scores import Evaluation, Mean, Repeat, median_of_repeats
from .setup import (
    BilevelProblem,
    External,
    Setup,
    check_outer_sample,
    check_sample,
    draws,
    learners_by_nuisance,
)
from .sieve import SieveRidge, is_tuned
from .targets import AffineTarget

ESTIMATORS = ("obigrad", "plugin", "adjoint_instrument", "kbo", "oracle")


class OBiGrad:
    """Cross-fitted orthogonal hypergradient of a bilevel problem, with its covariance.

    Args:
        problem: The problem.
        learner: Nuisance learner: one scikit-learn regressor for all, or a dict of learners by nuisance ("h",
            "adjoint", "jacobian", "adjoint_jacobian"; for squared losses "jacobian", "residual", and "h",
            "outcome" with residual="separate"). None is `SieveRidge()`, a tuned ridge on the columns of X.
            Learners without a `random_state` get one from `rng`, so that every w meets the same draws.
        estimator: "obigrad"; "plugin", its uncorrected rival; "adjoint_instrument" (squared losses), which
            drops the term that orthogonalizes it under misspecification; "kbo", the kernel rival; "oracle",
            with all nuisances from `external_predictions`.
        folds: Number of folds, or the fold of every row, (n,); with two samples a pair of such arrays.
        repeats: Draws of folds; estimates are combined by the median.
        rng: Seed or generator of the folds.
        residual: For squared losses, "direct" regresses g_w - Y once (ours); "separate" takes h_w - m.
        inner_class: "pointwise" for an inner problem over all functions; "restricted" for the penalized sieve
            itself as the target (learner must be a `SieveRidge` with a number as penalty), fitted in sample.
        nested: Fit the adjoint and its kin on out-of-fold h values of the training rows (general losses); the
            inner folds are drawn from `rng` by row, so that the order of the rows matters within noise.
        diagnose: Fit the two half-sample nuisances that the product-bias warning needs.
        backend: Where folds of scikit-learn learners run, as in `metier.core.map_tasks`.

    Example:
        >>> from metier.bilevel import AffineTarget, Squared
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(500, 1)); u = rng.normal(size=500)
        >>> T = X[:, 0] + u; Y = 2 * T - u
        >>> problem = BilevelProblem(Squared(AffineTarget(None, "T")), Squared("Y"))
        >>> solution = OBiGrad(problem).fit(X, {"T": T, "Y": Y}).solve()
        >>> bool(abs(solution.w[0] - 2) < 3 * solution.stderr[0])
        True

    Source: the paper, Algorithm 1; general losses, the direct residual, weights, clusters, repeats and
    the root's interval are ours.
    """

    def __init__(
        self,
        problem: BilevelProblem,
        *,
        learner: Any = None,
        estimator: str = "obigrad",
        folds: Any = 5,
        repeats: int = 1,
        rng: int | np.random.Generator = 0,
        residual: str = "direct",
        inner_class: str = "pointwise",
        nested: bool = False,
        diagnose: bool = True,
        backend: str = "serial",
    ) -> None:
        ensure(
            isinstance(problem, BilevelProblem),
            "OBiGrad takes a problem",
            expected="a BilevelProblem",
            got=type(problem).__name__,
            next_step="Wrap the two losses: BilevelProblem(inner_loss, outer_loss).",
        )
        self.problem = problem
        self.learner = learner
        self.estimator = one_of("estimator", estimator, ESTIMATORS)
        self.folds = positive_int("folds", folds, minimum=2) if isinstance(folds, int | np.integer) else folds
        self.repeats = positive_int("repeats", repeats)
        check_rng(rng)
        self.rng = rng
        self.residual = one_of("residual", residual, ("direct", "separate"))
        self.inner_class = one_of("inner_class", inner_class, ("pointwise", "restricted"))
        self.nested = nested
        self.diagnose = diagnose
        self.backend = backend
        self.repeats_: list[Repeat] = []

    def fit(
        self,
        X: Any,
        Z: Mapping[str, Any],
        *,
        outer: Mapping[str, Any] | None = None,
        groups: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        external_predictions: Mapping[str, Any] | None = None,
    ) -> OBiGrad:
        """Check the data, draw the folds and fit what does not depend on w.

        Args:
            X: (n, p) covariates of the inner regressions (instruments, states, features): array or frame.
            Z: Columns that the losses name, each (n,) or (n, k).
            outer: The outer sample, where it is another one: a dict with "X", the columns that the outer loss
                names, and optionally "weights" and "groups". Needs the learner `SieveRidge`.
            groups: (n,) cluster of each row: clusters stay within a fold and are the independent units.
            weights: (n,) positive row weights.
            external_predictions: Out-of-fold predictions by nuisance, in place of a fit: arrays, or
                functions of (w, X).

        Returns:
            This object.

        Raises:
            InputError: Shapes, NaN, covariates that do not vary, fewer clusters than folds, singular systems.
        """
        sample = check_sample(X, Z, weights=weights, groups=groups)
        outer_sample = None if outer is None else check_outer_sample(outer)
        external = External(external_predictions, sample.X)
        # A Generator gives one draw for the learners where they need one; its folds come after.
        seed = seed_of(self.rng) if self.nested or draws(self.learner) else check_rng(self.rng)
        self._setup = Setup(
            problem=self.problem,
            sample=sample,
            outer=outer_sample,
            learner=self.learner,
            learners=learners_by_nuisance(self.learner, seed=seed),
            external=external,
            folds=self.folds,
            generator=as_generator(self.rng),
            seed=seed,
            estimator=self.estimator,
            repeats=self.repeats,
            residual=self.residual,
            inner_class=self.inner_class,
            nested=self.nested,
            diagnose=self.diagnose,
            backend=self.backend,
        )
        self.repeats_ = build_repeats(self._setup)
        self._cache: tuple[bytes, list[Evaluation]] | None = None
        return self

    def hypergradient(self, w: ArrayLike) -> HypergradientEstimate:
        """Return the estimate of grad F(w) with its covariance.

        Args:
            w: (d,) outer parameters.

        Raises:
            InputError: w is not finite or has another length; a user's derivative disagrees with finite
                differences; an inner solve met non-positive curvature.
        """
        at = _vector("w", w)
        evaluations = self._evaluate(at)
        mean, number = self._combined(evaluations)
        plugin, _ = median_of_repeats([e.mean(e.plugin) for e in evaluations])
        repeat = self.repeats_[number]
        diagnostics, warnings = diagnose(self._setup, at, evaluations, repeat, mean, number)
        return HypergradientEstimate(
            w=at,
            value=mean.value,
            covariance=mean.covariance,
            plugin=plugin.value,
            scores=np.concatenate(evaluations[number].scores_of(self.estimator)),
            n=mean.n,
            estimator=self.estimator,
            diagnostics=diagnostics,
            warnings=warnings,
        )

    def objective(self, w: ArrayLike, *, level: float = 0.95) -> Estimate:
        """Return the debiased objective F(w) = mean of l_out + a' d_v l_in, with its interval.

        With `estimator="plugin"` the mean of l_out at the fitted inner solution.
        """
        means, plugin = [], self.estimator == "plugin"
        for evaluation in self._evaluate(_vector("w", w)):
            columns = evaluation.plugin_objective if plugin else evaluation.objective
            ensure(
                columns is not None and all(np.isfinite(column).all() for column in columns),
                "the objective needs an adjoint and an inner solution",
                expected='estimator="obigrad", or an oracle that is given h',
                got=f"estimator={self.estimator!r}, without them",
                next_step="Fit OBiGrad with its default estimator.",
            )
            means.append(evaluation.mean([column[:, None] for column in columns or ()]))
        mean, _ = median_of_repeats(means)
        return Estimate.from_stderr(
            float(mean.value[0]),
            float(np.sqrt(mean.covariance[0, 0])),
            n=mean.n,
            level=level,
            method="plug-in" if plugin else "debiased",
        )

    def solve(
        self,
        w0: ArrayLike | None = None,
        *,
        method: str = "newton",
        stop: str | float = "statistical",
        max_steps: int = 100,
    ) -> Solution:
        """Find the w where the hypergradient is zero, with its sandwich covariance.

        Args:
            w0: (d,) start; None is zero where the problem fixes the length of w.
            method: "newton" (one exact step where the estimate is affine in w), "gd" (step 1 / L), or "lbfgs"
                on the debiased objective.
            stop: "statistical": gradient' covariance^-1 gradient below the chi-squared quantile of 95 %,
                then one Newton step; for Newton, a step below a tenth of a standard error. A number: the
                largest absolute entry of the gradient.
            max_steps: Most steps.

        Returns:
            The root; `converged` tells whether it met the rule.
        """
        chosen = one_of("method", method, METHODS)
        rule = stop if isinstance(stop, int | float) else one_of("stop", stop, ("statistical",))
        most, start = positive_int("max_steps", max_steps), self._start(w0)
        if chosen == "newton" and all(repeat.exact_slope for repeat in self.repeats_):
            evaluations = self._evaluate(start)
            at_start = [e.mean(e.scores_of(self.estimator)) for e in evaluations]
            slopes = self._exact_slopes(evaluations)
            estimates = [partial(_mean_at, repeat, self.estimator) for repeat in self.repeats_]
            root, S, covariance = closed_form(start, at_start, slopes, estimates)
            chosen = "closed form"
        else:
            root = METHODS[chosen](self._gradient(), start, rule, most)
            S = self._slope(root.w) if root.slope is None else root.slope
            covariance = sandwich(S, self._estimate(root.w).covariance)
        gradient = self.hypergradient(root.w)
        warnings = (*gradient.warnings, *root_warnings(gradient.diagnostics), *self._cautions(root, S))
        return Solution(
            root.w, covariance, S, gradient, root.trace, root.converged, chosen, root.reason, warnings
        )

    def _start(self, w0: ArrayLike | None) -> Floats:
        self._check_fitted()
        setup, problem = self._setup, self.problem
        # A root needs nuisances at every w; arrays are those of one w alone.
        constant = ("jacobian", "outcome") if problem.is_affine else ("outcome",)
        for name, prediction in setup.external.given.items():
            ensure(
                name in constant or callable(prediction),
                f"external prediction of {name!r} moves with w",
                expected="a function of (w, X), because a solver visits many w",
                got="an array",
                next_step="Pass the function; for squared losses, jacobian and outcome may be arrays.",
            )
        if w0 is not None:
            return _vector("w0", w0)
        target = getattr(problem.inner_loss, "target", None)
        if not isinstance(target, AffineTarget):
            raise InputError(
                "a solver starts somewhere",
                expected="w0, the start",
                got="None, and a problem that does not fix the length of w",
                next_step="Pass w0=np.zeros(d).",
            )
        return np.zeros(target.parts(setup.sample.rows)[1].shape[1])

    def _cautions(self, root: Root, S: Floats) -> Iterator[str]:
        """Yield what concerns a root and its slope alone."""
        if not self.problem.is_affine and is_rough(self._setup.learners):
            yield (
                "fits of a nuisance learner jump with w: the root's standard error rests on a wide "
                "difference and is rough; compare with a smooth learner such as SieveRidge"
            )
        if np.linalg.eigvalsh((S + S.T) / 2.0)[0] < 0:
            yield (
                "the Jacobian of the hypergradient is indefinite: the root may be no minimum; use stronger "
                "instruments or more rows"
            )
        if not root.converged:
            yield f"the solver did not meet its rule ({root.reason}): raise max_steps or change method"

    def _check_fitted(self) -> None:
        ensure(
            bool(self.repeats_),
            "data come first",
            expected="fit before hypergradient, objective or solve",
            got="an OBiGrad that was not fitted",
            next_step="Call fit(X, Z).",
        )

    def _evaluate(self, w: Floats) -> list[Evaluation]:
        self._check_fitted()
        key = w.tobytes()
        if self._cache is None or self._cache[0] != key:
            self._cache = key, [repeat.at(w) for repeat in self.repeats_]
        return self._cache[1]

    def _combined(self, evaluations: list[Evaluation]) -> tuple[Mean, int]:
        return median_of_repeats([e.mean(e.scores_of(self.estimator)) for e in evaluations])

    def _gradient(self) -> Gradient:
        """Return the estimate, its slope and the objective as functions of w, without diagnostics."""
        return Gradient(self._estimate, self._slope, lambda w: self.objective(w).value)

    def _estimate(self, w: Floats) -> Mean:
        return self._combined(self._evaluate(w))[0]

    def _exact_slopes(self, evaluations: list[Evaluation]) -> list[Floats]:
        """Return the Jacobians in w of the repeats' estimates that have one in closed form."""
        slopes = [_exact_slope(self._setup, evaluation) for evaluation in evaluations]
        return [S for S in slopes if S is not None]

    def _slope(self, w: Floats) -> Floats:
        """Return the Jacobian of the estimate in w: in closed form or by differences."""
        evaluations = self._evaluate(w)
        slopes = self._exact_slopes(evaluations)
        if len(slopes) == len(evaluations):
            return np.asarray(np.mean(slopes, axis=0))
        return difference_slope(self._estimate, w, rough=is_rough(self._setup.learners))


def _vector(name: str, value: ArrayLike) -> Floats:
    return finite_array(name, np.atleast_1d(np.asarray(value, dtype=np.float64)), ndim=1)


def _mean_at(repeat: Repeat, estimator: str, w: Floats) -> Mean:
    evaluation = repeat.at(w)
    return evaluation.mean(evaluation.scores_of(estimator))


def _exact_slope(setup: Setup, evaluation: Evaluation) -> Floats | None:
    """Return the Jacobian of one repeat's estimate in w, where it has a closed form."""
    if not setup.problem.is_affine:
        return None
    fit = evaluation.fitted.get("jacobian")
    if fit is None or setup.estimator not in ("plugin", "adjoint_instrument"):
        return evaluation.slope
    weighted = setup.sample.weighted(fit.prediction)
    moved = fit.prediction if setup.estimator == "plugin" else fit.response
    return np.asarray(weighted.T @ moved / len(weighted))


def build_repeats(setup: Setup) -> list[Repeat]:
    """Return one evaluator per draw of folds, with everything fitted that is free of w."""
    _check_settings(setup)
    rng = setup.generator
    if setup.estimator == "kbo":
        _check_external(setup, ())
        return [KernelRepeat(setup, rng) for _ in range(setup.repeats if setup.outer is None else 1)]
    if setup.is_restricted:
        _check_restricted(setup)
    elif setup.is_quadratic:
        _check_external(setup, ("jacobian", "h", "residual", "outcome"))
        if setup.estimator == "oracle":
            return [QuadraticRepeat(setup, None)]
        sample = setup.sample
        draws = (fold_codes(setup.folds, sample.n, rng, sample.clusters) for _ in range(setup.repeats))
        return [QuadraticRepeat(setup, codes) for codes in draws]
    else:
        _check_external(setup, GENERAL_NAMES)
    return general_repeats(setup, rng)


def _check_external(setup: Setup, read: tuple[str, ...]) -> None:
    """Refuse predictions that this problem would never look at."""
    for name in setup.external.given:
        ensure(
            name in read,
            f"external prediction of {name!r} is of use here",
            expected=" | ".join(read) or f"none with estimator={setup.estimator!r}",
            got=repr(name),
            next_step="Drop it: the score of this problem has no such nuisance.",
        )


def _check_settings(setup: Setup) -> None:
    """Refuse settings that the evaluator of this problem would not look at."""
    problem, estimator, squared = setup.problem, setup.estimator, setup.is_quadratic
    ensure(
        estimator != "adjoint_instrument" or (setup.is_scalar and setup.outer is None),
        'estimator="adjoint_instrument" is one of squared losses',
        expected="Squared inner and outer losses of one sample, with one value per row",
        got=lambda: (
            f"{type(problem.inner_loss).__name__} and {type(problem.outer_loss).__name__}, "
            f"{problem.outputs(setup.sample.rows)} value(s) per row, "
            f"{1 if setup.outer is None else 2} sample(s)"
        ),
        next_step='Use estimator="obigrad".',
    )
    fits_folds = estimator not in ("kbo", "oracle") and not setup.is_restricted
    rules = {
        'inner_class="restricted"': (
            not setup.is_restricted or estimator in ("obigrad", "plugin"),
            'estimator="obigrad" or "plugin"',
            'Use inner_class="pointwise".',
        ),
        "nested=True": (
            not setup.nested or (fits_folds and not squared),
            "a general inner or outer loss, whose nuisances are fitted at one another",
            "Drop nested: nothing here is fitted at in-sample values of h.",
        ),
        'residual="separate"': (
            setup.residual != "separate" or (fits_folds and squared),
            "two squared losses of one sample, with nuisances to fit",
            "Drop residual: this problem has no residual nuisance to fit.",
        ),
    }
    for setting, (has_effect, reach, remedy) in rules.items():
        ensure(
            has_effect,
            f"{setting} has an effect",
            expected=reach,
            got=f"estimator={estimator!r}, inner_class={setup.inner_class!r}, "
            f"{'squared' if squared else 'general'} losses",
            next_step=remedy,
        )


def _check_restricted(setup: Setup) -> None:
    sieve = isinstance(setup.learner, SieveRidge)
    ensure(
        sieve and not is_tuned(setup.learner),
        'inner_class="restricted" takes the penalized sieve itself as the target',
        expected="one learner=SieveRidge(basis, penalty=number)",
        got="a tuned penalty" if sieve else type(setup.learner).__name__,
        next_step="Fix the penalty: tuning it would change the target.",
    )
    ensure(
        not setup.external,
        'inner_class="restricted" fits in sample',
        expected="no external_predictions",
        got=", ".join(setup.external.given),
        next_step='Drop them, or use inner_class="pointwise".',
    )
