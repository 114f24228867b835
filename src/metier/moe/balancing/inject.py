"""Add a loss's gradient to the backward pass without touching the training loop's loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


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


def inside_backward() -> bool:
    """Whether autograd is running, so that a forward pass seen now recomputes an earlier one.

    `torch.is_grad_enabled()` cannot tell: the first forward pass of reentrant checkpointing has no
    gradient either.

    Example:
        >>> inside_backward()
        False
    """
    return bool(torch._C._current_graph_task_id() != -1)
