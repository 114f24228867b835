"""Coefficients of the expert modes: their products, and what a layer may be given."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from metier.core.errors import InputError


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
