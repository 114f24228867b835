"""The problem: an outer loss judged through the minimizer of an inner loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from metier.core.checks import positive_int
from metier.core.errors import InputError

from .arrays import Rows
from .loss_families import Squared
from .losses import Loss, TorchLoss
from .targets import AffineTarget, ColumnTarget, as_target


@dataclass(frozen=True, slots=True)
class BilevelProblem:
    """F(w) = E[l_out(w, h_w(X), Z)] with h_w(x) = argmin_v E[l_in(w, v, Z) | X = x].

    Args:
        inner_loss: l_in: a `Loss`, or a torch function of one row (w, v, row) -> scalar.
        outer_loss: l_out: the same.
        n_outputs: q, the length of v; None asks the inner loss.

    Raises:
        InputError: A loss is neither.

    Example:
        >>> from metier.bilevel import AffineTarget, Squared
        >>> problem = BilevelProblem(Squared(AffineTarget(None, "T")), Squared("Y"))
        >>> problem.is_quadratic, problem.is_affine
        (True, True)

    Source: the paper, equation (1), for squared losses; general pointwise losses are ours.
    """

    inner_loss: Loss
    outer_loss: Loss
    n_outputs: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("inner_loss", "outer_loss"):
            object.__setattr__(self, name, _as_loss(name, getattr(self, name)))
        if self.n_outputs is not None:
            positive_int("n_outputs", self.n_outputs)

    @property
    def is_quadratic(self) -> bool:
        """Whether both losses are squared and the outer target does not move with w."""
        inner, outer = self.inner_loss, self.outer_loss
        return (
            isinstance(inner, Squared)
            and isinstance(outer, Squared)
            and inner.weight is None
            and outer.weight is None
            and isinstance(as_target(outer.target), ColumnTarget)
            and self.n_outputs in (None, 1)
        )

    @property
    def is_affine(self) -> bool:
        """Whether it is quadratic and the inner target is an `AffineTarget`."""
        target = getattr(self.inner_loss, "target", None)
        return self.is_quadratic and isinstance(target, AffineTarget)

    def outputs(self, rows: Rows) -> int:
        """Return q."""
        return self.inner_loss.n_outputs(rows) if self.n_outputs is None else self.n_outputs

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the chosen losses cost."""
        if self.inner_loss.smooth:
            return ()
        return (
            "the inner loss has kinks: its third derivative misses them, so the score is orthogonal in h "
            "only up to the density of residuals at the kinks; LogCosh is the smooth choice",
        )


def _as_loss(name: str, loss: Loss | Callable[..., Any]) -> Loss:
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        return TorchLoss(loss)
    raise InputError(
        f"{name} is a loss",
        expected="a Loss such as Squared(...), or a torch function (w, v, row) -> scalar",
        got=type(loss).__name__,
        next_step="See metier.bilevel.Squared, Logistic, CustomLoss.",
    )
