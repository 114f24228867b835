"""Attach a balancer to a model's routers, without touching the model's code or its loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from metier.core.checks import ensure, positive_int
from metier.moe.balancing.balancer import Balancer

from .builtin_losses import refuse_builtin_losses, refuse_requested_loss
from .hooks import (
    MaskReader,
    RouterHook,
    SelectionBias,
    call_asks_for_router_logits,
    put,
    takes_attention_mask,
    uncompiled,
)
from .routers import FoundRouter, RouterFamily, find_routers


class Attachment:
    """A balancer at work on a model; made by `moe.attach`, and a context manager that detaches.

    In every forward pass in training mode each router's decisions are counted and the gradient of the
    balancing loss is joined to its gate values, so that the loop's own `loss.backward()` brings it along.
    Call `step` once per optimizer step. In evaluation nothing is counted; a bias stays in force.
    """

    def __init__(self, model: nn.Module, balancer: Balancer, routers: list[FoundRouter]) -> None:
        self.model, self.balancer = model, balancer
        self._masks = MaskReader()
        self._hooks = [RouterHook(router, balancer, self._masks) for router in routers]
        modules = [router.module for router in routers]
        self._removable: list[Any] = [hook.router.module.register_forward_hook(hook) for hook in self._hooks]
        self._removable += self._masks.watch(model, modules)
        self._removable += _watch_requests(model)
        self._write_biases()

    @property
    def routers(self) -> tuple[str, ...]:
        """Names of the balanced routers, as they are without wrappers."""
        return tuple(hook.router.name for hook in self._hooks)

    @property
    def loss(self) -> Tensor:
        """Value of the balancing loss on this rank, detached: of this step so far, or of the last one."""
        return self.balancer.loss

    @property
    def biases(self) -> dict[str, Tensor]:
        """Trained selection bias (E,) of every router; empty where the balancer gives none."""
        biases = {name: self.balancer.bias(name) for name in self.routers}
        return {name: bias.detach().clone() for name, bias in biases.items() if bias is not None}

    def step(self, group: Any = None) -> None:
        """Finish an optimizer step: one all-reduce, then new prices and biases for the next one.

        Args:
            group: Process group of the ranks that saw different tokens; None is the default group where
                torch.distributed is initialized, False reduces nothing.

        Raises:
            InputError: A router was never called since the last step, its gradient never arrived, or its
                logits were not finite.
        """
        self._must_be_attached()
        ensure(
            any(hook.calls for hook in self._hooks) or not is_compiled(self.model),
            "a compiled model sees only hooks that were there before its first call",
            expected="moe.attach before the first call",
            got="a graph compiled earlier, which passes the balancer by",
            next_step="Call torch.compiler.reset() once, now, and repeat this step; or attach earlier.",
        )
        ensure(
            any(hook.reached for hook in self._hooks) or not any(hook.priced for hook in self._hooks),
            "a balancing loss needs something to train",
            expected="a router, or a layer before one, with parameters that require a gradient",
            got=f"none at the {len(self._hooks)} balanced routers",
            next_step='Unfreeze or adapt the routers, or use a balancer with sink="bias".',
        )
        self.balancer.step(group)
        self._start_step()
        self._write_biases()

    def discard(self) -> None:
        """Forget what was counted since the last step, for a step that the loop skips."""
        self.balancer.discard()
        self._start_step()

    def step_with(self, optimizer: torch.optim.Optimizer, *, group: Any = None) -> RemovableHandle:
        """Call `step` just before every step of `optimizer`, as torchtitan does for its biases.

        A gradient scaler that skips the optimizer's step skips this too: what was counted then joins the
        next step.

        Args:
            optimizer: The optimizer that trains the model; with several, the one that steps last.
            group: As in `step`.

        Returns:
            The hook; `detach` removes it too.
        """
        self._must_be_attached()
        hook = optimizer.register_step_pre_hook(lambda *_: self.step(group))
        self._removable.append(hook)
        return hook

    def token_mask(self, mask: Tensor | None) -> AbstractContextManager[None]:
        """Count, in the forward passes inside, only tokens where `mask` is not 0.

        For models that get no two-dimensional `attention_mask`: packed or flattened batches. Without it
        the model's own `attention_mask` (batch, length) is used.

        Args:
            mask: One entry a token, in the order in which the routers see them.

        Returns:
            A context manager.
        """
        return self._masks.given(mask)

    def metrics(self) -> dict[str, float]:
        """Return the figures of the last step: means over the routers and the worst one."""
        return self.balancer.metrics()

    def state_dict(self) -> dict[str, Any]:
        """Return the balancer's state and the selection biases that the model had of its own."""
        own = {hook.router.name: hook.base.clone() for hook in self._hooks if hook.base is not None}
        return {"balancer": self.balancer.state_dict(), "own_bias": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state, before the next forward pass.

        Raises:
            InputError: It belongs to another balancer or another model.
        """
        own = {hook.router.name: hook for hook in self._hooks if hook.base is not None}
        ensure(
            set(state) == {"balancer", "own_bias"} and set(state["own_bias"]) == set(own),
            "a saved state belongs to the model it came from",
            expected=f"the state of a handle whose own biases are {sorted(own)}",
            got=f"keys {sorted(state)}, own biases {sorted(state.get('own_bias', {}))}",
            next_step="Pass what handle.state_dict() returned for this model.",
        )
        self.balancer.load_state_dict(state["balancer"])
        for name, hook in own.items():
            hook.base = state["own_bias"][name].detach().clone()
        self._start_step()
        self._write_biases()

    def detach(self, bake_bias: bool = False) -> None:
        """Take the hooks off.

        Args:
            bake_bias: False gives the routers back the choice they had before; True keeps the trained
                selection bias in force: in the model's own bias where it has one, otherwise in a new buffer
                `selection_bias` of each router that is saved with the model. `moe.set_selection_bias`
                puts such a bias onto a freshly loaded model.
        """
        if not self._removable:
            return
        for removable in self._removable:
            removable.remove()
        self._removable = []
        if bake_bias:
            _bake([hook.router for hook in self._hooks if hook.base is None], self.biases)
        else:
            for hook in self._hooks:
                hook.restore_bias()

    def _start_step(self) -> None:
        self._masks.forget()
        for hook in self._hooks:
            hook.start_step()

    def _write_biases(self) -> None:
        for hook in self._hooks:
            hook.write_bias()

    def _must_be_attached(self) -> None:
        ensure(
            bool(self._removable),
            "a detached handle balances nothing",
            expected="an attached handle",
            got="a handle after detach()",
            next_step="Call moe.attach again.",
        )

    def __enter__(self) -> Self:
        """Return the handle."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detach, without keeping a bias."""
        self.detach()


def attach(
    model: nn.Module,
    balancer: Balancer,
    *,
    tokens_per_step: int | None = None,
    families: Iterable[RouterFamily] = (),
) -> Attachment:
    """Balance the routers of a model, without changing its code, its loss or its trainer.

    Args:
        model: A transformers MoE model (plain, PEFT, compiled, data parallel), or any module that holds
            `moe.TopKRouter`s. Attach before a compiled model is first called.
        balancer: Fresh, from `moe.balancer(...)`.
        tokens_per_step: Tokens of an optimizer step over all micro-batches and ranks, padding not counted.
            With it any split into micro-batches gives the same gradient. None: each micro-batch counts as
            its mean, and the balancer's `loss_scale` divides by their number.
        families: Router families of your own, see `moe.RouterFamily`.

    Returns:
        The handle: `step()` once per optimizer step, `loss`, `metrics()`, `state_dict()`, `detach()`.

    Raises:
        InputError: No router is known, the model is balanced already (a built-in auxiliary loss, named, or
            another handle), or a family cannot take the balancer's bias.

    Example:
        >>> import torch
        >>> from metier import moe
        >>> layer = moe.SparseMoE(8, 16, n_experts=4, top_k=2)
        >>> with moe.attach(layer, moe.balancer("phi")) as handle:
        ...     layer(torch.randn(64, 8)).square().mean().backward()
        ...     handle.step()
        >>> handle.routers
        ('router',)

    Source: ours; the injected gradient follows the auxiliary loss of phi-Balancing, arXiv 2605.15403.
    """
    routers = find_routers(model, families)
    refuse_builtin_losses(model)
    tokens = None if tokens_per_step is None else positive_int("tokens_per_step", tokens_per_step)
    for router in routers:
        _refuse_second(router, balancer.has_bias)
        if balancer.has_bias:
            _must_take_bias(router)
        balancer.check_layer(router.name, n_experts=router.n_experts, top_k=router.top_k)
    # Everything that could be refused has been: a refused call leaves the balancer as it was.
    if tokens is not None:
        balancer.tokens_per_step = tokens
    for router in routers:
        device = next((p.device for p in router.module.parameters()), None)
        balancer.add_layer(router.name, n_experts=router.n_experts, top_k=router.top_k, device=device)
    return Attachment(model, balancer, routers)


def set_selection_bias(
    model: nn.Module, biases: Mapping[str, Tensor], *, families: Iterable[RouterFamily] = ()
) -> None:
    """Give routers a fixed selection bias, as `detach(bake_bias=True)` leaves it.

    Where the model has a selection bias of its own, the given one is added to it. Elsewhere the router
    gets a buffer `selection_bias`, saved with the model, and a hook that adds it before choosing.

    Args:
        model: A model with routers that a family knows.
        biases: Router name -> bias (E,), as `handle.biases` returns them.
        families: Router families of your own.

    Raises:
        InputError: A name is no router of the model, a size is wrong, or a family cannot take a bias.

    Example:
        >>> import torch
        >>> from metier import moe
        >>> layer = moe.SparseMoE(8, 16, n_experts=4, top_k=1)
        >>> moe.set_selection_bias(layer, {"router": torch.tensor([9.0, 0.0, 0.0, 0.0])})
        >>> moe.audit(layer, [torch.randn(10, 8)]).layers[0].load.tolist()
        [1.0, 0.0, 0.0, 0.0]
    """
    routers = {router.name: router for router in find_routers(model, families)}
    for name, bias in biases.items():
        ensure(
            name in routers and bias.numel() == routers[name].n_experts,
            "a selection bias belongs to a router",
            expected=f"one of {sorted(routers)} with one entry an expert",
            got=f"{name!r} with {bias.numel()} entries",
            next_step="Pass handle.biases of the same model.",
        )
        _must_take_bias(routers[name])
    for name, bias in biases.items():
        buffer = routers[name].bias_buffer()
        if buffer is not None:
            put(buffer, buffer + bias.to(buffer.device).view_as(buffer))
        else:
            _bake([routers[name]], biases)


def _bake(routers: list[FoundRouter], biases: Mapping[str, Tensor]) -> None:
    for router in routers:
        if router.name not in biases:
            continue
        bias = biases[router.name].detach().clone()
        if hasattr(router.module, SelectionBias.BUFFER):
            put(getattr(router.module, SelectionBias.BUFFER), bias)
        else:
            router.module.register_buffer(SelectionBias.BUFFER, bias)
            router.module.register_forward_hook(SelectionBias(router))


def _must_take_bias(router: FoundRouter) -> None:
    ensure(
        router.family.select is not None or router.bias_buffer() is not None,
        "a selection bias needs a way into the choice",
        expected="a router family with `select`, or a model with a bias of its own",
        got=f"router {router.name!r} of family {router.family.name!r}, which has neither",
        next_step='Use a balancer with sink="aux", or pass a RouterFamily with select=...',
    )


def _refuse_second(router: FoundRouter, has_bias: bool) -> None:
    hooks = router.module._forward_hooks.values()
    other = "another handle" if any(isinstance(hook, RouterHook) for hook in hooks) else None
    if getattr(router.owner, "balancer", None) is not None:
        other = "the layer's own balancer"
    if has_bias and any(isinstance(hook, SelectionBias) for hook in hooks):
        other = "a selection bias that was baked in"
    ensure(
        other is None,
        "a model is balanced once",
        expected="routers without a balancer",
        got=f"router {router.name!r}, which has {other}",
        next_step="Detach or leave out the other one first.",
    )


def is_compiled(model: nn.Module) -> bool:
    """Whether a model or a part of it runs through `torch.compile`."""
    return any(
        name.split(".")[-1] == "_orig_mod" or getattr(module, "_compiled_call_impl", None) is not None
        for name, module in model.named_modules()
    )


def _watch_requests(model: nn.Module) -> list[RemovableHandle]:
    """Refuse training calls that turn a built-in loss on after the balancer was attached."""

    @uncompiled
    def check(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if module.training and call_asks_for_router_logits(module, args, kwargs):
            refuse_requested_loss(module)

    models = [module for module in model.modules() if takes_attention_mask(module)]
    return [module.register_forward_pre_hook(check, with_kwargs=True) for module in models]
