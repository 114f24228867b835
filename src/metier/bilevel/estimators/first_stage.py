"""The first stage: how much the instruments move each feature of the treatment, given the controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metier.bilevel.arrays import Floats

from .moments import Moments, outer_sum, solve

WORST_BIAS = 0.10
"""Share of the worst-case bias that the effective F is held against."""


@dataclass(frozen=True, slots=True)
class FirstStageRow:
    """Strength of the instruments for one feature.

    Attributes:
        name: the feature.
        partial_r2: share of its variance, given the controls, that the instruments explain in sample.
        f: classical F of the excluded instruments.
        f_robust: Wald F by the heteroskedasticity or cluster robust covariance.
        f_effective: effective F; NaN with several features.
        f_critical: its 5 % critical value for a bias of at most 10 % of the worst case; NaN likewise.
        f_conditional: Sanderson-Windmeijer conditional F; NaN with one feature.
    """

    name: str
    partial_r2: float
    f: float
    f_robust: float
    f_effective: float
    f_critical: float
    f_conditional: float

    @property
    def is_weak(self) -> bool:
        """Whether the strength fails its threshold: the critical value, or 10 for the conditional F."""
        if not math.isnan(self.f_effective):
            return self.f_effective < self.f_critical
        return not self.f_conditional >= 10.0


@dataclass(frozen=True, slots=True)
class FirstStage:
    """The first-stage table: a row per feature.

    Attributes:
        rows: one per feature of the treatment.
        n_instruments: excluded instruments.
        n_units: independent rows or clusters.
    """

    rows: tuple[FirstStageRow, ...]
    n_instruments: int
    n_units: int

    @property
    def weak(self) -> tuple[str, ...]:
        """Features for which the instruments are weak."""
        return tuple(row.name for row in self.rows if row.is_weak)

    def summary(self) -> str:
        """Return the table as text."""
        width = max(12, *(len(row.name) for row in self.rows))
        several = len(self.rows) > 1
        last = ("cond. F", "") if several else ("effective F", "needed")
        head = f"{'':<{width}}{'partial R2':>12}{'F':>12}{'robust F':>12}{last[0]:>14}{last[1]:>10}"
        lines = [head]
        for row in self.rows:
            end = (
                f"{row.f_conditional:>14.2f}"
                if several
                else f"{row.f_effective:>14.2f}{row.f_critical:>10.2f}"
            )
            lines.append(
                f"{row.name:<{width}}{row.partial_r2:>12.4f}{row.f:>12.2f}{row.f_robust:>12.2f}{end}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values; NaN and infinity become None."""
        keys = (
            "name",
            "partial_r2",
            "f",
            "f_robust",
            "f_effective",
            "f_critical",
            "f_conditional",
            "is_weak",
        )
        rows = [{key: _plain(getattr(row, key)) for key in keys} for row in self.rows]
        return {"rows": rows, "n_instruments": self.n_instruments, "n_units": self.n_units}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def first_stage(m: Moments, names: Sequence[str]) -> FirstStage:
    r"""Regress each residualized feature on the residualized instruments.

    With Q = Z'Z, pi the coefficients and V their robust covariance, the effective F is
    pi'Q pi / tr(V Q). Its critical value is the 95 % quantile of a noncentral chi-squared by Patnaik's
    approximation, at noncentrality 1 / tau, tau = 0.10.

    Args:
        m: residualized data.
        names: of the features.

    Source: Montiel Olea and Pflueger (2013), A robust test for weak instruments, JBES 31 (effective F and the
        simplified critical value); Sanderson and Windmeijer (2016), A weak instrument F-test in linear IV
        models with multiple endogenous variables, J. Econometrics 190 (conditional F).
    """
    d, k = m.t.shape[1], m.z.shape[1]
    rows = []
    for j, name in enumerate(names):
        strength = _strength(m, m.t[:, j])
        conditional = math.nan
        if d > 1 and k >= d:
            conditional = _conditional_f(m, j)
        effective, critical = (strength.effective, strength.critical) if d == 1 else (math.nan, math.nan)
        rows.append(
            FirstStageRow(
                name, strength.partial_r2, strength.f, strength.robust, effective, critical, conditional
            )
        )
    return FirstStage(tuple(rows), k, m.n_units)


@dataclass(frozen=True, slots=True)
class _Strength:
    partial_r2: float
    f: float
    robust: float
    effective: float
    critical: float


def _strength(m: Moments, t: Floats) -> _Strength:
    n, k = m.z.shape
    zw = m.z * m.weights[:, None]
    q = zw.T @ m.z
    pi = solve(q, zw.T @ t, "the instruments are linearly dependent, given the controls")
    residual = t - m.z @ pi
    explained = float(pi @ q @ pi)
    unexplained = float(np.sum(m.weights * residual**2))
    dof = max(n - k - m.n_controls, 1)
    # Q^-1 S Q^-1 with the HC1 factor for independent rows; clusters have theirs in `outer_sum`.
    factor = 1.0 if m.groups is not None else (n - 1.0) / dof
    meat = factor * outer_sum(zw * residual[:, None], m)
    v: Floats = np.asarray(np.linalg.solve(q, np.linalg.solve(q, meat).T), dtype=np.float64)
    root = np.linalg.cholesky(q)
    w2 = root.T @ v @ root
    return _Strength(
        partial_r2=explained / (explained + unexplained),
        f=_ratio(explained / k, unexplained / dof),
        robust=_wald(pi, v) / k,
        effective=_ratio(explained, float(np.trace(w2))),
        critical=critical_effective_f(w2),
    )


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else math.inf


def _wald(pi: Floats, v: Floats) -> float:
    try:
        return float(pi @ np.linalg.solve(v, pi))
    except np.linalg.LinAlgError:
        return math.inf


def critical_effective_f(w2: Floats, *, tau: float = WORST_BIAS, alpha: float = 0.05) -> float:
    """Simplified critical value of the effective F for two-stage least squares.

    Args:
        w2: (k, k) covariance of the first-stage coefficients in orthonormal instruments.
        tau: largest tolerated share of the worst-case bias.
        alpha: level of the test that the bias is larger.

    Example:
        >>> round(critical_effective_f(np.eye(1)), 1), round(critical_effective_f(np.eye(1), tau=0.05), 1)
        (23.1, 37.4)
    """
    from scipy.special import chndtrix

    x = 1.0 / tau
    trace = float(np.trace(w2))
    if trace <= 0:
        return math.nan
    largest = float(np.linalg.eigvalsh(w2)[-1])
    dof = trace**2 * (1.0 + 2.0 * x) / (float(np.sum(w2 * w2)) + 2.0 * x * trace * largest)
    return float(chndtrix(1.0 - alpha, dof, x * dof)) / dof


def _conditional_f(m: Moments, j: int) -> float:
    others = np.delete(m.t, j, axis=1)
    zw = m.z * m.weights[:, None]
    q = zw.T @ m.z
    fitted = m.z @ np.linalg.solve(q, zw.T @ others)
    fw = fitted * m.weights[:, None]
    try:
        delta = np.linalg.solve(fw.T @ others, fw.T @ m.t[:, j])
    except np.linalg.LinAlgError:
        return 0.0
    rest = m.t[:, j] - others @ delta
    pi = np.linalg.solve(q, zw.T @ rest)
    residual = rest - m.z @ pi
    spare = m.z.shape[1] - others.shape[1]
    dof = max(len(rest) - m.z.shape[1] - m.n_controls, 1)
    return _ratio(float(pi @ q @ pi) / spare, float(np.sum(m.weights * residual**2)) / dof)
