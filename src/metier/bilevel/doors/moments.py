"""Linear moments of residualized data: two-stage least squares, sandwich sums, over-identification."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.bilevel.crossfit import cluster_sums
from metier.core.errors import InputError

Floats = NDArray[np.float64]


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
