"""Local slopes of a threshold curve in log-log coordinates: what a law looks like before its asymptote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from metier.core.checks import ensure

from .channels import Array
from .thresholds import positive_array


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LocalExponent:
    """d ln y / d ln x along a curve, each with how far it depends on the grid.

    Attributes:
        x: Where the slopes hold: the inner points of the grid.
        slope: Local slopes there.
        error: |slope - slope from every second point|; nan where the grid is too short to say.
    """

    x: Array
    slope: Array
    error: Array

    def to_dict(self) -> Mapping[str, Any]:
        """Lists of x, slope and error."""
        return {name: getattr(self, name).tolist() for name in ("x", "slope", "error")}

    def summary(self) -> str:
        """One line per point.

        Example:
            >>> print(local_exponent([1, 2, 4, 8, 16], [3, 12, 48, 192, 768]).summary().splitlines()[1])
            x = 4: slope 2.0000 +- 0e+00
        """
        rows = zip(self.x, self.slope, self.error, strict=True)
        return "\n".join(f"x = {x:g}: slope {slope:.4f} +- {error:.0e}" for x, slope, error in rows)


def local_exponent(x: ArrayLike, y: ArrayLike) -> LocalExponent:
    """Take the local slope of y(x) in log-log coordinates, with no fit over a window.

    The slope at a point is that of the parabola through it and its two neighbors in (ln x, ln y).

    Args:
        x: Positive, strictly monotone, at least 3 values: an snr, a number of units, a sample ratio.
        y: Positive values of the curve there.

    Returns:
        Slopes at the inner points. A threshold that grows as snr^-beta has slope -beta.

    Raises:
        InputError: Values that are not positive and finite, too few, or not monotone.

    Example:
        >>> local_exponent([1e-3, 1e-2, 1e-1], [8e6, 8e4, 8e2]).slope.round(6)
        array([-2.])

    Source:
        Ours.
    """
    a, b = positive_array("x", x).ravel(), positive_array("y", y).ravel()
    steps = np.diff(a)
    ensure(
        not (a.size < 3 or a.size != b.size or not ((steps > 0).all() or (steps < 0).all())),
        "a local slope needs a curve",
        expected="at least 3 strictly monotone x and as many y",
        got=f"{a.size} x and {b.size} y" + ("" if a.size != b.size or a.size < 3 else ", x not monotone"),
        next_step="Sort by x and drop repeated values.",
    )
    u, v = np.log(a), np.log(b)
    slope = _parabola_slope(u, v)
    error = np.full(slope.size, np.nan)
    for offset in (0, 1):
        if u[offset::2].size >= 3:
            wide = _parabola_slope(u[offset::2], v[offset::2])
            at = np.arange(offset + 2, u.size, 2)[: wide.size] - 1
            error[at] = np.abs(slope[at] - wide)
    return LocalExponent(x=a[1:-1], slope=slope, error=error)


def _parabola_slope(u: Array, v: Array) -> Array:
    before, after = u[1:-1] - u[:-2], u[2:] - u[1:-1]
    left, right = (v[1:-1] - v[:-2]) / before, (v[2:] - v[1:-1]) / after
    return np.asarray((left * after + right * before) / (before + after))
