"""One repeat's rows at one w: what every estimator averages, and what diagnostics look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from .arrays import Floats
from .crossfit import Codes, Mean, mean_of_scores
from .sample import Sample


@dataclass(frozen=True, slots=True)
class Fitted:
    """A nuisance's response and out-of-fold prediction, (n, m), with the weight of its risk, (n,) or None."""

    response: Floats
    prediction: Floats
    weight: Floats | None = None

    def r2(self) -> float:
        """Return the worst output's out-of-fold R^2; NaN where no response varies."""
        om = np.ones(len(self.response)) if self.weight is None else self.weight
        center = om @ self.response / om.sum()
        total = om @ (self.response - center) ** 2
        error = om @ (self.response - self.prediction) ** 2
        varies = total > 1e-24 * (1.0 + om @ self.response**2)
        return float((1.0 - error[varies] / total[varies]).min()) if varies.any() else float("nan")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of one repeat at one w, one array per sample (one, or inner and outer).

    Attributes:
        samples: The samples the arrays belong to.
        orthogonal: (n_s, d) per sample, whose means add up to the OBiGrad estimate.
        plugin: The same for the plug-in.
        objective: (n_s,) per sample, whose means add up to the debiased objective.
        plugin_objective: The same for the outer loss at the fitted inner solution.
        instrument: Scores of the adjoint-as-instrument estimate, where it exists.
        slope: (d, d) Jacobian of the estimate in w, where it is known in closed form.
        fitted: Nuisances by name.
        slopes: Per nuisance (n, d) rows whose mean is the derivative of the estimate along a fitted nuisance.
        errors: Products that bias the estimate, each as (left (n, d), right (n,), curvature (n,), fits (n,
            m)): risk gradients of two nuisances, whose conditional means are the curvature times their
            errors.
        min_curvature: Least fitted curvature over its mean.
        floored: Rows at the curvature's floor.
        flat: Rows without curvature that a tuned penalty met.
    """

    samples: tuple[Sample, ...]
    orthogonal: tuple[Floats, ...]
    plugin: tuple[Floats, ...]
    objective: tuple[Floats, ...] | None = None
    plugin_objective: tuple[Floats, ...] | None = None
    instrument: tuple[Floats, ...] | None = None
    slope: Floats | None = None
    fitted: dict[str, Fitted] = field(default_factory=dict)
    slopes: dict[str, Floats] = field(default_factory=dict)
    errors: tuple[tuple[Floats, Floats, Floats, Floats], ...] = ()
    min_curvature: float = float("nan")
    floored: int = 0
    flat: int = 0

    def mean(self, scores: Sequence[Floats]) -> Mean:
        """Return the sum over samples of the weighted means; covariances of independent samples add up."""
        means = [
            mean_of_scores(one, sample.weights, sample.clusters)
            for one, sample in zip(scores, self.samples, strict=True)
        ]
        if len(means) == 1:
            return means[0]
        value = np.sum([m.value for m in means], axis=0)
        covariance = np.sum([m.covariance for m in means], axis=0)
        return Mean(value, covariance, sum(m.n for m in means))


class Repeat(Protocol):
    """Nuisances of one draw of folds; evaluated at any w."""

    codes: Codes | None
    exact_slope: bool
    """Whether the estimate is affine in w with the evaluation's slope."""

    def at(self, w: Floats, *, with_objective: bool = False) -> Evaluation:
        """Return scores at w."""
        ...
