"""`FittedBellman`: the value of a policy by a fitted Bellman equation, with standard errors."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from metier.bilevel.arrays import Floats
from metier.bilevel.estimate import HypergradientEstimate, Solution
from metier.bilevel.loss_families import Squared
from metier.bilevel.obigrad import OBiGrad
from metier.bilevel.setup import BilevelProblem
from metier.bilevel.targets import AffineTarget
from metier.core.checks import ensure, finite_array, one_of
from metier.core.estimate import Estimate

from .columns import role_columns
from .tables import CoefficientTable, layout


class FittedBellman:
    r"""Linear value functions from transitions, without a second sample of the next state.

    The inner regression is h_w(s, a) = E[R + discount phi'w | s, a], the Bellman backup. Two outer losses:

    - with `features` psi(s, a) of the value itself, Q = psi'w: E[(h_w - psi'w)^2] / 2, the Bellman residual.
      Its plain sample version is biased by the noise of the transition (the double-sampling problem); here
      the backup is regressed, and what the regression gets wrong is corrected to first order;
    - with an `outcome` Y, an observed return: E[(Y - h_w)^2] / 2.

    Args:
        discount: in [0, 1).
        learner: regression on states and actions, as in `OBiGrad`; None for its default.
        estimator: "obigrad", "plugin" or "adjoint_instrument".
        folds, repeats: of cross-fitting.
        rng: seed of the folds.

    Attributes:
        coef_: (d,) weights w of the features.
        stderr_, covariance_: their standard errors (d,) and covariance (d, d).
        feature_names_: d names.
        warnings_: sentences, each with what to do.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> s = rng.normal(size=(2000, 1)); after = 0.5 * s + rng.normal(size=(2000, 1))
        >>> bellman = FittedBellman(discount=0.8, rng=0).fit(s, s[:, 0], after, features=s)
        >>> abs(bellman.coef_[0] - 1 / (1 - 0.8 * 0.5)) < 4 * bellman.stderr_[0]
        np.True_

    Source: with an outcome the paper's fitted Bellman experiments; the residual form is ours.
    """

    def __init__(
        self,
        *,
        discount: float,
        learner: Any = None,
        estimator: str = "obigrad",
        folds: int = 5,
        repeats: int = 1,
        rng: int | np.random.Generator = 0,
    ) -> None:
        ensure(
            0.0 <= discount < 1.0,
            "discount is in [0, 1)",
            expected="a factor per step below 1",
            got=repr(discount),
            next_step="Pass for example discount=0.95.",
        )
        self.discount = discount
        self.learner = learner
        self.estimator = one_of("estimator", estimator, ("obigrad", "plugin", "adjoint_instrument"))
        self.folds = folds
        self.repeats = repeats
        self.rng = rng

    def fit(
        self,
        X: Any,
        reward: Any,
        next_features: Any,
        *,
        features: Any = None,
        outcome: Any = None,
        weights: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit to transitions; name exactly one of `features` and `outcome`.

        Args:
            X: (n, p) state and action of each transition: what the backup is regressed on.
            reward: (n,).
            next_features: (n, d) phi(S'), averaged over the policy's next action where it matters; zero where
                the episode ended.
            features: (n, d) psi(s, a), the value's features now: the Bellman residual.
            outcome: (n,) observed returns: the paper's loss.
            weights: (n,) positive, or None.
            groups: (n,) episode of each transition, or None for independent ones.

        Raises:
            InputError: both or none of `features` and `outcome`, or shapes that do not fit.
        """
        ensure(
            (features is None) != (outcome is None),
            "a Bellman equation is judged by one thing",
            expected="either features= (the residual) or outcome= (observed returns)",
            got="both" if features is not None else "neither",
            next_step="Pass one of them.",
        )
        n = np.shape(X)[0] if np.ndim(X) else 0
        after = role_columns("next features", next_features, prefix="w")
        for name, values in (("reward", reward), ("next_features", after.values), ("outcome", outcome)):
            ensure(
                values is None or np.shape(values)[:1] == (n,),
                f"{name} has one entry per transition",
                expected=f"{n} rows, as X has",
                got=f"shape {np.shape(values)}",
                next_step="Pass data of the same transitions, in the same order.",
            )
        finite_array("next_features", after.values)
        slope, returns = self.discount * after.values, np.zeros(len(after.values))
        if features is not None:
            now = role_columns("features", features, prefix="w")
            ensure(
                now.values.shape == slope.shape,
                "features now and next are the same functions",
                expected=f"shape {slope.shape}, as next_features",
                got=f"{now.values.shape}",
                next_step="Evaluate the same features at both.",
            )
            slope = slope - now.values
        else:
            returns = finite_array("outcome", outcome, ndim=1)
        self.feature_names_ = after.names
        problem = BilevelProblem(Squared(AffineTarget("reward", "slope")), Squared("y"))
        self._engine = OBiGrad(
            problem,
            learner=self.learner,
            estimator=self.estimator,
            folds=self.folds,
            repeats=self.repeats,
            rng=self.rng,
        ).fit(
            X,
            {"reward": finite_array("reward", reward, ndim=1), "slope": slope, "y": returns},
            weights=weights,
            groups=groups,
        )
        self.solution_: Solution = self._engine.solve(np.zeros(slope.shape[1]))
        self.coef_, self.covariance_ = self.solution_.w, self.solution_.covariance
        return self

    @property
    def stderr_(self) -> Floats:
        """Standard errors, (d,)."""
        return self.solution_.stderr

    @property
    def warnings_(self) -> tuple[str, ...]:
        """What to know before trusting the numbers."""
        return self.solution_.warnings

    def interval(self, level: float = 0.95) -> Floats:
        """Return Wald intervals, (d, 2)."""
        return self.solution_.interval(level)

    def hypergradient(self, w: ArrayLike) -> HypergradientEstimate:
        """Return the gradient of the outer loss at w with its covariance."""
        return self._engine.hypergradient(w)

    def value(self, features: ArrayLike, *, level: float = 0.95) -> Estimate:
        """Return the value features'w of one state, or of a mean of states, with its interval.

        Args:
            features: (d,) features, for example their mean over starting states.
            level: coverage aimed at.
        """
        psi = finite_array("features", features, ndim=1)
        ensure(
            len(psi) == len(self.coef_),
            "features of a state have one entry per weight",
            expected=f"{len(self.coef_)} entries",
            got=f"{len(psi)}",
            next_step="Evaluate the same features there.",
        )
        return Estimate.from_stderr(
            float(psi @ self.coef_),
            float(np.sqrt(psi @ self.covariance_ @ psi)),
            n=self.solution_.gradient.n,
            level=level,
            method="orthogonal score",
        )

    def summary(self, level: float = 0.95) -> str:
        """Return the coefficients and warnings as text."""
        n = self.solution_.gradient.n
        facts = [("discount", f"{self.discount:g}"), ("data", f"{n} units; estimator {self.estimator}")]
        table = CoefficientTable(self.feature_names_, self.coef_, self.stderr_, level)
        return layout("Fitted Bellman equation, orthogonal score", facts, [table.lines()], self.warnings_)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values."""
        return {"discount": self.discount, "features": list(self.feature_names_), **self.solution_.to_dict()}
