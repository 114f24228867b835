"""What runs inside a model: padding masks, and hooks that bias, count and price each router's choice."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from metier.core.checks import ensure
from metier.moe.balancing.balancer import Balancer
from metier.moe.balancing.calls import inside_backward

from .routers import FoundRouter

Function = TypeVar("Function", bound=Callable[..., Any])


def uncompiled(function: Function) -> Function:
    """Run `function` as it is inside compiled models, which break their graph at it.

    Example:
        >>> uncompiled(len)([1, 2])
        2
    """
    return cast(Function, torch.compiler.disable(function))  # type: ignore[no-untyped-call]


class MaskReader:
    """Knows the padding mask at every router, in the forward pass and where checkpointing repeats it.

    Models hand `attention_mask` (batch, length) down as something else, or not at all, so it is read where
    it enters. Activation checkpointing repeats a layer after the model's forward pass has ended, and the
    passes of several micro-batches can be repeated in any order. The repeated pass has the router logits
    of the first one: the mask is found by them, without waiting for the device.
    """

    def __init__(self) -> None:
        self._current: list[Tensor | None] = []
        self._given: list[Tensor | None] = []
        # By router, of the counted passes of this step: what tells them apart, and their masks.
        self._counted: dict[str, list[tuple[Tensor, Tensor | None]]] = {}
        self._any = False

    def watch(self, model: nn.Module, routers: list[nn.Module]) -> list[RemovableHandle]:
        """Hook every module that takes a model's inputs and holds routers; return the hooks."""
        handles = []
        for module in model.modules():
            name = _mask_name(module)
            if name is not None and any(part in routers for part in module.modules()):
                handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True))
                handles.append(module.register_forward_hook(self._leave, always_call=True))
        return handles

    @contextmanager
    def given(self, mask: Tensor | None) -> Iterator[None]:
        """Use `mask` for the forward passes inside, whatever the model is handed."""
        self._given.append(_as_mask(mask))
        try:
            yield
        finally:
            self._given.pop()

    @uncompiled
    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        name = _mask_name(module)
        mask = None if name is None else _argument(module, args, kwargs, name)
        # What has more dimensions says which token sees which, not which one is there.
        usable = isinstance(mask, Tensor) and (mask.dim() == 2 or name == "mask")
        own = _as_mask(mask) if usable else None
        outer = self._current[-1] if self._current else None
        self._current.append(outer if own is None else own)

    @uncompiled
    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._current.pop()

    def mask_of(self, layer: str, logits: Tensor, *, repeated: bool) -> Tensor | None:
        """Return the mask (N,) of a router's logits (N, E), or None where every token counts."""
        if repeated and not self._current and not self._given:
            return self._recall(layer, logits)
        mask = self._given[-1] if self._given else (self._current[-1] if self._current else None)
        mask = _fit(layer, mask, logits)
        if repeated:
            return mask
        self._any = self._any or mask is not None
        self._counted.setdefault(layer, []).append((_fingerprint(logits), mask))
        return mask

    def _recall(self, layer: str, logits: Tensor) -> Tensor | None:
        if not self._any:
            return None
        n_tokens, n_experts = logits.shape
        fits = [
            (known, mask)
            for known, mask in self._counted[layer]
            if (mask is None or mask.shape[0] == n_tokens) and known.shape == (n_experts + 1,)
        ]
        if all(mask is fits[0][1] for _, mask in fits):
            return fits[0][1]
        here, everything = _fingerprint(logits), logits.new_ones(n_tokens, dtype=torch.bool)
        distances = torch.stack([(known - here).abs().sum() for known, _ in fits])
        masks = torch.stack([everything if mask is None else mask.to(logits.device) for _, mask in fits])
        return masks.index_select(0, distances.argmin().reshape(1))[0]

    def forget(self) -> None:
        """Forget this step's masks; call it when no backward pass is to come."""
        self._counted.clear()
        self._any = False


def _fingerprint(logits: Tensor) -> Tensor:
    """A few numbers that tell two passes apart: the number of tokens and the sum of each expert's logits."""
    sums = logits.detach().double().sum(dim=0) if logits.device.type != "mps" else logits.detach().sum(dim=0)
    return torch.cat([sums.new_full((1,), float(logits.shape[0]) * 1e6), sums])


def _as_mask(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.detach() != 0


def _fit(layer: str, mask: Tensor | None, logits: Tensor) -> Tensor | None:
    """Return the mask flat, one entry a token; of a longer one (a cache's) the last columns count."""
    if mask is None:
        return None
    n = logits.shape[0]
    if mask.dim() == 2 and mask.numel() != n and n % mask.shape[0] == 0 and n < mask.numel():
        mask = mask[:, -(n // mask.shape[0]) :]
    ensure(
        mask.numel() == n,
        "the attention mask has one entry a token",
        expected=f"{n} entries at router {layer!r}",
        got=f"shape {tuple(mask.shape)}",
        next_step="Pass attention_mask as (batch, length), or your own by handle.token_mask(mask).",
    )
    return mask.reshape(-1).to(logits.device)


def takes_attention_mask(module: nn.Module) -> bool:
    """Whether a module is a whole model: it takes tokens and their mask, not hidden states."""
    names = _parameters(module)
    return "attention_mask" in names and ("input_ids" in names or "inputs_embeds" in names)


def call_asks_for_router_logits(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of a model returns its router logits, by argument or by configuration."""
    asked = _argument(module, args, kwargs, "output_router_logits")
    config = vars(module).get("config")
    return bool(getattr(config, "output_router_logits", False) if asked is None else asked)


def _mask_name(module: nn.Module) -> str | None:
    """Name of the argument that says which tokens are padding, or None."""
    if takes_attention_mask(module):
        return "attention_mask"
    return "mask" if type(module).__name__ == "SparseMoE" else None


def _parameters(module: nn.Module) -> list[str]:
    try:
        return list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        return []


def _argument(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    if name in kwargs:
        return kwargs[name]
    names = _parameters(module)
    place = names.index(name) if name in names else len(args)
    return args[place] if place < len(args) else None


class RouterHook:
    """Forward hook of one router."""

    def __init__(self, router: FoundRouter, balancer: Balancer, masks: MaskReader) -> None:
        self.router, self.balancer, self.masks = router, balancer, masks
        self.gating = router.gating
        self.calls = 0
        self.priced = self.reached = False
        own = None if balancer.bias(router.name) is None else router.bias_buffer()
        self.base = None if own is None else own.detach().clone()

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
