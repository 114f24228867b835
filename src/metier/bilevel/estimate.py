"""What comes back: a gradient or a root with its covariance, and what it says about itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtri

from metier.core.checks import open_fraction

from .arrays import Floats


def wald_interval(value: Floats, stderr: Floats, level: float) -> Floats:
    """Return value +- normal quantile x stderr as (d, 2)."""
    half = float(ndtri((1.0 + open_fraction("level", level)) / 2.0)) * stderr
    return np.stack([value - half, value + half], axis=1)


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Numbers that say how far an estimate can be trusted; NaN where a number does not apply.

    Attributes:
        r2: Out-of-fold R^2 per nuisance: 1 - squared errors / squares about the mean, the worst output.
        correction_ratio: |correction| / |plug-in| in Euclidean norm.
        correction_z: (d,) correction over the standard error of its own mean.
        product_bias: (d,) bias that products of nuisance errors leave, in standard errors, estimated from
            pairs of rows on a dictionary of features (the fits, powers and products of x); sees what these
            span.
        product_noise: (d,) the standard deviation of that estimate, in standard errors.
        expected_coverage: (d,) of a nominal 95 % interval, with that bias and the noise that comes with it.
        halves_bias: (d,) a quarter of the mean product of the differences between two fits on disjoint
            halves of the training rows, in standard errors; sees the variance of the fits, not a bias that
            both share.
        product_bound: (d,) the same with root mean squares in place of the mean product: an upper bound.
        orthogonality: (d,) z of the slope of the estimate along the fitted nuisances; near 0 for an
            orthogonal score.
        calibration: (d,) slope of d g_w / d w on its out-of-fold fit: 1 where the fit is right, above
            where it is shrunk, below where it follows noise.
        calibration_z: (d,) its distance from 1 in standard errors.
        fold_spread: (d,) standard deviation of the per-fold estimates over that expected from sampling alone.
        repeat_spread: (d,) standard deviation over repeats, over the standard error.
        min_curvature: Least estimated curvature E[K | x] over its mean.
        floored: Rows whose curvature was raised to the floor.
        flat: Rows without curvature that a tuned penalty counted (0 with fixed penalties).
        clusters: Independent clusters; 0 where every row is its own.
        condition: Condition number of S, the Jacobian of the hypergradient in w (quadratic problems).
        least_eigenvalue: Least eigenvalue of S over its largest absolute one.
        first_stage: Effective first-stage F of the fitted Jacobian for d g_w / d w, the weakest direction.
        instrument_contrast: Hausman z of OBiGrad against the adjoint-as-instrument estimate, per coordinate.

    Example:
        >>> Diagnostics().min_curvature
        nan
    """

    r2: dict[str, float] = field(default_factory=dict)
    correction_ratio: float = float("nan")
    correction_z: Floats = field(default_factory=lambda: np.full(1, np.nan))
    product_bias: Floats = field(default_factory=lambda: np.full(1, np.nan))
    product_noise: Floats = field(default_factory=lambda: np.full(1, np.nan))
    halves_bias: Floats = field(default_factory=lambda: np.full(1, np.nan))
    product_bound: Floats = field(default_factory=lambda: np.full(1, np.nan))
    expected_coverage: Floats = field(default_factory=lambda: np.full(1, np.nan))
    orthogonality: Floats = field(default_factory=lambda: np.full(1, np.nan))
    calibration: Floats = field(default_factory=lambda: np.full(1, np.nan))
    calibration_z: Floats = field(default_factory=lambda: np.full(1, np.nan))
    fold_spread: Floats = field(default_factory=lambda: np.full(1, np.nan))
    repeat_spread: Floats = field(default_factory=lambda: np.full(1, np.nan))
    min_curvature: float = float("nan")
    floored: int = 0
    flat: int = 0
    clusters: int = 0
    condition: float = float("nan")
    least_eigenvalue: float = float("nan")
    first_stage: float = float("nan")
    instrument_contrast: Floats = field(default_factory=lambda: np.full(1, np.nan))

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {name: _plain(getattr(self, name)) for name in self.__slots__}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


