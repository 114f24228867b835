"""The coefficient table as econometricians know it, as text and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import open_fraction

Floats = NDArray[np.float64]
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
        from scipy.special import ndtr

        return np.asarray(2.0 * ndtr(-np.abs(self.z)))

    @property
    def interval(self) -> Floats:
        """(d, 2) Wald intervals."""
        from scipy.special import ndtri

        half = float(ndtri((1.0 + open_fraction("level", self.level)) / 2.0)) * self.stderr
        return np.column_stack([self.coef - half, self.coef + half])

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
