"""Add a loss's gradient to the backward pass without touching the training loop's loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from metier.core.extras import naming_extras

with naming_extras():
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
