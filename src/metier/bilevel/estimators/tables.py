"""The tables as econometricians know them, as text and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from scipy.special import ndtr

from metier.bilevel.arrays import Floats
from metier.bilevel.estimate import wald_interval

from .first_stage import FirstStage
from .moments import LinearFit, TestResult
from .weak_instruments import ConfidenceSet

WIDTH = 84


@dataclass(frozen=True, slots=True)
class CoefficientTable:
    """Coefficients with Wald tests and intervals.

    Attributes:
        names: d names.
        coef, stderr: (d,).
        level: of the intervals.
    """

    names: tuple[str, ...]
    coef: Floats
    stderr: Floats
    level: float = 0.95

    @property
    def z(self) -> Floats:
        """Coefficient over standard error."""
        return self.coef / np.where(self.stderr > 0, self.stderr, np.nan)

    @property
    def p_values(self) -> Floats:
        """Two-sided normal p-values."""
        return np.asarray(2.0 * ndtr(-np.abs(self.z)))

    @property
    def interval(self) -> Floats:
        """(d, 2) Wald intervals."""
        return wald_interval(self.coef, self.stderr, self.level)

    def lines(self) -> list[str]:
        """Return the table as lines of text."""
        tail = (1.0 - self.level) / 2.0
        width = WIDTH - 60
        head = ["coef", "std err", "z", "P>|z|", f"[{tail:.4g}", f"{1 - tail:.4g}]"]
        lines = [" " * width + "".join(f"{word:>10}" for word in head)]
        rows = zip(self.names, self.coef, self.stderr, self.z, self.p_values, self.interval, strict=True)
        for name, coef, stderr, z, p, (low, high) in rows:
            label = name if len(name) < width else name[: width - 2] + "~"
            numbers = f"{coef:>10.4g}{stderr:>10.3g}{z:>10.2f}{p:>10.3f}{low:>10.4g}{high:>10.4g}"
            lines.append(f"{label:<{width}}{numbers}")
        return lines

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dict per coefficient."""
        return [
            {
                "name": name,
                "coef": float(coef),
                "stderr": float(stderr),
                "z": float(z),
                "p_value": float(p),
                "interval": [float(low), float(high)],
            }
            for name, coef, stderr, z, p, (low, high) in zip(
                self.names, self.coef, self.stderr, self.z, self.p_values, self.interval, strict=True
            )
        ]


def layout(
    title: str, facts: Sequence[tuple[str, str]], blocks: Sequence[Sequence[str]], warnings: Sequence[str]
) -> str:
    """Set a title, pairs of facts, blocks of lines and warnings as one text of fixed width."""
    lines = [title.center(WIDTH).rstrip(), "=" * WIDTH]
    label = max(len(name) for name, _ in facts) + 1
    for name, value in facts:
        lines += wrap(f"{name + ':':<{label}} {value}", WIDTH, subsequent_indent=" " * (label + 1))
    for block in blocks:
        lines += ["-" * WIDTH, *block]
    lines.append("=" * WIDTH)
    for number, warning in enumerate(warnings, start=1):
        lines += wrap(f"[{number}] {warning}", WIDTH, subsequent_indent="    ")
    return "\n".join(lines)


