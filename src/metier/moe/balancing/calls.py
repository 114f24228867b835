"""One call of a router: gate values, counts, the loss of its tokens, and its way into the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from metier.core.errors import InputError

from .bias_rules import count_distances, distance_to_selection
from .layers import Block

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


class Inject(torch.autograd.Function):
    """Identity on `scores` whose backward pass also sends the gradient 1 into `aux`.

    The task loss and `aux` are then differentiated together, wherever the loop calls `backward`. The
    gradient of `aux` ignores what scales the task loss (gradient accumulation, mixed precision, averaging
    over ranks): the balancer's `loss_scale` and `tokens_per_step` say what `aux` has to count for.

    Example:
        >>> w = torch.ones(2, requires_grad=True)
        >>> scores = Inject.apply(3.0 * w, (w**2).sum(), None)
        >>> scores.sum().backward()
        >>> w.grad.tolist()
        [5.0, 5.0]
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, aux: Tensor, arrived: Callable[[], None] | None) -> Tensor:
        """Return `scores` as they are."""
        ctx.arrived = arrived
        ctx.aux = (aux.shape, aux.dtype, aux.device)
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """Pass the gradient of the scores through, and send 1 into `aux`."""
        if ctx.arrived is not None:
            ctx.arrived()
        shape, dtype, device = ctx.aux
        return grads[0], torch.ones(shape, dtype=dtype, device=device), None


@dataclass(slots=True)
class InjectedLoss:
    """The value injected in a step, summed where it is: per device, and read when it is asked for."""

    losses: dict[torch.device, Tensor] = field(default_factory=dict)
    finished: bool = False

    def add(self, loss: Tensor) -> None:
        """Add a call's loss; the first one after `finish` starts a new sum."""
        if self.finished:
            self.clear()
        before = self.losses.get(loss.device)
        self.losses[loss.device] = loss if before is None else before + loss

    def finish(self) -> None:
        """End the step; its value stays readable until the next one begins."""
        self.finished = True

    def clear(self) -> None:
        """Forget the value."""
        self.losses.clear()
        self.finished = False

    def value(self) -> Tensor:
        """Return the sum over devices, 0 where nothing was injected."""
        if not self.losses:
            return torch.zeros(())
        home = next(iter(self.losses))
        return torch.stack([loss.to(home) for loss in self.losses.values()]).sum()


def inside_backward() -> bool:
    """Whether autograd is running, so that a forward pass seen now recomputes an earlier one.

    `torch.is_grad_enabled()` cannot tell: the first forward pass of reentrant checkpointing has no
    gradient either.

    Example:
        >>> inside_backward()
        False
    """
    return bool(torch._C._current_graph_task_id() != -1)


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
