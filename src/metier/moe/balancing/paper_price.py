"""The paper's price: every forward pass folds its batch into the memory before it reads its price."""

from __future__ import annotations

from dataclasses import dataclass, field

from metier.core.extras import naming_extras

from .memory import Memory

with naming_extras():
    import torch
    from torch import Tensor


@dataclass(slots=True)
class PaperPrices:
    """The prices that the forward passes of a step read, so that a recomputed pass reads its own again.

    A recomputed pass is known by its batch loads, which it repeats to the last bit.
    """

    loads: dict[str, list[Tensor]] = field(default_factory=dict)
    prices: dict[str, list[Tensor]] = field(default_factory=dict)

    def keep(self, layer: str, loads: Tensor, price: Tensor) -> None:
        """Remember the price that a pass with these batch loads read."""
        self.loads.setdefault(layer, []).append(loads)
        self.prices.setdefault(layer, []).append(price)

    def recall(self, layer: str, loads: Tensor) -> Tensor | None:
        """Return the price of the latest pass whose batch loads are nearest; None if there was none."""
        if layer not in self.loads:
            return None
        distance = torch.stack(self.loads[layer][::-1]).sub(loads).abs().sum(-1)
        return torch.stack(self.prices[layer][::-1]).index_select(0, distance.argmin().reshape(1))[0]

    def clear(self) -> None:
        """Start a new step."""
        self.loads.clear()
        self.prices.clear()


def fold(ema: Tensor, loads: Tensor, memory: Memory, *, tokens: Tensor | float, folds: int) -> None:
    """Fold a batch's loads into `ema` in place; the weight is `Memory.weight`, on the device."""
    if memory.half_life_tokens is not None:
        weight = 1.0 - torch.exp2(-torch.as_tensor(tokens, device=ema.device) / memory.half_life_tokens)
    else:
        seen = torch.as_tensor(tokens, device=ema.device) > 0
        weight = seen * memory.weight(tokens=1.0, steps=folds)
    ema.add_(weight.to(ema.dtype) * (loads.to(ema.dtype) - ema))