@dataclass(frozen=True, slots=True)
class HypergradientEstimate:
    """A hypergradient with its covariance.

    Attributes:
        w: (d,) where it was taken.
        value: (d,) the estimate.
        covariance: (d, d) its estimated covariance.
        plugin: (d,) the plug-in estimate from the same nuisances.
        scores: (n, d) the scores whose weighted mean is the estimate (of the repeat that was kept); with two
            samples the inner rows first, then the outer ones.
        n: Independent units: rows, or clusters.
        estimator: Which estimator made it.
        diagnostics: Numbers that say how far to trust it.
        warnings: Sentences, each with what to do; empty where nothing was found.

    Example:
        >>> one = np.ones(1)
        >>> estimate = HypergradientEstimate(one, one, np.eye(1), one, np.ones((4, 1)), 4)
        >>> estimate.stderr.tolist(), estimate.interval(0.95).round(2).tolist()
        ([1.0], [[-0.96, 2.96]])
    """

    w: Floats
    value: Floats
    covariance: Floats
    plugin: Floats
    scores: Floats
    n: int
    estimator: str = "obigrad"
    diagnostics: Diagnostics = field(default_factory=Diagnostics)
    warnings: tuple[str, ...] = ()

    @property
    def stderr(self) -> Floats:
        """Standard errors, (d,)."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    @property
    def correction(self) -> Floats:
        """Estimate minus plug-in, (d,)."""
        return self.value - self.plugin

    def interval(self, level: float = 0.95) -> Floats:
        """Return Wald intervals, (d, 2)."""
        return wald_interval(self.value, self.stderr, level)

    def statistic(self) -> float:
        """Return value' covariance^-1 value: chi-squared, d degrees of freedom, if the gradient is zero."""
        return float(self.value @ np.linalg.lstsq(self.covariance, self.value, rcond=None)[0])

    def summary(self) -> str:
        """Return a table for people, one line per coordinate, then the warnings."""
        lines = [f"{self.estimator} hypergradient, n = {self.n}"]
        for k, (low, high) in enumerate(self.interval()):
            lines.append(
                f"  w[{k}]: {self.value[k]:.4g} (95 % interval {low:.4g} to {high:.4g}, "
                f"standard error {self.stderr[k]:.3g}; plug-in {self.plugin[k]:.4g})"
            )
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values without the scores, ready for JSON."""
        return {
            "estimator": self.estimator,
            "n": self.n,
            "w": self.w.tolist(),
            "value": self.value.tolist(),
            "stderr": self.stderr.tolist(),
            "covariance": self.covariance.tolist(),
            "interval": self.interval().tolist(),
            "plugin": self.plugin.tolist(),
            "correction": self.correction.tolist(),
            "diagnostics": self.diagnostics.to_dict(),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a solver.

    Attributes:
        w: (d,) before the step.
        gradient: (d,) estimate there.
        statistic: gradient' covariance^-1 gradient.
        objective: Debiased objective where the method needs it, else NaN.
        size: Euclidean length of the step taken from here.

    Example:
        >>> Step(np.zeros(1), np.ones(1), 1.0).size
        0.0
    """

    w: Floats
    gradient: Floats
    statistic: float
    objective: float = float("nan")
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class Solution:
    """A root of the hypergradient with its sandwich covariance S^-1 V S^-T.

    Attributes:
        w: (d,) the root.
        covariance: (d, d).
        jacobian: (d, d) S, the Jacobian of the hypergradient in w there.
        gradient: The hypergradient estimate at w.
        trace: Steps of the solver.
        converged: Whether the stopping rule was met.
        method: "closed form", "newton", "gd" or "lbfgs".
        reason: Why it stopped, in one sentence.
        warnings: Those of the gradient, and those about S.

    Example:
        >>> g = HypergradientEstimate(np.zeros(1), np.zeros(1), np.eye(1), np.zeros(1), np.ones((4, 1)), 4)
        >>> Solution(np.zeros(1), np.eye(1), np.eye(1), g, (), True, "newton").interval().round(2).tolist()
        [[-1.96, 1.96]]
    """

    w: Floats
    covariance: Floats
    jacobian: Floats
    gradient: HypergradientEstimate
    trace: tuple[Step, ...]
    converged: bool
    method: str
    reason: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def stderr(self) -> Floats:
        """Standard errors of the root, (d,)."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    def interval(self, level: float = 0.95) -> Floats:
        """Return Wald intervals, (d, 2)."""
        return wald_interval(self.w, self.stderr, level)

    def summary(self) -> str:
        """Return a table for people."""
        lines = [f"root by {self.method} ({self.gradient.estimator}), n = {self.gradient.n}: {self.reason}"]
        for k, (low, high) in enumerate(self.interval()):
            lines.append(
                f"  w[{k}] = {self.w[k]:.5g} (95 % interval {low:.5g} to {high:.5g}, "
                f"standard error {self.stderr[k]:.3g})"
            )
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {
            "method": self.method,
            "converged": self.converged,
            "reason": self.reason,
            "n": self.gradient.n,
            "estimator": self.gradient.estimator,
            "w": self.w.tolist(),
            "stderr": self.stderr.tolist(),
            "covariance": self.covariance.tolist(),
            "interval": self.interval().tolist(),
            "jacobian": self.jacobian.tolist(),
            "gradient": self.gradient.to_dict(),
            "steps": len(self.trace),
            "warnings": list(self.warnings),
        }