SMALL_SAMPLE = 5000
"""Rows below which the luck of one division into folds is worth averaging out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IVReport:
    """All that a fitted instrumental-variable model reports; a test that the data do not allow is None."""

    outcome: str
    treatment: tuple[str, ...]
    instruments: tuple[str, ...]
    controls: tuple[str, ...]
    n: int
    clusters: int | None
    estimator: str
    folds: int
    repeats: int
    coefficients: CoefficientTable
    covariance: Floats
    first_stage: FirstStage | None
    two_stage_least_squares: LinearFit | None
    anderson_rubin: ConfidenceSet | None
    over_identification: TestResult | None
    warnings: tuple[str, ...]

    def text(self) -> str:
        """Return the tables as text of fixed width."""
        units = f"{self.n} rows" + ("" if self.clusters is None else f", {self.clusters} clusters")
        facts = [
            ("outcome", self.outcome),
            ("treatment", ", ".join(self.treatment)),
            ("instruments", ", ".join(self.instruments)),
            ("controls", ", ".join(self.controls) or "intercept only"),
            ("data", f"{units}; {self.folds} folds x {self.repeats}; estimator {self.estimator}"),
        ]
        blocks = [self.coefficients.lines()]
        if self.first_stage is not None:
            blocks.append(["First stage, given the controls", *self.first_stage.summary().splitlines()])
        blocks.append(self._test_lines())
        return layout("Instrumental variables, orthogonal cross-fitted score", facts, blocks, self.warnings)

    def _test_lines(self) -> list[str]:
        lines, test = [], self.over_identification
        if (linear := self.two_stage_least_squares) is not None:
            pairs = zip(self.coefficients.names, linear.coef, linear.stderr, strict=True)
            lines += [f"2SLS, same residuals: {name} {c:.4g} (std err {s:.3g})" for name, c, s in pairs]
        if (values := self.anderson_rubin) is not None:
            lines.append(f"Anderson-Rubin {100 * values.level:g} % set: {values.summary()}")
        outcome = "no instrument to spare"
        if test is not None:
            outcome = f"Hansen J, chi2({test.dof}) = {test.statistic:.3f}, p = {test.p_value:.3f}"
        return [*lines, f"Over-identification: {outcome}"]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain Python values."""
        linear, tested = self.two_stage_least_squares, self.over_identification
        first, values = self.first_stage, self.anderson_rubin
        least_squares = None
        if linear is not None:
            least_squares = {"coef": linear.coef.tolist(), "stderr": linear.stderr.tolist()}
        return {
            "outcome": self.outcome,
            "treatment": list(self.treatment),
            "instruments": list(self.instruments),
            "controls": list(self.controls),
            "n": self.n,
            "clusters": self.clusters,
            "estimator": self.estimator,
            "folds": self.folds,
            "repeats": self.repeats,
            "level": self.coefficients.level,
            "coefficients": self.coefficients.to_dict(),
            "covariance": self.covariance.tolist(),
            "first_stage": None if first is None else first.to_dict(),
            "two_stage_least_squares": least_squares,
            "anderson_rubin": None if values is None else values.to_dict(),
            "over_identification": None if tested is None else tested.to_dict(),
            "warnings": list(self.warnings),
        }


def iv_warnings(
    of_gradient: Sequence[str],
    *,
    n_features: int,
    n_instruments: int,
    first_stage: FirstStage | None,
    over_identification: TestResult | None,
    one_small_division: bool,
) -> tuple[str, ...]:
    """Return sentences about the instruments and the data, after those of the gradient itself.

    Args:
        of_gradient: Warnings of the gradient.
        n_features, n_instruments: Numbers of columns.
        first_stage, over_identification: None where the instruments do not allow them.
        one_small_division: Whether few rows were cross-fitted on controls by one division into folds.
    """
    warnings, test = [_sentence(text) for text in of_gradient], over_identification
    if first_stage is not None and first_stage.weak:
        remedy = "read the Anderson-Rubin set" if n_features == 1 else "test values with anderson_rubin(w)"
        names = ", ".join(first_stage.weak)
        warnings.append(f"The instruments are weak for {names}: Wald intervals may be far off; {remedy}.")
    if n_instruments >= n_features and first_stage is None:
        warnings.append(
            "The instruments repeat each other, or outnumber the rows or clusters: two-stage least squares "
            "and the tests built on it are left out; leave out what repeats, or test a subset."
        )
    if n_instruments < n_features:
        warnings.append(
            f"{n_features} features rest on {n_instruments} instruments: only non-linear dependence of the "
            "treatment on them identifies the curve, and linear tests of strength do not apply."
        )
    if test is not None and test.p_value < 0.05:
        warnings.append(
            f"The instruments disagree (Hansen J, p = {test.p_value:.3g}): each moves others, for whom the "
            "effect differs, or one acts on the outcome directly; compare them one by one."
        )
    if one_small_division:
        warnings.append("One division into folds on a small sample: pass repeats=5 to average its luck out.")
    return tuple(dict.fromkeys(warnings))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
