"""Potentials: what an uneven load costs, and its gradient, the price of each expert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from metier.core.checks import ensure
from metier.core.errors import InputError

FLOOR = 1e-6
"""Smallest relative load E m that a price sees; below it log and power prices run away."""


class Potential:
    r"""A strictly convex cost of expert loads, least at the target, of curvature E at uniform loads.

    Write phi for the cost as a formula gives it (`raw_value`), pi for the target loads and E for the
    number of experts. Every member is rescaled and made a Bregman divergence,

        value(p) = c [ phi(p) - phi(pi) - <grad phi(pi), p - pi> ],   c = E / (curvature of phi at 1/E),

    so that value(pi) = 0 is the least value on the simplex and one strength means the same for all
    members and all E. Near uniform loads every price is E p - 1 to first order. For the negative Shannon
    entropy value is KL(p || pi) and the price is log(p / pi) up to a constant.

    Your own potential is a subclass with one method, `raw_value`, a symmetric convex function of the loads
    written in torch operations; the gradient and the curvature then come from autograd. Write
    `raw_gradient` (and `raw_curvature`) too where speed matters, and `raw_conjugate` and `raw_inverse`
    where you want `conjugate` and `inverse`.

    Args:
        target: Loads to aim for, shape (E,), positive, summing to 1; None means 1/E each.

    Raises:
        InputError: The target is no positive probability vector.

    Example:
        >>> class Quartic(Potential):
        ...     def raw_value(self, loads):
        ...         return (loads**4).sum(-1)
        >>> phi = Quartic()
        >>> loads = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
        >>> [round(x, 3) for x in phi.price(loads).tolist()]
        [0.832, 0.043, -0.363, -0.512]
        >>> round(phi.curvature(4), 6)
        4.0

    Source: phi-Balancing (arXiv 2605.15403), section 3; the rescaling and the targets are ours.
    """

    simplex_only = False
    """Whether `conjugate` and `inverse` hold on the simplex only (gradients up to a constant)."""

    def __init__(self, *, target: Any = None) -> None:
        self.target = None if target is None else _checked_target(target)

    # What a member writes.

    def raw_value(self, loads: Tensor) -> Tensor:
        """Return phi(p) as its formula has it; loads (..., E) -> (...)."""
        raise NotImplementedError(f"{type(self).__name__} must write raw_value(loads)")

    def raw_gradient(self, loads: Tensor) -> Tensor:
        """Return grad phi(p), shape (..., E); from autograd unless a member writes it."""
        return cast(Tensor, torch.func.grad(lambda p: self.raw_value(p).sum())(loads))

    def raw_conjugate(self, prices: Tensor) -> Tensor:
        """Return phi*(q) = sup_p <p, q> - phi(p); (..., E) -> (...)."""
        raise _without(self, "raw_conjugate")

    def raw_inverse(self, prices: Tensor) -> Tensor:
        """Return the loads whose gradient is q, shape (..., E)."""
        raise _without(self, "raw_inverse")

    def raw_curvature(self, n_experts: int) -> float:
        """Return the second derivative of phi at uniform loads along a direction of the simplex."""
        return _curvature_at_uniform(self.raw_gradient, n_experts)

    # What everybody calls.

    def scale(self, n_experts: int) -> float:
        """Return c, what phi is multiplied by to have curvature E at uniform loads."""
        return n_experts / self.raw_curvature(n_experts)

    def value(self, loads: Tensor) -> Tensor:
        """Return the cost of loads (..., E), shape (...): 0 at the target, above 0 elsewhere."""
        return self.bregman(loads, self.target_loads(loads))

    def gradient(self, loads: Tensor) -> Tensor:
        """Return the gradient of `value`, shape (..., E), not centered."""
        target = self.target_loads(loads)
        return self.scale(loads.shape[-1]) * (self.raw_gradient(loads) - self.raw_gradient(target))

    def price(self, loads: Tensor, *, floor: float = FLOOR) -> Tensor:
        """Return the price of each expert: the gradient at max(p, floor / E), centered to sum 0."""
        gradient = self.gradient(loads.clamp_min(floor / loads.shape[-1]))
        return gradient - gradient.mean(-1, keepdim=True)

    def conjugate(self, prices: Tensor) -> Tensor:
        """Return value*(q) = sup_p <p, q> - value(p); (..., E) -> (...)."""
        target, c = self.target_loads(prices), self.scale(prices.shape[-1])
        slope = self.raw_gradient(target)
        shift = self.raw_value(target) - (slope * target).sum(-1)
        return c * (self.raw_conjugate(prices / c + slope) + shift)

    def inverse(self, prices: Tensor) -> Tensor:
        """Return the loads whose `gradient` is `prices`, shape (..., E)."""
        slope = self.raw_gradient(self.target_loads(prices))
        return self.raw_inverse(prices / self.scale(prices.shape[-1]) + slope)

    def curvature(self, n_experts: int) -> float:
        """Return the curvature of `value` at uniform loads along the simplex: E, by construction."""
        return _curvature_at_uniform(lambda p: self.scale(n_experts) * self.raw_gradient(p), n_experts)

    def bregman(self, loads: Tensor, reference: Tensor) -> Tensor:
        """Return the Bregman divergence of `loads` from `reference`, shape (...); the dual gap."""
        slope = self.raw_gradient(reference)
        linear = (slope * (loads - reference)).sum(-1)
        gap = self.raw_value(loads) - self.raw_value(reference) - linear
        return self.scale(loads.shape[-1]) * gap

    def second_derivatives(self, loads: Tensor) -> Tensor:
        """Return the diagonal of the Hessian of `value`, shape (..., E), for separable members."""
        slopes: Tensor = torch.func.grad(lambda p: self.raw_gradient(p).sum())(loads)
        return self.scale(loads.shape[-1]) * slopes

    def with_target(self, target: Any) -> Potential:
        """Return a copy that aims for other loads."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.target = None if target is None else _checked_target(target)
        return copy

    def identity(self) -> str:
        """Return the name and parameters as text, which a saved state must match."""
        parameters = {k: v for k, v in sorted(vars(self).items()) if k != "target"}
        parts = [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                 for name, value in parameters.items()]  # fmt: skip
        if self.target is not None:
            parts.append("target=" + ",".join(f"{share:.9g}" for share in self.target.tolist()))
        return f"{type(self).__name__}({', '.join(parts)})"

    def __repr__(self) -> str:
        return self.identity()

    def target_loads(self, like: Tensor) -> Tensor:
        """Return the target as a tensor (E,) for values (..., E): the given one, or 1/E each."""
        n_experts = like.shape[-1]
        if self.target is None:
            return torch.full((n_experts,), 1.0 / n_experts, dtype=like.dtype, device=like.device)
        ensure(
            self.target.numel() == n_experts,
            "target loads have one share per expert",
            expected=f"{n_experts} shares",
            got=f"{self.target.numel()}",
            next_step="Pass target= with one share per expert of these routers.",
        )
        return self.target.to(dtype=like.dtype, device=like.device)


