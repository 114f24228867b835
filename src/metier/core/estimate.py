"""Estimates with their uncertainty, and the quantiles and tails behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import finite_array, open_fraction
from .errors import InputError

ROUNDING = 1e-12
"""Spread, as a share of a value's size, that is rounding and no spread."""

# Methods that a verdict treats in a way of their own.
IDENTICAL_LOSSES = "identical"
CLOPPER_PEARSON = "Clopper-Pearson"
RESAMPLED = "resampled"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its standard error and interval.

    Attributes:
        value: The point estimate.
        stderr: Its standard error; 0 for an exact value, NaN where only an interval is known.
        level: Coverage that the interval aims at; 1 for an exact value.
        interval: Lower and upper end.
        n: Number of independent units; 0 for an exact value.
        dof: Degrees of freedom of the Student quantile; None means the normal quantile.
        method: How the standard error was made.
        unit: What a unit is, in the plural: "seeds", "origins", "rows".

    Example:
        >>> Estimate.from_stderr(1.0, 0.5, n=50).summary()
        '1 (95 % interval 0.02002 to 1.98, standard error 0.5, n = 50)'
    """

    value: float
    stderr: float
    level: float
    interval: tuple[float, float]
    n: int
    dof: float | None = None
    method: str = ""
    unit: str = "units"

    @classmethod
    def from_stderr(
        cls,
        value: float,
        stderr: float,
        *,
        n: int,
        level: float = 0.95,
        dof: float | None = None,
        method: str = "",
        unit: str = "units",
    ) -> Estimate:
        """Build the symmetric interval value +- quantile x stderr.

        Example:
            >>> Estimate.from_stderr(0.0, 1.0, n=9, dof=8.0).interval[1].__round__(3)
            2.306
        """
        half = quantile((1.0 + open_fraction("level", level)) / 2.0, dof=dof) * stderr
        return cls(value, stderr, level, (value - half, value + half), n, dof, method, unit)

    @classmethod
    def from_values(cls, values: ArrayLike, *, level: float = 0.95, unit: str = "units") -> Estimate:
        """Return the mean of independent values, shape (n,), with its Student interval.

        A single value has neither standard error nor interval (NaN).

        Example:
            >>> Estimate.from_values([1.0, 2.0, 3.0], unit="seeds").summary()
            '2 (95 % interval -0.4841 to 4.484, standard error 0.5774, n = 3)'
        """
        x = finite_array("values", values, ndim=1)
        need_units(x.size, 1, unit)
        return cls._of_errors(float(x.mean()), x - x.mean(), level=level, unit=unit)

    @classmethod
    def ratio(
        cls, part: ArrayLike, whole: ArrayLike, *, level: float = 0.95, unit: str = "units"
    ) -> Estimate:
        """Return mean(part) / mean(whole) over paired units, with the linearized Student interval.

        With r the ratio, its error is to first order the mean of (part - r whole) / mean(whole).

        Example:
            >>> Estimate.ratio([1.0, 1.0, 1.2], [2.0, 2.0, 2.0]).value.__round__(4)
            0.5333
        """
        p, w = finite_array("part", part, ndim=1), finite_array("whole", whole, ndim=1)
        need_units(min(p.size, w.size), 1, unit)
        if p.size != w.size or not w.mean():
            raise InputError(
                "a ratio needs paired units and a whole that is not zero",
                expected="part and whole of equal length, mean(whole) not 0",
                got=f"{p.size} and {w.size} values, mean(whole) {w.mean():.4g}",
                next_step="Measure both in the same units.",
            )
        r = float(p.mean() / w.mean())
        return cls._of_errors(r, (p - r * w) / w.mean(), level=level, unit=unit)

    @classmethod
    def share(cls, count: int, n: int, *, level: float = 0.95, unit: str = "units") -> Estimate:
        """Return the share of successes among n independent trials, with its Clopper-Pearson interval.

        Example:
            >>> Estimate.share(19, 20).summary()
            '0.95 (95 % interval 0.7513 to 0.9987, standard error 0.04873, n = 20)'
        """
        interval = clopper_pearson(count, n, level=level)
        p = count / n
        return cls(p, math.sqrt(p * (1.0 - p) / n), level, interval, n, None, CLOPPER_PEARSON, unit)

    @classmethod
    def resampled(
        cls, value: float, interval: tuple[float, float], *, n: int, level: float = 0.95, unit: str = "units"
    ) -> Estimate:
        """Return a value whose interval, at `level`, came from resampling n units; it has no standard error.

        Example:
            >>> Estimate.resampled(0.3, (0.1, 0.6), n=40).interval
            (0.1, 0.6)
        """
        low, high = interval
        if not low <= high:
            raise InputError(
                "an interval has a lower and an upper end",
                expected="low <= high",
                got=f"({low}, {high})",
                next_step="Swap the ends, or leave out what is not a number.",
            )
        return cls(value, math.nan, open_fraction("level", level), (low, high), n, None, RESAMPLED, unit)

    @classmethod
    def exact(cls, value: float, *, method: str = "exact") -> Estimate:
        """Return a value without uncertainty: an identity, or a complete enumeration.

        Example:
            >>> Estimate.exact(3.0).interval
            (3.0, 3.0)
        """
        return cls(value, 0.0, 1.0, (value, value), 0, None, method, "")

    @classmethod
    def enclosure(cls, low: float, high: float, *, method: str = "enclosure") -> Estimate:
        """Return a value proven to lie in [low, high], as ball arithmetic encloses it.

        Example:
            >>> Estimate.enclosure(0.1, 0.3).value
            0.2
        """
        if not low <= high:
            raise InputError(
                "an enclosure has a lower and an upper end",
                expected="low <= high",
                got=f"({low}, {high})",
                next_step="Swap the ends.",
            )
        return cls((low + high) / 2.0, 0.0, 1.0, (low, high), 0, None, method, "")

    @classmethod
    def _of_errors(cls, value: float, errors: NDArray[np.float64], *, level: float, unit: str) -> Estimate:
        n = errors.size
        stderr = float(errors.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        return cls.from_stderr(
            value, stderr, n=n, level=level, dof=n - 1.0 if n > 1 else None, method="Student t", unit=unit
        )

    def summary(self) -> str:
        """Return one line for people."""
        low, high = self.interval
        return (
            f"{self.value:.4g} ({100 * self.level:g} % interval {low:.4g} to {high:.4g}, "
            f"standard error {self.stderr:.4g}, n = {self.n})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {
            "value": self.value,
            "stderr": self.stderr,
            "level": self.level,
            "interval": list(self.interval),
            "n": self.n,
            "dof": self.dof,
            "method": self.method,
            "unit": self.unit,
        }


def studentize(gain: float, stderr: float) -> float:
    """Return gain / stderr; a gain without spread is infinitely many standard errors from zero.

    Example:
        >>> studentize(1.0, 0.5), studentize(-1.0, 0.0), studentize(0.0, 0.0)
        (2.0, -inf, 0.0)
    """
    if stderr > 0.0:
        return gain / stderr
    return math.copysign(math.inf, gain) if gain else 0.0


def quantile(probability: float, *, dof: float | None = None) -> float:
    """Return the quantile of Student t with `dof` degrees of freedom, or of N(0, 1) for None.

    Example:
        >>> round(quantile(0.975), 4), round(quantile(0.975, dof=4.0), 4)
        (1.96, 2.7764)
    """
    from scipy.special import ndtri, stdtrit

    return float(ndtri(probability) if dof is None else stdtrit(dof, probability))


def lower_tail(statistic: float, *, dof: float | None = None) -> float:
    """Return P(t <= statistic) for Student t with `dof` degrees of freedom, or N(0, 1) for None.

    Example:
        >>> round(lower_tail(-1.96), 4)
        0.025
    """
    from scipy.special import ndtr, stdtr

    if math.isinf(statistic):
        return 0.0 if statistic < 0 else 1.0
    return float(ndtr(statistic) if dof is None else stdtr(dof, statistic))


def clopper_pearson(count: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided binomial interval: each end excludes at most (1 - level) / 2.

    Args:
        count: Successes among `n` independent trials.
        n: Trials.
        level: Coverage that is never undercut.

    Example:
        >>> [round(end, 4) for end in clopper_pearson(0, 100, level=0.90)]
        [0.0, 0.0295]

    Source: Clopper and Pearson (1934), The use of confidence or fiducial limits, Biometrika 26.
    """
    from scipy.special import betaincinv

    if not 0 <= count <= n or n < 1:
        raise InputError(
            "a share needs successes among trials",
            expected="0 <= count <= n with n of at least 1",
            got=f"count={count}, n={n}",
            next_step="Count the successes again.",
        )
    tail = (1.0 - level) / 2.0
    low = float(betaincinv(count, n - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, n - count, 1.0 - tail)) if count < n else 1.0
    return low, high


def binomial_tail(count: int, n: int, share: float, *, above: bool) -> float:
    """Return the one-sided p-value of `count` successes for a true share above `share`, or below it.

    Example:
        >>> binomial_tail(5, 5, 0.5, above=True)
        0.03125
    """
    from scipy.special import bdtr, bdtrc

    if not 0.0 < share < 1.0:  # every share lies inside, so a limit outside is certain
        return float((share >= 1.0) == above)
    if not above:
        return float(bdtr(count, n, share))
    return float(bdtrc(count - 1, n, share)) if count else 1.0


def need_units(n: int, least: int, unit: str) -> None:
    """Refuse fewer than `least` units."""
    if n < least:
        raise InputError(
            "an uncertainty needs repetition" if least > 1 else "a mean needs values",
            expected=f"at least {least} {unit}",
            got=f"{n}",
            next_step=f"Collect more {unit}.",
        )
