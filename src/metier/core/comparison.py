"""The paired comparison of two sets of losses, with its standard error under dependence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import finite_array, label_codes, one_of, open_fraction
from .errors import InputError
from .estimate import IDENTICAL_LOSSES, ROUNDING, Estimate, lower_tail, need_units, quantile, studentize
from .long_run import bartlett_reference, long_run_variance_ewc, long_run_variance_hac


@dataclass(frozen=True, slots=True)
class Comparison:
    """The paired gain of `a` over `b`: positive where `a` has the lower loss.

    Attributes:
        gain: mean(b - a).
        stderr: Standard error of the gain.
        interval: Lower and upper end at `level`.
        level: Coverage that the interval aims at.
        p_value: Two-sided, for a gain of zero.
        n: Number of independent units: pairs, groups, or time steps.
        unit: What a unit is: "pairs", "groups" or "time steps".
        dof: Degrees of freedom of the Student quantile; None means the normal quantile.
        method: "independent", "clustered", "ewc", "hac", or "identical".
        unit_sd: stderr x sqrt(n), the standard deviation per unit that a power calculation needs.

    Example:
        >>> compare_paired([1.0, 2.0, 3.0], [1.5, 2.25, 3.75]).summary()
        'gain 0.5 (95 % interval -0.121 to 1.121, p = 0.07418, 3 pairs, independent)'
    """

    gain: float
    stderr: float
    interval: tuple[float, float]
    level: float
    p_value: float
    n: int
    unit: str
    dof: float | None
    method: str
    unit_sd: float

    @property
    def estimate(self) -> Estimate:
        """The gain as an `Estimate`."""
        return Estimate(
            self.gain, self.stderr, self.level, self.interval, self.n, self.dof, self.method, self.unit
        )

    def summary(self) -> str:
        """Return one line for people."""
        low, high = self.interval
        return (
            f"gain {self.gain:.4g} ({100 * self.level:g} % interval {low:.4g} to {high:.4g}, "
            f"p = {self.p_value:.4g}, {self.n} {self.unit}, {self.method})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {
            "gain": self.gain,
            "stderr": self.stderr,
            "interval": list(self.interval),
            "level": self.level,
            "p_value": self.p_value,
            "n": self.n,
            "unit": self.unit,
            "dof": self.dof,
            "method": self.method,
            "unit_sd": self.unit_sd,
        }


def compare_paired(
    a: ArrayLike,
    b: ArrayLike,
    *,
    dependence: str | ArrayLike = "independent",
    se: str = "ewc",
    level: float = 0.95,
) -> Comparison:
    """Compare two sets of losses measured on the same items.

    With d_i = b_i - a_i and gain = mean(d):

    - "independent": Student t with n - 1 degrees of freedom;
    - group labels: the items of a group may depend on each other, groups do not; the variance is
      G/(G-1) sum_g (sum_{i in g} (d_i - gain))^2 / n^2 with G - 1 degrees of freedom;
    - "time": items are consecutive time steps; the variance is v/T with the long-run variance v of
      `long_run_variance_ewc`, or of `long_run_variance_hac` without its bias at T steps; both are compared
      with Student t (`bartlett_reference` for the second).

    Losses that agree to 1e-12 of their mean size are "identical": gain 0, stderr 0, p-value 1.

    Args:
        a: Losses of the candidate, shape (n,).
        b: Losses of the rival on the same items, shape (n,).
        dependence: "independent", "time", or one group label per item.
        se: "ewc" or "hac"; "hac" only with dependence="time".
        level: Coverage of the interval.

    Returns:
        The comparison; `gain` is in the units of the losses.

    Raises:
        InputError: Lengths differ, a loss is not finite, or fewer than two units.

    Example:
        >>> result = compare_paired([1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 4.0, 4.0])
        >>> result.gain, round(result.p_value, 4)
        (0.5, 0.0917)

    Source: Liang and Zeger (1986) for groups; Lazarus, Lewis, Stock and Watson (2018) for time.
    """
    level = open_fraction("level", level)
    d, size = _differences(a, b)
    codes = _group_codes(dependence, d.size)
    _check_se(se, dependence)
    if codes is not None:
        n, unit = int(codes.max()) + 1, "groups"
    else:
        n, unit = d.size, "time steps" if dependence == "time" else "pairs"
    need_units(n, 2, unit)
    if np.abs(d).max() <= ROUNDING * size:
        return Comparison(0.0, 0.0, (0.0, 0.0), level, 1.0, n, unit, None, IDENTICAL_LOSSES, 0.0)
    if codes is not None:
        stderr, dof, method = _clustered(d, codes), n - 1.0, "clustered"
    elif dependence == "time":
        stderr, dof = _LONG_RUN[se](d)
        method = se
    else:
        stderr, dof, method = float(d.std(ddof=1)) / math.sqrt(n), n - 1.0, "independent"
    return _comparison(float(d.mean()), stderr, level, n, unit, dof, method)


def _comparison(
    gain: float, stderr: float, level: float, n: int, unit: str, dof: float | None, method: str
) -> Comparison:
    half = quantile((1.0 + level) / 2.0, dof=dof) * stderr
    p_value = min(1.0, 2.0 * lower_tail(-abs(studentize(gain, stderr)), dof=dof))
    interval = (gain - half, gain + half)
    return Comparison(gain, stderr, interval, level, p_value, n, unit, dof, method, stderr * math.sqrt(n))


def _differences(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], float]:
    first, second = finite_array("losses a", a, ndim=1), finite_array("losses b", b, ndim=1)
    if first.size != second.size:
        raise InputError(
            "a paired comparison needs the losses of the same items",
            expected="two lists of equal length",
            got=f"{first.size} and {second.size} losses",
            next_step="Evaluate both on the same items, in the same order.",
        )
    if first.size == 0:
        need_units(0, 2, "pairs")
    return second - first, float(np.abs(first).mean() + np.abs(second).mean()) / 2.0


def _group_codes(dependence: Any, n: int) -> NDArray[np.int64] | None:
    if isinstance(dependence, str) or dependence is None:
        one_of("dependence", dependence, ("independent", "time"))
        return None
    codes, _ = label_codes("dependence", dependence)
    if codes.size != n:
        raise InputError(
            "groups name the group of every loss",
            expected=f"{n} group labels",
            got=f"{codes.size}",
            next_step="Pass one label per loss as dependence.",
        )
    return codes


def _check_se(se: str, dependence: Any) -> None:
    one_of("se", se, _LONG_RUN)
    if se != "ewc" and not (isinstance(dependence, str) and dependence == "time"):
        raise InputError(
            'se="hac" is a standard error for time steps',
            expected='dependence="time"',
            got=f"dependence={dependence!r}" if isinstance(dependence, str) else "group labels",
            next_step='Drop se, or pass dependence="time".',
        )


def _ewc(d: NDArray[np.float64]) -> tuple[float, float]:
    variance, dof = long_run_variance_ewc(d)
    return math.sqrt(variance / d.size), dof


def _hac(d: NDArray[np.float64]) -> tuple[float, float]:
    variance, _ = long_run_variance_hac(d)
    kept, dof = bartlett_reference(d.size)
    return math.sqrt(variance / kept / d.size), dof


_LONG_RUN = {"ewc": _ewc, "hac": _hac}


def _clustered(d: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    sums = np.bincount(codes, weights=d - d.mean())
    G = sums.size
    return math.sqrt(G / (G - 1.0) * float(sums @ sums)) / d.size
