"""The front object: fit the nuisances once, ask for gradients, objectives and roots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metier.core.checks import finite_array, label_codes, one_of, positive_int
from metier.core.errors import InputError
from metier.core.estimate import Estimate
from metier.core.rng import as_generator, check_rng, seed_of

from .arrays import Floats
from .crossfit import Codes, Mean, draw_folds, median_of_repeats
from .estimate import HypergradientEstimate, Solution
from .evaluation import Evaluation, Repeat
from .problem import BilevelProblem
from .sample import Sample, check_sample
from .settings import External, draws, learners_by_nuisance

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
        if not isinstance(problem, BilevelProblem):
            raise InputError(
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
        from .build import build_repeats

        self.sample_ = check_sample(X, Z, weights=weights, groups=groups)
        self.outer_ = None if outer is None else _outer_sample(outer)
        self.external_ = External(external_predictions, self.sample_.X)
        # A Generator gives one draw for the learners where they need one; its folds come after.
        self.seed_ = seed_of(self.rng) if self.nested or draws(self.learner) else check_rng(self.rng)
        self.learners_ = learners_by_nuisance(self.learner, seed=self.seed_)
        self.repeats_ = build_repeats(self)
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
        from .diagnostics import diagnose

        at = finite_array("w", np.atleast_1d(np.asarray(w, dtype=np.float64)), ndim=1)
        evaluations = self._evaluate(at)
        mean, kept, plugin = self._combined(evaluations)
        diagnostics, warnings = diagnose(self, at, evaluations, mean, kept)
        return HypergradientEstimate(
            w=at,
            value=mean.value,
            covariance=mean.covariance,
            plugin=plugin.value,
            scores=np.concatenate(self._scores(evaluations[kept])),
            n=mean.n,
            estimator=self.estimator,
            diagnostics=diagnostics,
            warnings=warnings,
        )

    def objective(self, w: ArrayLike, *, level: float = 0.95) -> Estimate:
        """Return the debiased objective F(w) = mean of l_out + a' d_v l_in, with its interval.

        With `estimator="plugin"` the mean of l_out at the fitted inner solution.
        """
        at = finite_array("w", np.atleast_1d(np.asarray(w, dtype=np.float64)), ndim=1)
        means = []
        plugin = self.estimator == "plugin"
        for evaluation in self._evaluate(at):
            columns = evaluation.plugin_objective if plugin else evaluation.objective
            if columns is None or not all(np.isfinite(column).all() for column in columns):
                raise InputError(
                    "the objective needs an adjoint and an inner solution",
                    expected='estimator="obigrad", or an oracle that is given h',
                    got=f"estimator={self.estimator!r}, without them",
                    next_step="Fit OBiGrad with its default estimator.",
                )
            means.append(evaluation.mean([column[:, None] for column in columns]))
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
            w0: (d,) start; None is zero where the problem says how long w is.
            method: "newton" (one exact step where the estimate is affine in w), "gd" (step 1 / L), or "lbfgs"
                on the debiased objective.
            stop: "statistical": gradient' covariance^-1 gradient below the chi-squared quantile of 95 %,
                then one Newton step; for Newton, a step below a tenth of a standard error. A number: the
                largest absolute entry of the gradient.
            max_steps: Most steps.

        Returns:
            The root; `converged` says whether the rule was met.
        """
        from .solve import solve

        return solve(self, w0, method=method, stop=stop, max_steps=max_steps)

    def _evaluate(self, w: Floats) -> list[Evaluation]:
        if not self.repeats_:
            raise InputError(
                "data come first",
                expected="fit before hypergradient, objective or solve",
                got="an OBiGrad that was not fitted",
                next_step="Call fit(X, Z).",
            )
        key = w.tobytes()
        if self._cache is None or self._cache[0] != key:
            self._cache = key, [repeat.at(w) for repeat in self.repeats_]
        return self._cache[1]

    def _scores(self, evaluation: Evaluation) -> tuple[Floats, ...]:
        if self.estimator == "plugin":
            return evaluation.plugin
        if self.estimator == "adjoint_instrument":
            assert evaluation.instrument is not None
            return evaluation.instrument
        return evaluation.orthogonal

    def _combined(self, evaluations: list[Evaluation]) -> tuple[Mean, int, Mean]:
        mean, kept = median_of_repeats([e.mean(self._scores(e)) for e in evaluations])
        plugin, _ = median_of_repeats([e.mean(e.plugin) for e in evaluations])
        return mean, kept, plugin

    def _estimate(self, w: Floats) -> Mean:
        """Return value and covariance at w without diagnostics."""
        return self._combined(self._evaluate(w))[0]


def _outer_sample(outer: Mapping[str, Any]) -> Sample:
    if "X" not in outer:
        raise InputError(
            "the outer sample has covariates",
            expected='a dict with "X" and the columns of the outer loss',
            got=", ".join(map(str, outer)) or "an empty dict",
            next_step='Pass outer={"X": X_outer, "Y": y_outer}.',
        )
    columns = {name: values for name, values in outer.items() if name not in ("X", "weights", "groups")}
    return check_sample(outer["X"], columns, weights=outer.get("weights"), groups=outer.get("groups"))


def fold_codes(folds: Any, sample: Sample, rng: np.random.Generator) -> Codes:
    """Return the fold of every row, drawn or given."""
    if isinstance(folds, int):
        return draw_folds(sample.n, folds, rng, sample.clusters)
    codes, levels = label_codes("folds", folds)
    if codes.size != sample.n or len(levels) < 2:
        raise InputError(
            "given folds name the fold of every row",
            expected=f"{sample.n} labels of at least two folds",
            got=f"{codes.size} labels of {len(levels)} fold(s)",
            next_step="Pass one label per row, or a number of folds.",
        )
    if sample.clusters is not None and len(np.unique(np.stack([sample.clusters, codes]), axis=1).T) != (
        int(sample.clusters.max()) + 1
    ):
        raise InputError(
            "rows of one cluster share a fold",
            expected="one fold per cluster",
            got="a cluster in two folds",
            next_step="Draw the folds by cluster, or pass a number of folds.",
        )
    return codes


def generator_of(model: OBiGrad) -> np.random.Generator:
    """Return the generator of a model's folds."""
    return as_generator(model.rng)
