"""Losses R(v - g_w) of a residual: squared, Huber, log-cosh, smoothed pinball."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit

from metier.core.errors import InputError

from .arrays import Floats, diagonal2, diagonal3
from .losses import Kernel, TargetLoss


@dataclass(frozen=True, slots=True)
class _ResidualLoss(TargetLoss):
    """A sum over coordinates of R(v - t)."""

    def kernel(self, v: Floats, t: Floats) -> Kernel:
        """Return rho and its derivatives from R, R', R'', R'''."""
        value, d1, d2, d3 = self.residual(v - t)
        third = None if d3 is None else diagonal3(d3)
        second = diagonal2(d2)
        return Kernel(value.sum(axis=1), -d1, d1, second, -second, third, None if third is None else -third)

    @abstractmethod
    def residual(self, r: Floats) -> tuple[Floats, Floats, Floats, Floats | None]:
        """Return R, R', R'', R''' at the residuals (n, q)."""


@dataclass(frozen=True, slots=True)
class Squared(_ResidualLoss):
    """(v - g_w)^2 / 2, summed over coordinates.

    Args:
        target: Column name, number, or target object g_w.
        weight: Weight object c_w; None for 1.

    Example:
        >>> Squared("Y").derivatives(np.zeros(1), np.array([[3.0]]), {"Y": np.array([1.0])}).value.item()
        2.0
    """

    def residual(self, r: Floats) -> tuple[Floats, Floats, Floats, Floats | None]:
        """Return r^2 / 2 and its derivatives."""
        return r * r / 2.0, r, np.ones_like(r), None


def _positive_delta(name: str, delta: float) -> None:
    if not 0.0 < delta < np.inf:
        raise InputError(
            f"delta of {name} is a scale",
            expected="a positive number, in units of v",
            got=repr(delta),
            next_step="Pass delta=1.0, or the size of a usual residual.",
        )


@dataclass(frozen=True, slots=True)
class Huber(_ResidualLoss):
    """r^2 / 2 for |r| <= delta, else delta (|r| - delta / 2).

    Its third derivative is zero almost everywhere and misses the two kinks, so that as an inner loss the
    score is orthogonal in h only up to the density of residuals there: `LogCosh` has no such gap.

    Args:
        target: Column name, number, or target object g_w.
        delta: Where the loss turns linear, in units of v.
        weight: Weight object c_w; None for 1.

    Example:
        >>> Huber(0.0, delta=1.0).derivatives(np.zeros(1), np.array([[3.0]]), {"X": np.zeros(1)}).d_v.item()
        1.0
    """

    delta: float = field(default=1.345, kw_only=True)
    smooth = False

    def __post_init__(self) -> None:
        _positive_delta("Huber", self.delta)

    def residual(self, r: Floats) -> tuple[Floats, Floats, Floats, Floats | None]:
        """Return the loss and its derivatives."""
        inside, size = np.abs(r) <= self.delta, np.abs(r)
        value = np.where(inside, r * r / 2.0, self.delta * (size - self.delta / 2.0))
        return value, np.clip(r, -self.delta, self.delta), inside.astype(np.float64), None


@dataclass(frozen=True, slots=True)
class LogCosh(_ResidualLoss):
    """delta^2 log cosh(r / delta): quadratic near 0, linear far out, smooth everywhere.

    Args:
        target: Column name, number, or target object g_w.
        delta: Scale of the turn, in units of v.
        weight: Weight object c_w; None for 1.

    Example:
        >>> LogCosh(0.0).derivatives(np.zeros(1), np.array([[0.0]]), {"X": np.zeros(1)}).d2_v.item()
        1.0
    """

    delta: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        _positive_delta("LogCosh", self.delta)

    def residual(self, r: Floats) -> tuple[Floats, Floats, Floats, Floats | None]:
        """Return the loss and its derivatives."""
        x = r / self.delta
        t = np.tanh(x)
        value = self.delta**2 * (np.abs(x) + np.log1p(np.exp(-2.0 * np.abs(x))) - np.log(2.0))
        return value, self.delta * t, 1.0 - t * t, -2.0 * t * (1.0 - t * t) / self.delta


@dataclass(frozen=True, slots=True)
class SmoothPinball(_ResidualLoss):
    """Pinball loss of a quantile, smoothed: s softplus(r / s) - quantile r with r = v - g_w.

    As s -> 0 this is the pinball loss, which has no curvature; the minimizer moves with s.

    Args:
        target: Column name, number, or target object g_w.
        quantile: Level in (0, 1).
        smoothing: s, in units of v.
        weight: Weight object c_w; None for 1.

    Example:
        >>> loss = SmoothPinball(0.0, quantile=0.5, smoothing=0.1)
        >>> loss.derivatives(np.zeros(1), np.array([[0.0]]), {"X": np.zeros(1)}).d_v.item()
        0.0
    """

    quantile: float = field(default=0.5, kw_only=True)
    smoothing: float = field(default=0.1, kw_only=True)

    def __post_init__(self) -> None:
        if not (0.0 < self.quantile < 1.0 and self.smoothing > 0.0):
            raise InputError(
                "a smoothed pinball loss has a level and a positive smoothing",
                expected="0 < quantile < 1 and smoothing > 0",
                got=f"quantile={self.quantile}, smoothing={self.smoothing}",
                next_step="Smooth it: without curvature the inner problem has no adjoint.",
            )

    def residual(self, r: Floats) -> tuple[Floats, Floats, Floats, Floats | None]:
        """Return the loss and its derivatives."""
        x, s = r / self.smoothing, self.smoothing
        p = expit(x)
        curve = p * (1.0 - p)
        return (
            s * np.logaddexp(0.0, x) - self.quantile * r,
            p - self.quantile,
            curve / s,
            curve * (1 - 2 * p) / s**2,
        )
