"""Which modules of a model can be replaced: dense layers, and feed-forward blocks of known function."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from metier.core.checks import ensure
from metier.core.errors import InputError

from .blocks import ACTIVATIONS
from .dense import dense_weight
from .evaluation import evaluating
from .forms import Shape

# Names of (up, down, activation) and (activated, up, down, activation), by library.
TWO_LAYER = (
    ("c_fc", "c_proj", "act"),  # GPT-2 and its like
    ("fc1", "fc2", "act"),  # timm
    ("fc1", "fc2", "activation_fn"),  # CLIP, SigLIP, OPT-like
    ("fc_in", "fc_out", "act"),  # GPT-J
    ("dense_h_to_4h", "dense_4h_to_h", "act"),  # GPT-NeoX, Falcon
    ("up_proj", "down_proj", "act_fn"),  # Nemotron
)
GATED = (
    ("gate_proj", "up_proj", "down_proj", "act_fn"),
    ("w1", "w3", "w2", "act_fn"),
)  # Llama, Mistral and their like
TOLERANCE = 1e-4


Pattern = str | re.Pattern[str] | Sequence[str] | Callable[[str, nn.Module], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A module to replace.

    Attributes:
        name: Its name.
        module: The module.
        kind: "linear", "mlp" or, with gated units, "glu".
        layers: Its dense layers by role: "linear", or "up" and "down", and "activated" in a gated block.
        activation: Name of its activation, "" of a linear layer.
        notes: What a multilinear block leaves out.
    """

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


def is_dense(module: object) -> bool:
    """Return whether a module is `nn.Linear` or transformers' `Conv1D`."""
    return isinstance(module, nn.Linear) or (
        type(module).__name__ == "Conv1D" and isinstance(getattr(module, "nf", None), int)
    )


def find_parts(module: nn.Module) -> tuple[dict[str, nn.Module], object] | None:
    """Return the dense layers and the activation of a feed-forward block, or None for any other module."""
    if isinstance(module, nn.Sequential):
        inner = [m for m in module if not isinstance(m, nn.Dropout | nn.Identity)]
        if len(inner) == 3 and is_dense(inner[0]) and is_dense(inner[2]) and not is_dense(inner[1]):
            return {"up": inner[0], "down": inner[2]}, inner[1]
        return None
    for names in (*GATED, *TWO_LAYER):
        *dense, act = (getattr(module, name, None) for name in names)
        if all(is_dense(part) for part in dense) and callable(act):
            roles = ("activated", "up", "down")[-len(dense) :]
            return dict(zip(roles, dense, strict=True)), act  # type: ignore[arg-type]
    return None


def recognize(module: nn.Module, *, where: str) -> Target | None:
    """Return a dense layer or feed-forward block as a target, or None for any other module.

    Raises:
        InputError: It looks like one, but its activation is unknown, or it computes something else.

    Example:
        >>> recognize(nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)), where="mlp").kind
        'mlp'
    """
    if is_dense(module):
        return Target(where, module, "linear", {"linear": module}, "", ())
    parts = find_parts(module)
    if parts is None:
        return None
    layers, act = parts
    name = activation_name(act, where=where)
    _check_function(module, layers, name, where=where)
    dropped = sorted({m.p for m in module.modules() if isinstance(m, nn.Dropout) and m.p > 0})
    notes = tuple(f"dropout {p:g} inside the block is left out" for p in dropped)
    return Target(where, module, "glu" if "activated" in layers else "mlp", layers, name, notes)


@torch.no_grad()
def activation_name(act: object, *, where: str) -> str:
    """Return the name of an activation, by its values.

    Example:
        >>> activation_name(nn.SiLU(), where="mlp")
        'silu'
    """
    grid = torch.linspace(-6, 6, 97)
    values = act(grid)  # type: ignore[operator]
    for name, known in ACTIVATIONS.items():
        if isinstance(values, Tensor) and torch.allclose(values, known(grid), atol=1e-5):
            return name
    raise InputError(
        f"the activation of {where} is one that blocks offer",
        expected=", ".join(ACTIVATIONS),
        got=type(act).__name__,
        next_step="Replace the linear layers inside the block instead of the block.",
    )


@torch.no_grad()
def _check_function(module: nn.Module, layers: dict[str, nn.Module], activation: str, *, where: str) -> None:
    """Run the block on random rows: normalizations or branches between its parts show up here."""
    weight, _ = dense_weight(layers["up"], where=where)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, weight.shape[1], generator=draw).to(weight)
    with evaluating(module):
        got = module(x)
    hidden = (
        ACTIVATIONS[activation](layers["activated"](x)) * layers["up"](x) if "activated" in layers else None
    )
    expected = layers["down"](ACTIVATIONS[activation](layers["up"](x)) if hidden is None else hidden)
    ensure(
        isinstance(got, Tensor)
        and torch.allclose(
            got.float(), expected.float(), rtol=0.01, atol=TOLERANCE * float(expected.abs().max() + 1)
        ),
        f"{where} is a plain feed-forward block",
        expected="down(activation(up(x)))",
        got=f"{type(module).__name__}, which computes something else",
        next_step="Replace the linear layers inside the block instead of the block.",
    )


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
    targets: list[Target] = []
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if not name or name.startswith(inside) or not _matches(pattern, name, module):
            continue
        target = recognize(module, where=name)
        if target is not None:
            targets.append(target)
            inside = inside if target.kind == "linear" else (*inside, f"{name}.")
    if not targets:
        dense = [name for name, module in model.named_modules() if is_dense(module)]
        raise InputError(
            "the pattern names dense layers or feed-forward blocks",
            expected="a match, e.g. " + (", ".join(dense[:6]) or "none: the model has no dense layer"),
            got=f"{pattern!r}, which matches none",
            next_step="List the names with [n for n, _ in model.named_modules()].",
        )
    return targets


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
