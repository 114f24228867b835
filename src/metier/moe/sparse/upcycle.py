"""Make a trained dense feed-forward network into experts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from metier.core.checks import ensure, non_negative

from .layer import SparseMoE

if TYPE_CHECKING:
    from metier.moe.balancing.balancer import Balancer


def upcycle(
    up: nn.Linear,
    down: nn.Linear,
    *,
    n_experts: int,
    top_k: int,
    noise: float = 0.0,
    balancer: Balancer | None = None,
    generator: torch.Generator | None = None,
    **settings: Any,
) -> SparseMoE:
    """Copy `down(gelu(up(x)))` into every expert of a `SparseMoE`: before training, the same function.

    Gate values sum to 1 and the experts are equal, so the layer computes what the dense network did,
    whatever its fresh router chooses. With `noise` every expert's entries differ by normal noise of that
    many times the matrix's own standard deviation, which breaks the tie but no longer reproduces the network
    exactly.

    Args:
        up: (dim -> hidden) linear map.
        down: (hidden -> dim) linear map.
        n_experts: E.
        top_k: k.
        noise: relative size of the noise.
        balancer: as in `SparseMoE`.
        generator: draws the noise and the router.
        settings: further arguments of `SparseMoE`.

    Returns:
        The layer, on the device and in the dtype of `up`.

    Raises:
        InputError: the two maps do not fit together.

    Example:
        >>> up, down = nn.Linear(8, 16), nn.Linear(16, 8)
        >>> layer = upcycle(up, down, n_experts=4, top_k=2)
        >>> x = torch.randn(5, 8)
        >>> bool((layer(x) - down(torch.nn.functional.gelu(up(x)))).abs().max() < 1e-6)
        True

    Source: Sparse upcycling, arXiv 2212.05055, section 2; the noise is ours.
    """
    ensure(
        (down.in_features, down.out_features) == (up.out_features, up.in_features),
        "the second map leads back from the first",
        expected=f"down of {up.out_features} -> {up.in_features}",
        got=f"{down.in_features} -> {down.out_features}",
        next_step="Pass the two linear maps of one feed-forward network.",
    )
    spread = non_negative("noise", noise)
    layer = SparseMoE(
        up.in_features,
        up.out_features,
        n_experts=n_experts,
        top_k=top_k,
        balancer=balancer,
        activation="gelu",
        bias=up.bias is not None or down.bias is not None,
        device=up.weight.device,
        dtype=up.weight.dtype,
        **settings,
    )
    experts = layer.experts
    with torch.no_grad():
        layer.router.weight.uniform_(-(up.in_features**-0.5), up.in_features**-0.5, generator=generator)
        for stack, dense in ((experts.up, up.weight), (experts.down_proj, down.weight)):
            stack.copy_(dense.expand_as(stack))
            if spread:
                stack.add_(spread * dense.std() * _normal_like(stack, generator))
        for biases, source in ((experts.up_bias, up.bias), (experts.down_bias, down.bias)):
            if biases is not None:
                biases.copy_(torch.zeros_like(biases) if source is None else source.expand_as(biases))
    return layer


def _normal_like(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