def _curvature_at_uniform(gradient: Callable[[Tensor], Tensor], n_experts: int) -> float:
    uniform = torch.full((n_experts,), 1.0 / n_experts, dtype=torch.float64)
    direction = torch.zeros(n_experts, dtype=torch.float64)
    direction[0], direction[1] = 0.5**0.5, -(0.5**0.5)
    slope: Tensor = torch.func.grad(lambda p: (gradient(p) * direction).sum())(uniform)
    return float(slope @ direction)


def _checked_target(target: Any) -> Tensor:
    shares = torch.as_tensor(target, dtype=torch.float64).detach().cpu().flatten()
    bad = bool((~(shares > 0)).any()) or not abs(float(shares.sum()) - 1.0) < 1e-6
    ensure(
        not bad and shares.numel() >= 2,
        "target loads are a probability vector",
        expected="at least two shares, all above 0, that sum to 1",
        got=f"{[round(x, 6) for x in shares.tolist()][:8]}",
        next_step="Divide the target by its sum, and give every expert a share.",
    )
    return shares / shares.sum()


def _without(potential: Potential, method: str) -> InputError:
    return InputError(
        f"{type(potential).__name__} has no {method.removeprefix('raw_')}",
        expected=f"a potential that writes {method}(prices)",
        got=repr(potential),
        next_step=f"Write {method} in your subclass; training itself never needs it.",
    )
