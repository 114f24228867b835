"""What a pointwise loss is: values with the derivatives that the score needs, and a check of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from metier.core.checks import ensure
from metier.core.extras import require

from .arrays import Floats, Rows, added
from .targets import ColumnTarget, Target, TermWeight, as_target


@dataclass(frozen=True, slots=True)
class Derivatives:
    """Value and pointwise derivatives of a loss at n rows; None stands for a derivative that is zero.

    Attributes:
        value: l, (n,).
        d_v: (n, q).
        d2_v: (n, q, q).
        d_w: (n, d).
        d2_wv: (n, d, q).
        d3_v: (n, q, q, q).
        d3_wvv: (n, d, q, q).

    Example:
        >>> from metier.bilevel import Squared
        >>> rows = {"Y": np.array([1.0])}
        >>> Squared("Y").derivatives(np.zeros(1), np.array([[3.0]]), rows).d_v.item()
        2.0
    """

    value: Floats
    d_v: Floats
    d2_v: Floats
    d_w: Floats | None = None
    d2_wv: Floats | None = None
    d3_v: Floats | None = None
    d3_wvv: Floats | None = None

    def __add__(self, other: Derivatives) -> Derivatives:
        parts = {name: added(getattr(self, name), getattr(other, name)) for name in self.__slots__}
        return Derivatives(**parts)  # type: ignore[arg-type]


class Loss(ABC):
    """A pointwise loss of (w, v, row); losses add up with `+`."""

    smooth: bool = True
    """Whether third derivatives exist everywhere; the orthogonality in h rests on them."""

    @abstractmethod
    def derivatives(self, w: Floats, v: Floats, rows: Rows) -> Derivatives:
        """Return value and derivatives at w (d,), v (n, q) and the rows."""

    def n_outputs(self, rows: Rows) -> int:
        """Return q, the length of the value v that this loss takes."""
        return 1

    def __add__(self, other: Loss) -> Loss:
        return SumLoss((self, other))


@dataclass(frozen=True, slots=True)
class SumLoss(Loss):
    """A sum of losses of the same v.

    Args:
        terms: The losses.

    Example:
        >>> from metier.bilevel import Squared
        >>> shrunk = Squared("Y") + Squared(0.0)
        >>> shrunk.derivatives(np.zeros(1), np.array([[1.0]]), {"Y": np.array([3.0])}).d_v.item()
        -1.0
    """

    terms: tuple[Loss, ...]

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """Whether every term is."""
        return all(term.smooth for term in self.terms)

    def derivatives(self, w: Floats, v: Floats, rows: Rows) -> Derivatives:
        """Return the sums of the terms' derivatives."""
        return reduce(Derivatives.__add__, (term.derivatives(w, v, rows) for term in self.terms))

    def n_outputs(self, rows: Rows) -> int:
        """Return the largest q of the terms."""
        return max(term.n_outputs(rows) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Kernel:
    """rho(v, t) and its derivatives at n rows: subscripts say in what."""

    value: Floats
    t: Floats
    v: Floats
    vv: Floats
    vt: Floats
    vvv: Floats | None
    vvt: Floats | None


@dataclass(frozen=True, slots=True)
class TargetLoss(Loss):
    """c_w(Z) rho(v, g_w(Z)).

    Args:
        target: Column name, number, or target object g_w.
        weight: Weight object c_w; None for 1.
    """

    target: Target | str | float
    weight: TermWeight | None = field(default=None, kw_only=True)

    @abstractmethod
    def kernel(self, v: Floats, t: Floats) -> Kernel:
        """Return rho and its derivatives at v, t (n, q)."""

    def target_of(self, w: Floats, rows: Rows) -> tuple[Floats, Floats | None]:
        """Return g_w (n, q) and its Jacobian (n, d, q) or None."""
        return as_target(self.target).evaluate(w, rows)

    def n_outputs(self, rows: Rows) -> int:
        """Return the width of the target's column where it is one."""
        target = as_target(self.target)
        if isinstance(target, ColumnTarget):
            return int(target.evaluate(np.zeros(0), rows)[0].shape[1])
        base = getattr(target, "parts", None)
        return int(base(rows)[0].shape[1]) if base is not None else 1

    def derivatives(self, w: Floats, v: Floats, rows: Rows) -> Derivatives:
        """Return value and derivatives by the chain rule through g_w and c_w."""
        t, dt = self.target_of(w, rows)
        ensure(
            t.shape[1] in (1, v.shape[1]),
            f"the target of {type(self).__name__} is as wide as the inner solution",
            expected=f"{v.shape[1]} column(s)",
            got=f"{t.shape[1]}",
            next_step="Name columns of that width, or say n_outputs in the BilevelProblem.",
        )
        rho = self.kernel(v, np.broadcast_to(t, v.shape))
        if dt is not None:
            dt = np.broadcast_to(dt, (*dt.shape[:2], v.shape[1]))
        out = Derivatives(
            value=rho.value,
            d_v=rho.v,
            d2_v=rho.vv,
            d3_v=rho.vvv,
            d_w=None if dt is None else np.einsum("nq,ndq->nd", rho.t, dt),
            d2_wv=None if dt is None else np.einsum("nqp,ndp->ndq", rho.vt, dt),
            d3_wvv=None if dt is None or rho.vvt is None else np.einsum("nqrp,ndp->ndqr", rho.vvt, dt),
        )
        return out if self.weight is None else _weighted(out, *self.weight.evaluate(w, rows))


def _weighted(out: Derivatives, c: Floats, dc: Floats | None) -> Derivatives:
    """Return the derivatives of c l, where c moves with w by dc."""

    def times(x: Floats | None) -> Floats | None:
        return None if x is None else x * c.reshape(-1, *([1] * (x.ndim - 1)))

    def outer(x: Floats) -> Floats | None:
        return None if dc is None else np.einsum("nd,n...->nd...", dc, x)

    return Derivatives(
        value=c * out.value,
        d_v=c[:, None] * out.d_v,
        d2_v=c[:, None, None] * out.d2_v,
        d3_v=times(out.d3_v),
        d_w=added(times(out.d_w), outer(out.value)),
        d2_wv=added(times(out.d2_wv), outer(out.d_v)),
        d3_wvv=added(times(out.d3_wvv), outer(out.d2_v)),
    )


@dataclass(frozen=True, slots=True)
class CustomLoss(Loss):
    """A loss by the user's own derivatives, each a function of (w, v, rows) with v (n, q).

    `OBiGrad` compares them with finite differences before it uses them. A derivative left out is taken to be
    zero, which that comparison checks too.

    Args:
        value: l, (n,).
        d_v, d2_v: (n, q) and (n, q, q).
        d_w, d2_wv, d3_v, d3_wvv: (n, d), (n, d, q), (n, q, q, q), (n, d, q, q); None for zero.

    Example:
        >>> quartic = CustomLoss(lambda w, v, z: (v[:, 0] - w[0]) ** 4 / 4,
        ...     d_v=lambda w, v, z: (v - w[0]) ** 3,
        ...     d2_v=lambda w, v, z: 3 * (v - w[0])[:, :, None] ** 2,
        ...     d_w=lambda w, v, z: -((v - w[0]) ** 3),
        ...     d2_wv=lambda w, v, z: -3 * (v - w[0])[:, :, None] ** 2,
        ...     d3_v=lambda w, v, z: 6 * (v - w[0])[:, :, None, None],
        ...     d3_wvv=lambda w, v, z: -6 * (v - w[0])[:, :, None, None])
        >>> quartic.derivatives(np.zeros(1), np.array([[2.0]]), {"X": np.zeros((1, 1))}).d_v.item()
        8.0
    """

    value: Any
    d_v: Any = field(kw_only=True)
    d2_v: Any = field(kw_only=True)
    d_w: Any = field(default=None, kw_only=True)
    d2_wv: Any = field(default=None, kw_only=True)
    d3_v: Any = field(default=None, kw_only=True)
    d3_wvv: Any = field(default=None, kw_only=True)

    def derivatives(self, w: Floats, v: Floats, rows: Rows) -> Derivatives:
        """Return what the functions return."""

        def call(function: Any) -> Floats | None:
            return None if function is None else np.asarray(function(w, v, rows), dtype=np.float64)

        names = ("value", *(n for n in Derivatives.__slots__ if n != "value"))
        return Derivatives(**{name: call(getattr(self, name)) for name in names})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class TorchLoss(Loss):
    """A loss by a torch function of one row: f(w (d,), v (q,), row) -> scalar; row maps names to tensors.

    Args:
        function: The loss of one row, in torch operations that `torch.func` can differentiate.

    Example:
        >>> loss = TorchLoss(lambda w, v, z: (v[0] - w[0] * z["T"]) ** 2 / 2)
        >>> loss.derivatives(np.array([2.0]), np.array([[1.0]]), {"T": np.array([3.0])}).d2_wv.item()
        -3.0
    """

    function: Callable[..., Any]

    def derivatives(self, w: Floats, v: Floats, rows: Rows) -> Derivatives:
        """Return value and derivatives by automatic differentiation in float64."""
        torch: Any = require("torch")
        functional = torch.func
        batch = {
            name: torch.as_tensor(np.ascontiguousarray(x)) for name, x in rows.items() if x.dtype != object
        }
        at = torch.as_tensor(np.array(w, dtype=np.float64)), torch.as_tensor(np.array(v, dtype=np.float64))

        def call(w_: Any, v_: Any, row: Any) -> Any:
            out = self.function(w_, v_, row)
            ensure(
                getattr(out, "shape", None) == (),
                "a torch loss returns the loss of one row",
                expected="a scalar tensor",
                got=f"shape {tuple(out.shape)}" if hasattr(out, "shape") else type(out).__name__,
                next_step="v has shape (q,): write v[0] where q = 1, or sum over coordinates.",
            )
            return out

        in_v = functional.jacrev(call, argnums=1)
        in_vv = functional.jacrev(in_v, argnums=1)
        functions = {
            "value": call,
            "d_v": in_v,
            "d2_v": in_vv,
            "d_w": functional.jacrev(call, argnums=0),
            "d2_wv": functional.jacrev(in_v, argnums=0),
            "d3_v": functional.jacrev(in_vv, argnums=1),
            "d3_wvv": functional.jacrev(in_vv, argnums=0),
        }
        values = {
            name: functional.vmap(f, in_dims=(None, 0, 0))(*at, batch).detach().numpy().astype(np.float64)
            for name, f in functions.items()
        }
        # torch puts the derivative that was taken last in the last axis.
        values["d2_wv"] = np.moveaxis(values["d2_wv"], -1, 1)
        values["d3_wvv"] = np.moveaxis(values["d3_wvv"], -1, 1)
        return Derivatives(**values)


STEP = 1e-5
TOLERANCE = 1e-4
ROUNDING = 1e-7
"""Rounding of a central difference at that step, as a share of what is differenced, with room to spare."""
N_ROWS = 8
REQUIRED = ("value", "d_v", "d2_v")
"""Derivatives that a loss never leaves out."""


def check_loss(loss: Loss, w: Floats, v: Floats, rows: Rows, *, name: str = "loss") -> None:
    """Raise if a derivative of `loss` differs from the central difference of the one below it.

    Args:
        loss: Any loss.
        w: (d,) where to look.
        v: (n, q) values, one per row.
        rows: The rows.
        name: How the error names the loss.

    Raises:
        InputError: A shape is wrong, or a derivative disagrees; the text names the derivative.

    Example:
        >>> from metier.bilevel import Squared
        >>> check_loss(Squared("Y"), np.zeros(1), np.ones((2, 1)), {"Y": np.array([0.0, 2.0])})
    """
    at = loss.derivatives(w, v, rows)
    for derivative, expected_shape in _shapes(w, v).items():
        value = getattr(at, derivative)
        ensure(
            np.shape(value) == expected_shape or (value is None and derivative not in REQUIRED),
            f"{derivative} of the {name} has a fixed layout",
            expected=f"shape {expected_shape}",
            got="None" if value is None else np.shape(value),
            next_step="Return one row per data row, w before v.",
        )
    for derivative, difference, size in _differences(loss, w, v, rows):
        value = getattr(at, derivative)
        claimed = np.zeros_like(difference) if value is None else value
        # In units of the loss, so that a loss of tiny numbers is checked as closely as one of large ones.
        allowed = TOLERANCE * float(np.abs(difference).max()) + ROUNDING * size
        gap = float(np.abs(claimed - difference).max())
        # NaN must not pass.
        ensure(
            gap <= allowed,
            f"the derivatives of the {name} agree with finite differences",
            expected=f"{derivative} within {allowed:.3g} of the central difference",
            got=f"a gap of {gap:.3g}",
            next_step=f"Correct {derivative}, or pass a torch function and let autodiff do it.",
        )


def _shapes(w: Floats, v: Floats) -> dict[str, tuple[int, ...]]:
    (n, q), d = v.shape, len(w)
    return {
        "value": (n,),
        "d_v": (n, q),
        "d2_v": (n, q, q),
        "d_w": (n, d),
        "d2_wv": (n, d, q),
        "d3_v": (n, q, q, q),
        "d3_wvv": (n, d, q, q),
    }


def _differences(loss: Loss, w: Floats, v: Floats, rows: Rows) -> Iterator[tuple[str, Floats, float]]:
    """Yield (derivative, its central difference in its layout, size of what was differenced)."""
    in_v, in_w = STEP * np.eye(v.shape[1]), STEP * np.eye(len(w))
    up_in_v = [loss.derivatives(w, v + e, rows) for e in in_v]
    down_in_v = [loss.derivatives(w, v - e, rows) for e in in_v]
    up_in_w = [loss.derivatives(w + e, v, rows) for e in in_w]
    down_in_w = [loss.derivatives(w - e, v, rows) for e in in_w]
    for ups, downs, names in (
        (up_in_v, down_in_v, ("d_v", "d2_v", "d3_v")),
        (up_in_w, down_in_w, ("d_w", "d2_wv", "d3_wvv")),
    ):
        for name, below in zip(names, REQUIRED, strict=True):
            high, low = (np.stack([getattr(at, below) for at in side], axis=1) for side in (ups, downs))
            yield name, (high - low) / (2 * STEP), float(np.abs(high).max())
