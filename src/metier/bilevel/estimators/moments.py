"""Residualized data: what the controls leave, and the linear moments of the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.bilevel.arrays import Codes, Floats
from metier.bilevel.scores import cluster_sums
from metier.core.errors import InputError

LEFT_OVER = 1e-8
"""Share of a column's variance below which the controls are said to explain all of it."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """Columns less their cross-fitted regression on the controls.

    Attributes:
        values: (n, m) residuals.
        r2: (m,) out-of-fold R squared of the regressions; 0 without controls.
    """

    values: Floats
    r2: Floats


def partial_out(
    targets: Floats,
    controls: Floats | None,
    *,
    weights: Floats,
    folds: Codes,
    fit: Callable[[Floats, Floats, Floats], Callable[[Floats], Floats]],
) -> Residuals:
    """Residuals of targets (n, m) on controls (n, p), each row by the models of the other folds.

    Without controls the weighted mean is taken away, which needs no folds.

    Args:
        targets: (n, m) columns.
        controls: (n, p), or None.
        weights: (n,) of the rows.
        folds: (n,) fold of every row.
        fit: (X, Y, weights) -> function of X; the learner of the controls.
    """
    mean = np.average(targets, axis=0, weights=weights)
    if controls is None:
        return Residuals(targets - mean, np.zeros(targets.shape[1]))
    values = np.empty_like(targets)
    for fold in range(int(folds.max()) + 1):
        test = folds == fold
        predict = fit(controls[~test], targets[~test], weights[~test])
        values[test] = targets[test] - predict(controls[test])
    total = np.average((targets - mean) ** 2, axis=0, weights=weights)
    rest = np.average(values**2, axis=0, weights=weights)
    return Residuals(values, 1.0 - rest / np.where(total > 0, total, 1.0))


def least_squares(controls: Floats, targets: Floats, weights: Floats) -> Callable[[Floats], Floats]:
    """Weighted least squares with an intercept; columns that repeat others share their coefficient."""
    center, scale = np.average(controls, axis=0, weights=weights), controls.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    mean = np.average(targets, axis=0, weights=weights)
    root = np.sqrt(weights)[:, None]
    x = root * (controls - center) / scale
    coef = np.linalg.lstsq(x, root * (targets - mean), rcond=1e-10)[0]
    return lambda new: mean + ((new - center) / scale) @ coef


def refuse_explained(residuals: Residuals, names: tuple[str, ...], role: str) -> None:
    """Refuse columns that the controls explain altogether.

    Raises:
        InputError: naming the columns.
    """
    gone = [name for name, r2 in zip(names, residuals.r2, strict=True) if r2 > 1.0 - LEFT_OVER]
    if gone:
        raise InputError(
            f"the {role} must vary beyond the controls",
            expected="variation that the controls do not explain",
            got=f"{', '.join(map(repr, gone))} explained altogether",
            next_step="Leave it out, or leave out the controls that repeat it.",
        )


@dataclass(frozen=True, slots=True)
class Moments:
    """Residualized outcome, features and instruments of the same rows.

    Attributes:
        y: (n,) outcome less what the controls explain.
        t: (n, d) features of the treatment, likewise.
        z: (n, k) instruments, likewise.
        weights: (n,) with mean 1.
        groups: (n,) cluster codes from 0, or None for independent rows.
        n_controls: columns partialled out, the intercept included, for degrees of freedom.
    """

    y: Floats
    t: Floats
    z: Floats
    weights: Floats
    groups: NDArray[np.int64] | None = None
    n_controls: int = 1

    @property
    def n_units(self) -> int:
        """Independent units: clusters, or rows."""
        return len(self.y) if self.groups is None else int(self.groups.max()) + 1


def unit_sums(scores: Floats, m: Moments) -> Floats:
    """Sum rows of scores (n, m) by cluster; independent rows stay as they are."""
    return scores if m.groups is None else cluster_sums(scores, m.groups)


def outer_sum(scores: Floats, m: Moments) -> Floats:
    """Sum over units of s s', with the usual factor G / (G - 1) for G units."""
    sums = unit_sums(scores, m)
    return m.n_units / (m.n_units - 1.0) * (sums.T @ sums)


