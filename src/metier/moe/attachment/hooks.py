"""What runs at every router: bias the choice, let the balancer count it, join its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metier.moe.balancing.balancer import Balancer
from metier.moe.balancing.inject import inside_backward

from .eager import uncompiled
from .masks import MaskReader
from .routers import FoundRouter


class RouterHook:
    """Forward hook of one router."""

    def __init__(self, router: FoundRouter, balancer: Balancer, masks: MaskReader) -> None:
        self.router, self.balancer, self.masks = router, balancer, masks
        self.gating = router.gating
        self.calls = 0
        self.priced = self.reached = False
        self.base = _copy(router.bias_buffer()) if balancer.bias(router.name) is not None else None

    # Reads Python state that a compiled graph would freeze; compiled models break the graph here.
    @uncompiled
    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the router's output with its choice biased and the balancing gradient joined."""
        self.calls += 1
        family, name = self.router.family, self.router.name
        logits, scores, indices = family.read(output)
        bias = None if self.base is not None or family.select is None else self.balancer.bias(name)
        if bias is not None and family.select is not None:
            chosen, indices = family.select(module, logits, bias.to(logits.device))
            scores = chosen.to(scores.dtype)
        if module.training:
            scores = self._balance(logits, scores, indices)
        elif bias is None:
            return output
        return family.write(output, scores, indices)

    def _balance(self, logits: Tensor, scores: Tensor, indices: Tensor) -> Tensor:
        name = self.router.name
        aux = self.balancer.observe(
            name,
            logits,
            indices=indices,
            scores=self._shifted_scores(logits),
            mask=self.masks.mask_of(name, logits, repeated=inside_backward()),
            router=self.gating,  # type: ignore[arg-type]
            training=True,
        )
        if aux is not None:
            self.priced, self.reached = True, self.reached or aux.requires_grad
        return self.balancer.inject(scores, aux)

    def start_step(self) -> None:
        """Forget what this step's calls did."""
        self.priced = self.reached = False

    def _shifted_scores(self, logits: Tensor) -> Tensor | None:
        """Selection scores before our bias, where the model's own bias shifts them; None otherwise."""
        if self.base is None:
            return None
        z = logits.detach().float()
        scores = torch.sigmoid(z) if self.gating == "sigmoid" else torch.softmax(z, dim=-1)
        return scores + self.base.to(z.device).view(-1)

    def write_bias(self) -> None:
        """Put the bias that is in force now into the model's own buffer; called between steps only."""
        buffer, bias = self.router.bias_buffer(), self.balancer.bias(self.router.name)
        if self.base is not None and buffer is not None and bias is not None:
            put(buffer, self.base.to(buffer.device) + bias.to(buffer.device).view_as(buffer))

    def restore_bias(self) -> None:
        """Put the model's own bias back."""
        buffer = self.router.bias_buffer()
        if self.base is not None and buffer is not None:
            put(buffer, self.base)


class SelectionBias:
    """Forward hook that adds a fixed bias to a router's choice, kept as a buffer of the router."""

    BUFFER = "selection_bias"

    def __init__(self, router: FoundRouter) -> None:
        self.router = router

    @uncompiled
    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Return the router's output with its choice biased."""
        family = self.router.family
        logits, scores, indices = family.read(output)
        if family.select is not None:
            bias = getattr(module, self.BUFFER).to(logits.device)
            chosen, indices = family.select(module, logits, bias)
            scores = chosen.to(scores.dtype)
        return family.write(output, scores, indices)


def put(buffer: Tensor, values: Tensor) -> None:
    """Write into a buffer in place, whatever its precision; the balancer keeps the exact bias."""
    with torch.no_grad():
        buffer.copy_(values)


def _copy(buffer: Tensor | None) -> Tensor | None:
    return None if buffer is None else buffer.detach().clone()
