"""Losses b(v) - t'v of a natural parameter: logistic, Poisson, softmax cross-entropy."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit

from metier.core.checks import positive_int
from metier.core.errors import InputError

from .arrays import Floats, Rows, diagonal2, diagonal3
from .losses import Kernel, TargetLoss
from .targets import as_target


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


def _out_of_range(name: str, expected: str, t: Floats) -> InputError:
    return InputError(
        f"the target of {name} is in its range",
        expected=expected,
        got=f"values from {t.min():g} to {t.max():g}",
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
        if dt is None and not ((t >= 0.0) & (t <= 1.0)).all():
            raise _out_of_range("Logistic", "labels 0 and 1, or shares between", t)
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
        if dt is None and not (t >= 0.0).all():
            raise _out_of_range("Poisson", "counts of at least 0", t)
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
        if not np.isin(t, np.arange(self.n_classes)).all():
            raise InputError(
                "SoftmaxCE counts classes from 0",
                expected=f"labels 0..{self.n_classes - 1}",
                got=f"values from {t.min():g} to {t.max():g}",
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
