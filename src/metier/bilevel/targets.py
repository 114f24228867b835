"""What a pointwise loss compares its value with: targets g_w(Z), and weights c_w(Z) of a term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from metier.core.checks import ensure

from .arrays import Floats, RowFunction, Rows, two_dimensional


class Target(Protocol):
    """A target g_w(Z) with its Jacobian in w."""

    def evaluate(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return g (n, q) and its Jacobian (n, d, q), or None where it does not move with w."""
        ...


class TermWeight(Protocol):
    """A weight c_w(Z) of a loss term with its gradient in w."""

    def evaluate(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return c (n,) and its gradient (n, d), or None where it does not move with w."""
        ...


def column(rows: Rows, name: str) -> Floats:
    """Return the column `name`, or say which columns there are."""
    ensure(
        name in rows,
        "a loss names columns of Z",
        expected=f"a column {name!r}",
        got=lambda: ", ".join(sorted(rows)) or "no columns",
        next_step=f"Pass Z={{{name!r}: ...}} to fit.",
    )
    return np.asarray(rows[name], dtype=np.float64)


def _stacked(rows: Rows, names: str | tuple[str, ...]) -> Floats:
    if isinstance(names, str):
        return two_dimensional(column(rows, names))
    return np.column_stack([column(rows, name) for name in names])


def row_count(rows: Rows) -> int:
    """Return the number of rows."""
    return len(next(iter(rows.values())))


@dataclass(frozen=True, slots=True)
class ColumnTarget:
    """A target that does not move with w: a column of Z, or a constant.

    Args:
        source: Name of a column (n,) or (n, q), or a number.

    Example:
        >>> value, jacobian = ColumnTarget("Y").evaluate(np.zeros(1), {"Y": np.array([1.0, 2.0])})
        >>> value.shape, jacobian
        ((2, 1), None)
    """

    source: str | float

    def evaluate(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return the column as (n, q), and None."""
        if isinstance(self.source, str):
            return _stacked(rows, self.source), None
        return np.full((row_count(rows), 1), float(self.source)), None


@dataclass(frozen=True, slots=True)
class AffineTarget:
    """g_w(Z) = g0(Z) + dg(Z)' w, the target that makes the quadratic problem affine in w.

    Args:
        g0: Name of the column of g0, (n,) or (n, q); None or a number for a constant.
        dg: Name of the column block of dg, (n,), (n, d) or (n, d, q); or a tuple of names of single columns.

    Example:
        >>> rows = {"T": np.array([[1.0, 2.0], [3.0, 4.0]])}
        >>> value, jacobian = AffineTarget(None, "T").evaluate(np.array([1.0, -1.0]), rows)
        >>> value[:, 0].tolist(), jacobian.shape
        ([-1.0, -1.0], (2, 2, 1))

    Source: the paper, Section 5 (linear outer parametrization).
    """

    g0: str | float | None
    dg: str | tuple[str, ...]

    def parts(self, rows: Rows) -> tuple[Floats, Floats]:
        """Return g0 (n, q) and dg (n, d, q)."""
        slope = _stacked(rows, self.dg)
        slope = slope[:, :, None] if slope.ndim == 2 else slope
        base, _ = ColumnTarget(0.0 if self.g0 is None else self.g0).evaluate(slope[0], rows)
        return base, slope

    def evaluate(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return g0 + dg' w (n, q) and dg (n, d, q)."""
        base, slope = self.parts(rows)
        ensure(
            slope.shape[1] == len(w),
            "w has one entry per column of dg",
            expected=f"{slope.shape[1]} entries",
            got=f"{len(w)}",
            next_step="Pass a w of that length.",
        )
        return base + np.einsum("ndq,d->nq", slope, w), slope


@dataclass(frozen=True, slots=True)
class FunctionTarget:
    """A target by two functions of (w, rows): its value (n,) or (n, q), its Jacobian (n, d) or (n, d, q).

    Args:
        value: Function (w, rows) -> g.
        jacobian: Function (w, rows) -> d g / d w.

    Example:
        >>> g = FunctionTarget(lambda w, z: np.exp(w[0] * z["T"]),
        ...                    lambda w, z: (z["T"] * np.exp(w[0] * z["T"]))[:, None])
        >>> g.evaluate(np.zeros(1), {"T": np.array([2.0])})[1].item()
        2.0
    """

    value: RowFunction
    jacobian: RowFunction

    def evaluate(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return value (n, q) and Jacobian (n, d, q)."""
        g, dg = (
            two_dimensional(self.value(w, rows)),
            np.asarray(self.jacobian(w, rows), dtype=np.float64),
        )
        dg = dg[:, :, None] if dg.ndim == 2 else dg
        ensure(
            dg.shape == (len(g), len(w), g.shape[1]),
            "the Jacobian of a FunctionTarget has one row per data row and one column per entry of w",
            expected=f"shape {(len(g), len(w))} or {(len(g), len(w), g.shape[1])}",
            got=f"{dg.shape}",
            next_step="Return d g / d w in that layout.",
        )
        return g, dg


@dataclass(frozen=True, slots=True)
class ExponentialWeight:
    """c_w(Z) = base(Z) exp(w' u(Z)), a positive weight that moves with w.

    Args:
        features: Name of the columns u, (n,) or (n, d), or a tuple of names; None for the constant u = 1, so
            that w has one entry.
        base: Name of the column of a fixed non-negative factor; None for 1.

    Example:
        >>> c, dc = ExponentialWeight("u").evaluate(np.array([0.0]), {"u": np.array([3.0])})
        >>> c.tolist(), dc.tolist()
        ([1.0], [[3.0]])
    """

    features: str | tuple[str, ...] | None
    base: str | None = None

    def evaluate(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return c (n,) and its gradient c u (n, d)."""
        u = np.ones((row_count(rows), 1)) if self.features is None else _stacked(rows, self.features)
        ensure(
            u.shape[1] == len(w),
            "w has one entry per feature of an ExponentialWeight",
            expected=f"{u.shape[1]} entries",
            got=f"{len(w)}",
            next_step="Pass a w of that length.",
        )
        c = np.exp(u @ w)
        c = c if self.base is None else c * column(rows, self.base)
        return c, c[:, None] * u


@dataclass(frozen=True, slots=True)
class ColumnWeight:
    """A weight that does not move with w: a column of Z.

    Args:
        source: Name of a column (n,).

    Example:
        >>> ColumnWeight("m").evaluate(np.zeros(1), {"m": np.array([2.0])})
        (array([2.]), None)
    """

    source: str

    def evaluate(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return the column (n,), and None."""
        return column(rows, self.source), None


@dataclass(frozen=True, slots=True)
class FunctionWeight:
    """A weight by two functions of (w, rows): its value (n,) and its gradient (n, d).

    Args:
        value: Function (w, rows) -> c.
        gradient: Function (w, rows) -> d c / d w.

    Example:
        >>> c = FunctionWeight(lambda w, z: 1 + w[0] * z["s"], lambda w, z: z["s"][:, None])
        >>> c.evaluate(np.ones(1), {"s": np.array([0.5])})[0].tolist()
        [1.5]
    """

    value: RowFunction
    gradient: RowFunction

    def evaluate(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return c (n,) and its gradient (n, d)."""
        c, dc = self.value(w, rows), self.gradient(w, rows)
        return np.asarray(c, dtype=np.float64), np.asarray(dc, dtype=np.float64)


def as_target(target: Target | str | float) -> Target:
    """Return a target; a name or a number is a ColumnTarget."""
    return ColumnTarget(target) if isinstance(target, str | float | int) else target
