"""Sizes of a multilinear layer: its expert modes, and the ranks it has where none are given."""

from __future__ import annotations

from collections.abc import Sequence

from metier.core.checks import positive_int
from metier.core.errors import InputError

from .forms import Form, Shape


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
