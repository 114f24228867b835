"""The losses by name: those of a residual v - g_w, and those of a natural parameter v."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit

from metier.core.checks import ensure, positive_int

from .arrays import Floats, Rows, diagonal2, diagonal3
from .losses import Kernel, TargetLoss
from .targets import as_target


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
    ensure(
        0.0 < delta < np.inf,
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
        ensure(
            0.0 < self.quantile < 1.0 and self.smoothing > 0.0,
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


@dataclass(frozen=True, slots=True)
class _CanonicalLoss(TargetLoss):
    """b(v) - t'v: negative log-likelihood in the natural parameter."""

    def kernel(self, v: Floats, t: Floats) -> Kernel:
        """Return rho and its derivatives from the cumulant function b."""
        b, b1, b2, b3 = self.cumulant(v)
        minus_one = np.broadcast_to(-np.eye(v.shape[1]), b2.shape)
        return Kernel(b - (t * v).sum(axis=1), -v, b1 - t, b2, minus_one, b3, None)

    @abstractmethod
    def cumulant(self, v: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return b (n,), b' (n, q), b'' (n, q, q), b''' (n, q, q, q)."""


def _check_range(name: str, expected: str, t: Floats, most: float) -> None:
    ensure(
        ((t >= 0.0) & (t <= most)).all(),
        f"the target of {name} is in its range",
        expected=expected,
        got=lambda: f"values from {t.min():g} to {t.max():g}",
        next_step="Encode the target, or use Squared.",
    )


@dataclass(frozen=True, slots=True)
class Logistic(_CanonicalLoss):
    """log(1 + e^v) - t v: binary cross-entropy of a logit v and a target t in [0, 1].

    Args:
        target: Column name, number, or target object g_w.
        weight: Weight object c_w; None for 1.

    Example:
        >>> Logistic("Y").derivatives(np.zeros(1), np.array([[0.0]]), {"Y": np.array([1.0])}).d_v.item()
        -0.5
    """

    def target_of(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return g_w and its Jacobian; fixed targets are probabilities."""
        t, dt = as_target(self.target).evaluate(w, rows)
        if dt is None:
            _check_range("Logistic", "labels 0 and 1, or shares between", t, 1.0)
        return t, dt

    def cumulant(self, v: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return softplus and its derivatives."""
        p = expit(v)
        curve = p * (1.0 - p)
        return np.logaddexp(0.0, v).sum(axis=1), p, diagonal2(curve), diagonal3(curve * (1.0 - 2.0 * p))


@dataclass(frozen=True, slots=True)
class Poisson(_CanonicalLoss):
    """e^v - t v: Poisson likelihood of a log-rate v and a count t.

    Args:
        target: Column name, number, or target object g_w.
        weight: Weight object c_w; None for 1.

    Example:
        >>> Poisson("Y").derivatives(np.zeros(1), np.array([[0.0]]), {"Y": np.array([3.0])}).d_v.item()
        -2.0
    """

    def target_of(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return g_w and its Jacobian; fixed targets are counts."""
        t, dt = as_target(self.target).evaluate(w, rows)
        if dt is None:
            _check_range("Poisson", "counts of at least 0", t, np.inf)
        return t, dt

    def cumulant(self, v: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return exp, four times."""
        rate = np.exp(v)
        return rate.sum(axis=1), rate, diagonal2(rate), diagonal3(rate)


@dataclass(frozen=True, slots=True)
class SoftmaxCE(_CanonicalLoss):
    """log(1 + sum_j e^(v_j)) - v_label: cross-entropy of n_classes - 1 logits; class 0 is the reference.

    A reference class keeps the curvature non-singular.

    Args:
        target: Name of a column of labels 0..n_classes-1, or a target of shape (n, n_classes - 1).
        n_classes: Number of classes; v has one entry less.
        weight: Weight object c_w; None for 1.

    Example:
        >>> loss = SoftmaxCE("label", n_classes=3)
        >>> loss.derivatives(np.zeros(1), np.zeros((1, 2)), {"label": np.array([1])}).d_v.round(3).tolist()
        [[-0.667, 0.333]]
    """

    n_classes: int = field(kw_only=True)

    def __post_init__(self) -> None:
        positive_int("n_classes", self.n_classes, minimum=2)

    def n_outputs(self, rows: Rows) -> int:
        """Return n_classes - 1."""
        return self.n_classes - 1

    def target_of(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return the indicators of classes 1..n_classes-1."""
        t, dt = as_target(self.target).evaluate(w, rows)
        if t.shape[1] == self.n_classes - 1 and (dt is not None or self.n_classes > 2):
            return t, dt
        ensure(
            np.isin(t, np.arange(self.n_classes)).all(),
            "SoftmaxCE counts classes from 0",
            expected=f"labels 0..{self.n_classes - 1}",
            got=lambda: f"values from {t.min():g} to {t.max():g}",
            next_step="Encode the labels, or raise n_classes.",
        )
        return (t == np.arange(1, self.n_classes)).astype(np.float64), None

    def cumulant(self, v: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return the log-partition function and its derivatives: the cumulants of the indicators."""
        top = np.maximum(v.max(axis=1), 0.0)
        b = top + np.log(np.exp(-top) + np.exp(v - top[:, None]).sum(axis=1))
        p = np.exp(v - b[:, None])
        pp = np.einsum("ni,nj->nij", p, p)
        second = diagonal2(p) - pp
        eye = np.eye(v.shape[1])
        mixed = sum(np.einsum(s, eye, pp) for s in ("ij,nik->nijk", "ik,nij->nijk", "jk,nij->nijk"))
        third = diagonal3(p) - mixed + 2.0 * np.einsum("ni,nj,nk->nijk", p, p, p)
        return b, p, second, third