@dataclass(frozen=True, slots=True)
class LinearFit:
    """Coefficients with their robust covariance."""

    coef: Floats
    covariance: Floats

    @property
    def stderr(self) -> Floats:
        """Standard errors."""
        return np.sqrt(np.diag(self.covariance))


def two_stage_least_squares(m: Moments) -> LinearFit:
    r"""2SLS on residualized data, (T'P_Z T)^-1 T'P_Z y, with the robust (or cluster robust) sandwich.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> z = rng.normal(size=(500, 1)); t = z + rng.normal(size=(500, 1))
        >>> m = Moments(y=2.0 * t[:, 0], t=t, z=z, weights=np.ones(500))
        >>> two_stage_least_squares(m).coef.round(6).tolist()
        [2.0]
    """
    zw = m.z * m.weights[:, None]
    first = solve(zw.T @ m.z, zw.T @ m.t, "the instruments are linearly dependent")
    fitted = m.z @ first
    bread = (fitted * m.weights[:, None]).T @ m.t
    coef = solve(bread, (fitted * m.weights[:, None]).T @ m.y, "the instruments do not move the treatment")
    error = m.y - m.t @ coef
    meat = outer_sum(fitted * (m.weights * error)[:, None], m)
    half = np.linalg.solve(bread, meat)
    return LinearFit(coef, np.linalg.solve(bread, half.T))


def solve(matrix: Floats, right: Floats, meaning: str) -> Floats:
    """Solve a small symmetric system, or say what its singularity means."""
    scaled, scale = _scaled(matrix)
    if not is_solvable(matrix):
        raise InputError(
            meaning,
            expected="columns that vary separately, given the controls",
            got=f"a system of {len(matrix)} equations with condition number {np.linalg.cond(scaled):.1e}",
            next_step="Leave out columns that repeat others.",
        )
    shape = (-1, *([1] * (right.ndim - 1)))
    return np.linalg.solve(scaled, right / scale.reshape(shape)) / scale.reshape(shape)


def is_solvable(matrix: Floats) -> bool:
    """Whether a small symmetric system is far from singular, whatever the units of its columns."""
    return not np.linalg.cond(_scaled(matrix)[0]) > 1e13


def _scaled(matrix: Floats) -> tuple[Floats, Floats]:
    scale = np.sqrt(np.abs(np.diag(matrix)))
    scale[scale == 0] = 1.0
    return matrix / np.outer(scale, scale), scale


@dataclass(frozen=True, slots=True)
class TestResult:
    """A chi-squared test: statistic, degrees of freedom, p-value, and what it asks."""

    __test__ = False  # pytest must not collect it

    statistic: float
    dof: int
    p_value: float
    question: str

    def summary(self) -> str:
        """Return one line for people."""
        return f"{self.question}: chi2({self.dof}) = {self.statistic:.3f}, p = {self.p_value:.4f}"

    def to_dict(self) -> dict[str, float | int | str]:
        """Return plain Python values."""
        return {
            "statistic": self.statistic,
            "dof": self.dof,
            "p_value": self.p_value,
            "question": self.question,
        }


def chi_squared_test(statistic: float, dof: int, question: str) -> TestResult:
    """Attach the upper tail probability to a statistic."""
    from scipy.special import chdtrc

    return TestResult(float(statistic), dof, float(chdtrc(dof, max(statistic, 0.0))), question)


def over_identification(m: Moments) -> TestResult | None:
    """Hansen's J of two-step GMM: do all instruments agree on one w? None if there is none to spare.

    Source: Hansen (1982), Large sample properties of generalized method of moments estimators.
    """
    spare = m.z.shape[1] - m.t.shape[1]
    if spare <= 0:
        return None
    first = two_stage_least_squares(m).coef
    zw = m.z * m.weights[:, None]
    weight = outer_sum(zw * (m.y - m.t @ first)[:, None], m)
    a, b = zw.T @ m.t, zw.T @ m.y
    ia, ib = np.linalg.solve(weight, a), np.linalg.solve(weight, b)
    coef = np.linalg.solve(a.T @ ia, a.T @ ib)
    gap = b - a @ coef
    return chi_squared_test(
        float(gap @ np.linalg.solve(weight, gap)), spare, "do the instruments agree (Hansen J)"
    )
