"""Rules that move selection biases between two steps: potential, sign, proportional, quantile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from metier.core.extras import naming_extras

from .potentials import Potential

with naming_extras():
    import torch
    from torch import Tensor


BIAS_FLOOR = 1e-3
"""Smallest relative load that a bias price sees."""


@dataclass(frozen=True, slots=True)
class StepLoads:
    """What a bias rule sees of a finished step.

    Attributes:
        hard: Shares of the choices of this step, (L, E), summing to 1.
        ema: Loads as they are remembered, this step included, (L, E).
        target: Loads to aim for, (E,).
        quantile: The top_k target quantile of cut - score per expert, (L, E), for the quantile rule.
    """

    hard: Tensor
    ema: Tensor
    target: Tensor
    quantile: Tensor | None = None


class BiasRule(Protocol):
    """How biases (L, E) follow the loads of a step."""

    def update(self, bias: Tensor, loads: StepLoads) -> Tensor:
        """Return the new biases; the balancer centers them."""
        ...


@dataclass(frozen=True, slots=True)
class PotentialBias:
    """b = -strength price(m): the price enters the selection instead of the loss (ours).

    Example:
        >>> from metier.moe import Shannon
        >>> m = torch.tensor([[0.5, 0.25, 0.25]])
        >>> loads = StepLoads(hard=m, ema=m, target=torch.full((3,), 1 / 3))
        >>> PotentialBias(0.3, Shannon()).update(torch.zeros(1, 3), loads)[0, 0].item() < 0
        True
    """

    strength: float
    potential: Potential

    def update(self, bias: Tensor, loads: StepLoads) -> Tensor:
        """Return -strength price(max(m, 1e-3 / E))."""
        return -self.strength * self.potential.price(loads.ema, floor=BIAS_FLOOR)


@dataclass(frozen=True, slots=True)
class SignBias:
    """b += strength sign(target - load): loss-free balancing (arXiv 2408.15664).

    Example:
        >>> m = torch.tensor([[0.7, 0.3]])
        >>> loads = StepLoads(hard=m, ema=m, target=torch.full((2,), 0.5))
        >>> SignBias(0.5).update(torch.zeros(1, 2), loads).tolist()
        [[-0.5, 0.5]]
    """

    strength: float
    potential: Potential | None = None

    def update(self, bias: Tensor, loads: StepLoads) -> Tensor:
        """Return b + strength sign(target - load)."""
        return bias + self.strength * torch.sign(loads.target - loads.hard)


@dataclass(frozen=True, slots=True)
class ProportionalBias:
    """b += strength (1 - load / target): the proportional variant of loss-free balancing.

    Example:
        >>> m = torch.tensor([[0.75, 0.25]])
        >>> loads = StepLoads(hard=m, ema=m, target=torch.full((2,), 0.5))
        >>> ProportionalBias(1.0).update(torch.zeros(1, 2), loads).tolist()
        [[-0.5, 0.5]]
    """

    strength: float
    potential: Potential | None = None

    def update(self, bias: Tensor, loads: StepLoads) -> Tensor:
        """Return b + strength (1 - load / target)."""
        return bias + self.strength * (1.0 - loads.hard / loads.target)


@dataclass(frozen=True, slots=True)
class QuantileBias:
    """b <- (1 - strength) b + strength quantile: each expert wins its share of the tokens.

    The quantile is that of cut - score at top_k target, where cut is the selection score that a token's
    expert has to beat: `moe.quantile_bias` is the exact form.

    Example:
        >>> m = torch.full((1, 2), 0.5)
        >>> loads = StepLoads(hard=m, ema=m, target=m[0], quantile=torch.ones(1, 2))
        >>> QuantileBias(0.5).update(torch.zeros(1, 2), loads).tolist()
        [[0.5, 0.5]]
    """

    strength: float
    potential: Potential | None = None

    def update(self, bias: Tensor, loads: StepLoads) -> Tensor:
        """Return the mix of the old bias and the quantile."""
        if loads.quantile is None:
            return bias
        return bias + self.strength * (loads.quantile - bias)


BIAS_RULES: MappingProxyType[str, Callable[[float, Potential], BiasRule]] = MappingProxyType(
    {
        "potential": PotentialBias,
        "sign": SignBias,
        "proportional": ProportionalBias,
        "quantile": QuantileBias,
    }
)

BIAS_STRENGTHS = MappingProxyType({"potential": 0.3, "sign": 1e-3, "proportional": 1e-2, "quantile": 1.0})
"""Default strengths of the rules, for scores in [0, 1]."""
