"""Sizes of a multilinear layer: its expert modes, default ranks, and coefficients that fit them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from metier.core.checks import positive_int
from metier.core.errors import InputError

from .forms import Form, Shape


def joint_coefficients(modes: Sequence[Tensor]) -> Tensor:
    """Return the products of all modes' coefficients, (..., N_1 ... N_E), the last mode running fastest.

    Example:
        >>> import torch
        >>> joint_coefficients((torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])))
        tensor([0.1250, 0.3750, 0.1250, 0.3750])
    """
    joint = modes[0]
    for mode in modes[1:]:
        joint = (joint.unsqueeze(-1) * mode.unsqueeze(-2)).flatten(-2)
    return joint


def check_coefficients(modes: Sequence[Tensor], n_experts: tuple[int, ...]) -> None:
    """Refuse coefficients that are not those of the expert modes."""
    sizes = tuple(mode.shape[-1] for mode in modes)
    if sizes != n_experts:
        raise InputError(
            "coefficients belong to the expert modes",
            expected=" and ".join(f"(..., {n})" for n in n_experts),
            got=" and ".join(str(tuple(mode.shape)) for mode in modes),
            next_step="Pass what coefficients(z) of the layer or its block returns.",
        )


def check_last(name: str, x: Tensor, features: int) -> None:
    """Refuse inputs whose last dimension is not `features`."""
    if not isinstance(x, Tensor):
        raise InputError(
            f"{name} is a tensor", expected=f"a tensor (..., {features})", got=type(x).__name__,
            next_step="Convert it with torch.as_tensor.",
        )  # fmt: skip
    if x.dim() < 1 or x.shape[-1] != features:
        raise InputError(
            f"the last dimension of {name} holds the features",
            expected=f"(..., {features})",
            got=f"shape {tuple(x.shape)}",
            next_step="Check the order of dimensions, or in_features.",
        )


def expert_modes(n_experts: int | Sequence[int]) -> tuple[int, ...]:
    """Return the sizes of the expert modes.

    Example:
        >>> expert_modes(8), expert_modes((4, 8))
        ((8,), (4, 8))
    """
    sizes = n_experts if isinstance(n_experts, tuple | list) else (n_experts,)
    if not sizes:
        raise InputError(
            "n_experts is a number of experts, or the sizes of its modes",
            expected="64 or (8, 8)",
            got="an empty tuple",
            next_step="Pass n_experts=64, for example.",
        )
    return tuple(positive_int("n_experts", size) for size in sizes)


def default_rank(form: type[Form], shape: Shape, ring_ranks: tuple[int, int]) -> tuple[int, ...]:
    """Return the largest ranks whose factors hold no more parameters than the dense layer, at least 1.

    The gate is not counted here; `rank_for_budget` counts it.

    Example:
        >>> from .forms import CP
        >>> default_rank(CP, Shape(768, 768, (64,), True), (4, 4))
        (368,)
    """
    if form.name == "mxd":
        return (shape.out_features,)
    budget = shape.slots * shape.out_features
    low, high = 1, 2
    while form.parameters_of(shape, form.resolve_rank(high, shape, ring_ranks)) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = form.parameters_of(shape, form.resolve_rank(middle, shape, ring_ranks)) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return form.resolve_rank(low, shape, ring_ranks)
