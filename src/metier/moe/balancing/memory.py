"""How much a batch counts against what was seen before, and the paper's price that folds it in at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from metier.core.checks import ensure, non_negative

DEFAULT_WEIGHT_NEW = 0.05


@dataclass(frozen=True, slots=True)
class Memory:
    r"""The weight eta of the new batch in m <- (1 - eta) m + eta p.

    Exactly one of the three is set. eta = 1 - 2^(-n / half_life_tokens) for a step of n tokens, so that
    a step of 3n tokens forgets as much as three steps of n; or a constant `weight_new`; or 1 / (t + 1)
    after t steps that had tokens for the layer, the running mean.

    Args:
        half_life_tokens: Tokens after which a load counts half.
        weight_new: Constant weight of the new step, in (0, 1].
        running: The mean over all steps.

    Example:
        >>> Memory(half_life_tokens=1000.0).weight(tokens=1000, steps=0)
        0.5
        >>> Memory(running=True).weight(tokens=10, steps=3)
        0.25
    """

    half_life_tokens: float | None = None
    weight_new: float | None = None
    running: bool = False

    def weight(self, *, tokens: float, steps: int) -> float:
        """Return eta for a step of `tokens` tokens after `steps` others with tokens; 0 without tokens."""
        if tokens <= 0:
            return 0.0
        if self.half_life_tokens is not None:
            return 1.0 - math.exp2(-float(tokens) / self.half_life_tokens)
        if self.running:
            return 1.0 / (steps + 1)
        return float(self.weight_new or 0.0)

    def describe(self) -> str:
        """Return the setting as text, for state dictionaries."""
        if self.half_life_tokens is not None:
            return f"half_life_tokens={self.half_life_tokens:.12g}"
        return "running" if self.running else f"weight_new={self.weight_new:.12g}"


def resolve_memory(half_life_tokens: float | None, weight_new: float | None, running: bool) -> Memory:
    """Return the one memory that was asked for; none asked for is weight_new=0.05.

    Raises:
        InputError: More than one was given, or one is out of range.

    Example:
        >>> resolve_memory(None, None, False).weight_new
        0.05
    """
    given = [half_life_tokens is not None, weight_new is not None, bool(running)]
    ensure(
        sum(given) <= 1,
        "a balancer has one memory",
        expected="one of half_life_tokens, weight_new, running",
        got=f"half_life_tokens={half_life_tokens!r}, weight_new={weight_new!r}, running={running!r}",
        next_step="Keep the one you mean.",
    )
    if half_life_tokens is not None:
        tokens = non_negative("half_life_tokens", half_life_tokens)
        ensure(
            tokens > 0,
            "half_life_tokens is a number of tokens",
            expected="more than 0",
            got=half_life_tokens,
            next_step="Pass weight_new=1.0 for no memory at all.",
        )
        return Memory(half_life_tokens=tokens)
    if weight_new is not None:
        weight = non_negative("weight_new", weight_new)
        ensure(
            0 < weight <= 1,
            "weight_new is the weight of the new step",
            expected="0 < weight_new <= 1",
            got=weight_new,
            next_step="Pass weight_new=0.05, a half-life of 13.5 steps.",
        )
        return Memory(weight_new=weight)
    return Memory(running=True) if running else Memory(weight_new=DEFAULT_WEIGHT_NEW)


@dataclass(slots=True)
class PaperPrices:
    """The prices that the forward passes of a step read, so that a recomputed pass reads its own again.

    A recomputed pass is known by its batch loads, which it repeats to the last bit.
    """

    passes: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    """By layer, in order: the batch loads of a pass, and the price it read."""

    def keep(self, layer: str, loads: Tensor, price: Tensor) -> None:
        """Remember the price that a pass with these batch loads read."""
        self.passes.setdefault(layer, []).append((loads, price))

    def recall(self, layer: str, loads: Tensor) -> Tensor | None:
        """Return the price of the latest pass whose batch loads are nearest; None if there was none."""
        if layer not in self.passes:
            return None
        known, prices = zip(*reversed(self.passes[layer]), strict=True)
        distance = torch.stack(known).sub(loads).abs().sum(-1)
        return torch.stack(prices).index_select(0, distance.argmin().reshape(1))[0]

    def clear(self) -> None:
        """Start a new step."""
        self.passes.clear()


def fold(ema: Tensor, loads: Tensor, memory: Memory, *, tokens: Tensor | float, folds: int) -> None:
    """Fold a batch's loads into `ema` in place; the weight is `Memory.weight`, on the device."""
    if memory.half_life_tokens is not None:
        weight = 1.0 - torch.exp2(-torch.as_tensor(tokens, device=ema.device) / memory.half_life_tokens)
    else:
        has_tokens = torch.as_tensor(tokens, device=ema.device) > 0
        weight = has_tokens * memory.weight(tokens=1.0, steps=folds)
    ema.add_(weight.to(ema.dtype) * (loads.to(ema.dtype) - ema))
