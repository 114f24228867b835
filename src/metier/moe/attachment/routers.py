"""Find the routers of a model: under wrappers, by the class names that families register."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from metier.core.checks import one_of
from metier.core.errors import InputError

from .families import RouterFamily, router_families

_WRAPPERS = re.compile(
    r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_layer"
    r"|original_module|modules_to_save\.[^.]+)(?=\.|$)"
)
_PREFIXES = re.compile(r"^(?:module\.|base_model\.model\.)+")


@dataclass(frozen=True, slots=True)
class FoundRouter:
    """A router of a model, with what is needed to read and to bias it.

    Attributes:
        name: Its name without the names of wrappers, so that a saved state fits the bare model too.
        module: The router.
        owner: The module that holds it, or None.
        family: Its family.
    """

    name: str
    module: nn.Module
    owner: nn.Module | None
    family: RouterFamily

    @property
    def n_experts(self) -> int:
        """E."""
        return int(getattr(self.module, self.family.n_experts))

    @property
    def top_k(self) -> int:
        """k."""
        return int(getattr(self.module, self.family.top_k))

    @property
    def gating(self) -> str:
        """How its logits become scores: "softmax" or "sigmoid"."""
        gating = self.family.gating
        return one_of("gating", gating(self.module) if callable(gating) else gating, ("softmax", "sigmoid"))

    def bias_buffer(self) -> Tensor | None:
        """Return the model's own selection bias, or None where it has none."""
        for holder in (self.module, self.owner):
            found: Any = holder
            for part in (self.family.bias_buffer or "").split("."):
                found = getattr(found, part, None) if part else None
            if isinstance(found, Tensor):
                return found
        return None


def find_routers(model: nn.Module, families: Iterable[RouterFamily] = ()) -> list[FoundRouter]:
    """Return the routers of a model in the order of its modules.

    Args:
        model: A model, plain or wrapped by PEFT, `torch.compile`, DDP, FSDP.
        families: Families of your own.

    Raises:
        InputError: The model has no router that a family knows.
    """
    known = router_families(families)
    modules = dict(model.named_modules())
    found = []
    for path, module in modules.items():
        family = _family_of(module, known)
        if family is not None and not _is_idle_copy(path, modules):
            owner = modules.get(path.rpartition(".")[0]) if path else None
            found.append(FoundRouter(plain_name(path), module, owner, family))
    if not found:
        raise _no_router(model, known)
    return found


def plain_name(path: str) -> str:
    """Return a module's path without the names that wrappers put in.

    Example:
        >>> plain_name("base_model.model.model.layers.0.mlp.gate.base_layer")
        'model.layers.0.mlp.gate'
        >>> plain_name("_orig_mod.model.layers.1.mlp.router")
        'model.layers.1.mlp.router'
    """
    bare = _WRAPPERS.sub("", path).lstrip(".")
    return _PREFIXES.sub("", bare) or "router"


def _family_of(module: nn.Module, known: dict[str, RouterFamily]) -> RouterFamily | None:
    # Sharding replaces a module's class by a subclass of it, so look along the bases.
    return next((known[cls.__name__] for cls in type(module).__mro__ if cls.__name__ in known), None)


def _is_idle_copy(path: str, modules: dict[str, nn.Module]) -> bool:
    """Whether a router is a copy that PEFT keeps beside the one it trains and calls."""
    parts = path.split(".")
    for i, part in enumerate(parts):
        if part not in ("original_module", "modules_to_save"):
            continue
        wrapper = modules[".".join(parts[:i])]
        disabled = bool(getattr(wrapper, "disable_adapters", False))
        active = getattr(wrapper, "active_adapters", None) or []
        called = "original_module" if disabled or not active else f"modules_to_save.{active[0]}"
        if ".".join(parts[i : i + called.count(".") + 1]) != called:
            return True
    return False


def _no_router(model: nn.Module, known: dict[str, RouterFamily]) -> InputError:
    likely = sorted(_suspects(model))
    names = sorted(known)
    return InputError(
        "balancing needs routers that it knows",
        expected=f"a module of a registered router class ({', '.join(names)})",
        got=f"{type(model).__name__} with {'the modules ' + ', '.join(likely[:5]) if likely else 'none'}",
        next_step="Pass families=[moe.RouterFamily(name=..., routers=('YourRouter',), gating='softmax')] "
        "to say how your router is read.",
    )


def _suspects(model: nn.Module) -> Iterator[str]:
    for module in model.modules():
        name = type(module).__name__
        if re.search(r"rout(er|ing)|topk|gate$", name, re.IGNORECASE):
            yield name
