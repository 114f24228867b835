"""Which modules of a model a pattern names, and what they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from metier.core.checks import ensure
from metier.core.errors import InputError

from .dense import dense_weight
from .feed_forward import FeedForward, is_dense, recognize
from .forms import Shape

Pattern = str | re.Pattern[str] | Sequence[str] | Callable[[str, nn.Module], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A module to replace: its kind ("linear", "mlp", "glu") and its dense layers by role."""

    name: str
    module: nn.Module
    kind: str
    layers: dict[str, nn.Module]
    activation: str
    notes: tuple[str, ...]

    def shapes(self, modes: tuple[int, ...]) -> dict[str, Shape]:
        """Return the shape of every projection's experts."""
        dense = {role: dense_weight(layer, where=self.name) for role, layer in self.layers.items()}
        return {
            role: Shape(weight.shape[1], weight.shape[0], modes, bias is not None)
            for role, (weight, bias) in dense.items()
        }


def looks_causal(model: nn.Module) -> bool:
    """Return whether a model, or any part of it, predicts later tokens from earlier ones.

    Attention modules of transformers say so; otherwise the configuration or the class's name does.

    Example:
        >>> looks_causal(nn.Linear(2, 2))
        False
    """
    kinds = ("CausalLM", "LMHeadModel", "GPT")
    return any(
        getattr(part, "is_causal", False) is True
        or getattr(getattr(part, "config", None), "is_decoder", False) is True
        or any(kind in type(part).__name__ for kind in kinds)
        for part in model.modules()
    )


def find_targets(model: nn.Module, pattern: Pattern) -> list[Target]:
    """Return the modules that match, whole blocks before their parts.

    Raises:
        InputError: Nothing matches, or a block is not what it looks like.
    """
    found: list[Target] = []
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if not name or name.startswith(inside) or not _matches(pattern, name, module):
            continue
        block: FeedForward | None = None if is_dense(module) else recognize(module, where=name)
        if block is not None:
            found.append(Target(name, module, block.kind, block.layers, block.activation, block.notes))
            inside = (*inside, f"{name}.")
        elif is_dense(module):
            found.append(Target(name, module, "linear", {"linear": module}, "", ()))
    if not found:
        dense = [name for name, module in model.named_modules() if is_dense(module)]
        raise InputError(
            "the pattern names dense layers or feed-forward blocks",
            expected="a match, e.g. " + (", ".join(dense[:6]) or "none: the model has no dense layer"),
            got=f"{pattern!r}, which matches none",
            next_step="List the names with [n for n, _ in model.named_modules()].",
        )
    return found


def _matches(pattern: Pattern, name: str, module: nn.Module) -> bool:
    if isinstance(pattern, str):
        return fnmatchcase(name, pattern)
    if isinstance(pattern, re.Pattern):
        return pattern.search(name) is not None
    if callable(pattern):
        return bool(pattern(name, module))
    return any(fnmatchcase(name, one) for one in pattern)


def refuse_shared(model: nn.Module, targets: list[Target]) -> None:
    """Refuse targets that share a weight with a module that stays."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for target in targets:
        for parameter in target.module.parameters():
            outside = [name for name in owners[id(parameter)] if not name.startswith(f"{target.name}.")]
            ensure(
                not outside,
                f"{target.name} owns its weights",
                expected="weights of its own",
                got=lambda outside=outside: f"a weight that is {outside[0]} too",
                next_step="Leave this module out, or pass force=True to part the two.",
            )
