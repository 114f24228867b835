"""From what a router returns to gate values and counts, without reading a value on the host."""

from __future__ import annotations

from dataclasses import dataclass

from metier.core.errors import InputError
from metier.core.extras import naming_extras

with naming_extras():
    import torch
    from torch import Tensor
    from torch.nn.functional import logsigmoid


SIMPLEX_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Tokens:
    """A router call, flat: N tokens, E experts, k chosen.

    Attributes:
        gates: p, (N, E), rows on the simplex, float32 or float64, with gradient.
        logits: Raw logits (N, E) in the same precision, or None where gate values were given.
        indices: Chosen experts, (N, k).
        weight: 1 where a token counts and 0 where it is masked, (N,), or None where all count.
    """

    gates: Tensor
    logits: Tensor | None
    indices: Tensor
    weight: Tensor | None

    @property
    def count(self) -> Tensor | float:
        """Number of tokens that count."""
        return float(self.gates.shape[0]) if self.weight is None else self.weight.sum()

    def total(self, values: Tensor) -> Tensor:
        """Sum values (N, ...) over the tokens that count."""
        return values.sum(0) if self.weight is None else torch.tensordot(self.weight, values, dims=1)


def read_tokens(
    layer: str,
    n_experts: int,
    *,
    logits: Tensor | None,
    probs: Tensor | None,
    indices: Tensor,
    mask: Tensor | None,
    router: str,
) -> Tokens:
    """Return a router call as flat tensors; shapes that do not fit are refused by the layer's name."""
    given = probs if logits is None else logits
    if given is None or (probs is not None and logits is not None):
        raise InputError(
            "a router is observed through its logits or its gate values",
            expected="exactly one of logits and probs",
            got="both" if given is not None else f"neither, at layer {layer!r}",
            next_step="Pass the raw router logits where you have them.",
        )
    if given.shape[-1] != n_experts:
        raise _shape_error(layer, "logits over all experts", f"(..., {n_experts})", tuple(given.shape))
    given = given.reshape(-1, n_experts)
    n_tokens, flat = given.shape[0], indices.reshape(-1, indices.shape[-1])
    if flat.shape[0] != n_tokens:
        raise _shape_error(layer, "indices", f"({n_tokens}, k)", tuple(flat.shape))
    precise = given if given.dtype == torch.float64 else given.float()
    weight = None
    if mask is not None:
        keep = mask.reshape(-1).to(torch.bool)
        if keep.shape[0] != n_tokens:
            raise _shape_error(layer, "mask", f"({n_tokens},)", tuple(keep.shape))
        weight = keep.to(precise.dtype)
        # Padding may hold NaN, which a weight of 0 would pass on to values and gradients.
        precise = precise.masked_fill(~keep[:, None], 0.0)
    if logits is None:
        return Tokens(precise, None, flat, weight)
    return Tokens(gate_probabilities(precise, router), precise, flat, weight)


def gate_probabilities(logits: Tensor, router: str) -> Tensor:
    """Return p over all experts, rows summing to 1: softmax, or normalized sigmoid.

    The normalized sigmoid is the softmax of log sigmoid(z): exact where all logits are so low that a
    division by sum + epsilon would shrink p.

    Example:
        >>> p = gate_probabilities(torch.tensor([[-80.0, -81.0]], dtype=torch.float64), "sigmoid")
        >>> round(p.sum().item(), 9)
        1.0
    """
    return torch.softmax(logsigmoid(logits) if router == "sigmoid" else logits, dim=-1)


def selection_scores(tokens: Tokens, router: str) -> Tensor:
    """Return the scores that select where a router gives none: sigmoid(z), or the gate values."""
    if router == "sigmoid" and tokens.logits is not None:
        return torch.sigmoid(tokens.logits.detach())
    return tokens.gates.detach()


def route_counts(tokens: Tokens, n_experts: int) -> Tensor:
    """Return how often each expert was chosen by tokens that count, (E,); ids >= E are left out."""
    ids, gates = tokens.indices, tokens.gates
    counts = torch.zeros(n_experts + 1, dtype=gates.dtype, device=gates.device)
    weight = gates.new_ones(1) if tokens.weight is None else tokens.weight[:, None]
    # torch.bincount would wait for the device to know its length.
    counts.scatter_add_(0, ids.clamp(0, n_experts).reshape(-1), weight.expand(ids.shape).reshape(-1))
    return counts[:n_experts]


def invalid_tokens(tokens: Tokens) -> Tensor:
    """Return how many rows of given gate values are no probability vectors."""
    gates = tokens.gates.detach()
    good = ((gates.sum(-1) - 1.0).abs() <= SIMPLEX_TOLERANCE) & (gates >= 0.0).all(-1)
    return tokens.total((~good).to(gates.dtype))


def _shape_error(layer: str, what: str, expected: str, got: tuple[int, ...]) -> InputError:
    return InputError(
        f"{what} of layer {layer!r} fit its registration",
        expected=f"shape {expected}",
        got=f"shape {got}",
        next_step="Register the layer with the n_experts of its router, and pass all experts' logits.",
    )
