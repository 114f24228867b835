"""Inference that stays valid when the instruments are weak: the Anderson-Rubin test and its exact set."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metier.bilevel.arrays import Floats
from metier.core.checks import finite_array, open_fraction
from metier.core.errors import InputError

from .moments import Moments, TestResult, chi_squared_test, two_stage_least_squares, unit_sums


@dataclass(frozen=True, slots=True)
class ConfidenceSet:
    """A set of real numbers: a union of intervals, possibly empty or unbounded.

    Attributes:
        intervals: disjoint, ascending; ends may be infinite.
        level: its coverage, whatever the strength of the instruments.
    """

    intervals: tuple[tuple[float, float], ...]
    level: float

    @property
    def is_bounded(self) -> bool:
        """Whether no end is infinite; an empty set is bounded."""
        return all(math.isfinite(end) for pair in self.intervals for end in pair)

    def contains(self, value: float) -> bool:
        """Whether a value lies in the set."""
        return any(low <= value <= high for low, high in self.intervals)

    def summary(self) -> str:
        """Return the set as text."""
        if not self.intervals:
            return "empty: no value agrees with all instruments"
        if self.intervals == ((-math.inf, math.inf),):
            return "the whole line: the instruments say nothing"
        words = []
        for low, high in self.intervals:
            left = f"[{low:.4g}" if math.isfinite(low) else "(-inf"
            right = f"{high:.4g}]" if math.isfinite(high) else "inf)"
            words.append(f"{left}, {right}")
        return " or ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values; an infinite end is None."""
        ends = [[end if math.isfinite(end) else None for end in pair] for pair in self.intervals]
        return {"intervals": ends, "level": self.level, "bounded": self.is_bounded}


@dataclass(frozen=True, slots=True)
class _Line:
    """Moments g(x) = g0 - x g1 and their variance along the line w = start + x scale."""

    g0: Floats
    g1: Floats
    v00: Floats
    v01: Floats
    v11: Floats

    def statistic(self, x: float) -> float:
        g = self.g0 - x * self.g1
        v = self.v00 - x * (self.v01 + self.v01.T) + x * x * self.v11
        return float(g @ np.linalg.solve(v, g))

    @property
    def limit(self) -> float:
        """The statistic at infinity."""
        return float(self.g1 @ np.linalg.solve(self.v11, self.g1))


def anderson_rubin_test(m: Moments, w: ArrayLike) -> TestResult:
    """Test w by whether y - t'w is uncorrelated with the instruments: valid at any strength.

    Args:
        m: residualized data.
        w: (d,) the hypothesis.

    Source: Anderson and Rubin (1949), in its heteroskedasticity and cluster robust form.
    """
    w = finite_array("w", w).reshape(-1)
    if len(w) != m.t.shape[1]:
        raise InputError(
            "w has one entry per feature of the treatment",
            expected=f"{m.t.shape[1]} entries",
            got=f"{len(w)}",
            next_step="Pass such a vector.",
        )
    scores = m.z * (m.weights * (m.y - m.t @ w))[:, None]
    g, v = scores.sum(axis=0), _variance(scores, scores, m)
    return chi_squared_test(
        float(g @ np.linalg.solve(v, g)), m.z.shape[1], "is w compatible (Anderson-Rubin)"
    )


def anderson_rubin_set(m: Moments, *, level: float = 0.95) -> ConfidenceSet:
    r"""All values of one coefficient that the Anderson-Rubin test does not reject, found exactly.

    With g(x) the instrument moments at x, V(x) their variance (quadratic in x) and c the quantile, its ends
    solve det(c V(x) - g(x) g(x)') = 0: a quadratic eigenvalue problem. No grid is searched, so unbounded and
    disconnected sets come out as they are.

    Args:
        m: residualized data with one feature.
        level: coverage.

    Raises:
        InputError: several features, where the set is a region; use `anderson_rubin_test` at points of it.

    Source: the set of Anderson and Rubin (1949); the eigenvalue form is ours.
    """
    from scipy.special import chdtri

    if m.t.shape[1] != 1:
        raise InputError(
            "an Anderson-Rubin set on the line needs one coefficient",
            expected="one feature of the treatment",
            got=f"{m.t.shape[1]} features",
            next_step="Test single vectors with anderson_rubin(w).",
        )
    critical = float(chdtri(m.z.shape[1], 1.0 - open_fraction("level", level)))
    line, start, scale = _standard_line(m)
    ends = [-math.inf, *_boundary(line, critical), math.inf]
    inside: list[tuple[float, float]] = []
    for low, high in itertools.pairwise(ends):
        if _at_middle(line, low, high) > critical:
            continue
        if inside and inside[-1][1] == low:
            low = inside.pop()[0]
        inside.append((low, high))
    return ConfidenceSet(tuple((start + scale * a, start + scale * b) for a, b in inside), level)


def _variance(a: Floats, b: Floats, m: Moments) -> Floats:
    sums = unit_sums(a, m).T @ unit_sums(b, m)
    return sums if m.groups is None else m.n_units / (m.n_units - 1.0) * sums


def _standard_line(m: Moments) -> tuple[_Line, float, float]:
    """Orthonormal instruments and x in standard errors of two-stage least squares, for good conditioning."""
    fit = two_stage_least_squares(m)
    start, scale = float(fit.coef[0]), float(fit.stderr[0])
    if not scale > 0:
        scale = max(abs(start), 1.0)
    root = np.linalg.cholesky((m.z * m.weights[:, None]).T @ m.z)
    z = np.linalg.solve(root, m.z.T).T * m.weights[:, None]
    t = m.t[:, 0]
    s0, s1 = z * (m.y - start * t)[:, None], z * (scale * t)[:, None]
    line = _Line(
        s0.sum(axis=0), s1.sum(axis=0), _variance(s0, s0, m), _variance(s0, s1, m), _variance(s1, s1, m)
    )
    return line, start, scale


def _boundary(line: _Line, critical: float) -> list[float]:
    """Real solutions of det(M0 + x M1 + x^2 M2) = 0 with M = critical V - g g'."""
    from scipy.linalg import eig

    g0, g1 = line.g0, line.g1
    m0 = critical * line.v00 - np.outer(g0, g0)
    m1 = -critical * (line.v01 + line.v01.T) + np.outer(g0, g1) + np.outer(g1, g0)
    m2 = critical * line.v11 - np.outer(g1, g1)
    # Whatever the units of the outcome, the companion form wants entries of size one.
    size = max(float(np.abs(m).max()) for m in (m0, m1, m2)) or 1.0
    m0, m1, m2 = m0 / size, m1 / size, m2 / size
    k = len(g0)
    zero, one = np.zeros((k, k)), np.eye(k)
    pencil = np.block([[zero, one], [-m0, -m1]]), np.block([[one, zero], [zero, m2]])
    alpha, beta = eig(*pencil, right=False, homogeneous_eigvals=True)
    found = []
    for a, b in zip(alpha, beta, strict=True):
        if abs(b) > 1e-12 * abs(a):
            x = complex(a / b)
            if abs(x.imag) <= 1e-7 * (1.0 + abs(x.real)):
                found.append(x.real)
    return sorted(found)


def _at_middle(line: _Line, low: float, high: float) -> float:
    if math.isinf(low) and math.isinf(high):
        return line.statistic(0.0)
    if math.isinf(low):
        return line.statistic(high - 1.0 - abs(high))
    if math.isinf(high):
        return line.statistic(low + 1.0 + abs(low))
    return line.statistic((low + high) / 2.0)
