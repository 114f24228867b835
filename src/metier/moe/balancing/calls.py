"""What one call of a router adds to the sums of the step, and what its tokens pay."""

from __future__ import annotations

from metier.core.extras import naming_extras

from .gating import Tokens, invalid_tokens, route_counts
from .layers import Block
from .quantiles import count_distances, distance_to_selection

with naming_extras():
    import torch
    from torch import Tensor


class RouterCall:
    """The sums of a call: gate values with gradient, choices without.

    No value of a tensor is read on the host, and no number of the host is copied to the device: both would
    wait for it. Scalars are filled in there instead.

    Args:
        tokens: of the call.
        n_experts: E.
    """

    def __init__(self, tokens: Tokens, n_experts: int) -> None:
        self.tokens, self.n_experts = tokens, n_experts
        self.soft = tokens.total(tokens.gates)
        with torch.no_grad():
            self.hard = route_counts(tokens, n_experts)

    @property
    def count_tensor(self) -> Tensor:
        """Tokens that count, a scalar on the device."""
        count = self.tokens.count
        return count if isinstance(count, Tensor) else self.hard.new_full((), count)

    def loads(self, track: str) -> Tensor:
        """Loads of these tokens alone, (E,): mean gate values ("soft") or shares of the choices ("hard")."""
        if track == "soft":
            return self.soft.detach() / self.count_tensor.clamp_min(1.0)
        return self.hard / self.hard.sum().clamp_min(1.0)

    def count(self, block: Block, row: int, *, given: bool) -> None:
        """Add the sums to those of the step; `given` gate values are checked to be probabilities."""
        gates = self.tokens.gates.detach()
        wrong = invalid_tokens(self.tokens) if given else gates.new_zeros(())
        counts = torch.stack([self.count_tensor, gates.new_ones(()), wrong])
        unused = gates.new_zeros(self.n_experts)
        squares = self.tokens.total(gates**2)
        block.sums[row].add_(torch.cat([self.soft.detach(), self.hard, squares, unused, counts]))

    def count_scores(self, block: Block, row: int, scores: Tensor) -> None:
        """Add to the histogram of the quantile rule how far each score is from being chosen."""
        assert block.histogram is not None
        tokens = self.tokens
        scores = scores.reshape(tokens.gates.shape).to(tokens.gates.dtype)
        weight = tokens.weight if tokens.weight is not None else scores.new_ones(scores.shape[0])
        distance = distance_to_selection(scores, block.bias[row], tokens.indices)
        # NaN has no bin; its token is refused by `step` through the sums.
        count_distances(block.histogram[row], distance.nan_to_num(), weight)

    def loss(
        self,
        price: Tensor,
        *,
        strength: float | None,
        z_loss: float,
        scale: float,
        tokens_per_step: float | None,
    ) -> Tensor | None:
        """Return the loss of these tokens, or None where nothing enters the loss.

        Args:
            price: q, (E,).
            strength: alpha, or None where prices enter the selection only.
            z_loss: weight of the mean squared logsumexp.
            scale: what the loss is multiplied by.
            tokens_per_step: what sums over tokens are divided by; None: the tokens of this call.
        """
        total: Tensor | None = None
        if strength is not None:
            total = strength * (self.soft @ price.to(self.soft.dtype))
        if z_loss and self.tokens.logits is not None:
            squares = self.tokens.total(torch.logsumexp(self.tokens.logits, -1) ** 2)
            total = z_loss * squares + (0.0 if total is None else total)
        if total is None:
            return None
        norm = self.tokens.count if tokens_per_step is None else tokens_per_step
        norm = norm.clamp_min(1.0) if isinstance(norm, Tensor) else max(float(norm), 1.0)
        return total * (scale / norm)
