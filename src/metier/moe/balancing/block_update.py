"""What a finished step does to the layers of one shape: new loads, prices and biases."""

from __future__ import annotations

from dataclasses import dataclass

from metier.core.extras import naming_extras

from .bias_rules import BiasRule, StepLoads
from .layers import Block
from .memory import Memory
from .potentials import Potential
from .quantiles import histogram_quantile
from .reduce import StepFacts
from .step_report import BlockReport, block_report

with naming_extras():
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class BlockUpdate:
    """Moves loads, prices and biases by a step's reduced sums.

    Attributes:
        potential: Whose gradient is the price.
        memory: The weight of a step among the remembered loads.
        track: "soft" remembers gate values, "hard" choices.
        price_mode: "lagged", or "paper", whose loads were folded in the forward pass.
        bias_rule: How selection biases move; None where there are none.
    """

    potential: Potential
    memory: Memory
    track: str
    price_mode: str
    bias_rule: BiasRule | None

    @torch.no_grad()
    def apply(self, block: Block, facts: StepFacts) -> BlockReport:
        """Change `block` in place and return what happened."""
        before = block.ema.clone()
        counts = block.part("hard")
        hard = counts / counts.sum(-1, keepdim=True).clamp_min(1.0)
        seen = [facts.tokens[name] for name in block.names]
        # Of the running mean: steps that had tokens for this layer, whenever it was added.
        earlier = list(block.folds)
        weights = [self.memory.weight(tokens=n, steps=t) for n, t in zip(seen, earlier, strict=True)]
        self._move_loads(block, hard, weights, world=facts.world)
        # Not in place: a graph that is still waiting for its backward pass holds the old prices.
        block.price = self.potential.price(block.ema).to(block.price.dtype)
        if self.bias_rule is not None:
            self._move_bias(block, hard, self.bias_rule)
        noise = [self._noise(weight, t) for weight, t in zip(weights, earlier, strict=True)]
        report = block_report(block, before, noise)
        for i, n in enumerate(seen):
            block.tokens[i] += round(n)
            block.folds[i] += self.price_mode == "lagged" and n > 0
        return report

    def _move_loads(self, block: Block, hard: Tensor, weights: list[float], *, world: int) -> None:
        tokens = block.part("tokens")[:, None]
        if self.price_mode == "paper":
            folded = block.part("folded") / tokens.clamp_min(1.0)
            if world > 1:
                block.ema.copy_(torch.where(tokens > 0, folded, block.ema))
            return
        eta = torch.tensor(weights, dtype=block.ema.dtype, device=block.device)[:, None]
        target = block.part("soft") / tokens.clamp_min(1.0) if self.track == "soft" else hard
        known = target.sum(-1, keepdim=True) > 0
        block.ema.add_(eta * known * (target - block.ema))

    def _move_bias(self, block: Block, hard: Tensor, rule: BiasRule) -> None:
        aim = self.potential.target_loads(block.ema)
        quantile = None
        if block.histogram is not None:
            top_k = torch.tensor(block.top_k, dtype=hard.dtype, device=hard.device)[:, None]
            quantile = histogram_quantile(block.histogram, (top_k * aim).clamp_max(1.0))
        loads = StepLoads(hard=hard, ema=block.ema, target=aim, quantile=quantile)
        bias = rule.update(block.bias.to(hard.dtype), loads)
        bias = bias - bias.mean(-1, keepdim=True)
        chosen = hard.sum(-1, keepdim=True) > 0
        block.bias.copy_(torch.where(chosen, bias, block.bias.to(hard.dtype)))

    def _noise(self, weight: float, earlier: int) -> float:
        """Return eta' such that Cov m = eta' Cov p for independent steps."""
        if self.memory.running:
            return 1.0 / max(earlier, 1)
        return weight / (2.0 - weight)
