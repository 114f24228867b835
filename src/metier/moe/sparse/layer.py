"""The sparse mixture-of-experts layer: a router, its experts, and a balancer in one module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metier.core.checks import positive_int
from metier.core.errors import InputError

from .experts import Experts, swiglu
from .routing import Routing, TopKRouter

if TYPE_CHECKING:
    from metier.moe.balancing.balancer import Balancer


class SparseMoE(nn.Module):
    r"""A feed-forward layer of E experts of which every token is computed by k; no token is dropped.

    `y_n = sum_j scores[n, j] f_{indices[n, j]}(x_n) + g(x_n)`, g the shared experts, if any.

    Args:
        dim: width of the tokens.
        hidden_dim: width inside an expert.
        n_experts: E.
        top_k: k.
        balancer: a `moe.Balancer`, shared by all layers of a model; the loop calls `balancer.step()` once per
            optimizer step. None: nothing balances (or `moe.attach` does).
        dispatch: "auto" chooses by dtype, alignment and load; or "grouped_mm", "padded", "loop".
        activation: "swiglu" | "gelu".
        bias: whether the experts' products have biases.
        n_shared_experts: experts of `hidden_dim` that see every token, computed as one wide one.
        routing, normalize, scaling, n_groups, top_groups: of `moe.TopKRouter`.
        device, dtype: of the parameters.

    Raises:
        InputError: counts or widths do not fit together, or a name is unknown.

    Example:
        >>> layer = SparseMoE(16, 32, n_experts=8, top_k=2)
        >>> layer(torch.randn(2, 10, 16)).shape
        torch.Size([2, 10, 16])
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        n_experts: int,
        top_k: int,
        balancer: Balancer | None = None,
        dispatch: str = "auto",
        activation: str = "swiglu",
        bias: bool = False,
        n_shared_experts: int = 0,
        routing: Literal["softmax", "topk_softmax", "sigmoid"] = "softmax",
        normalize: bool = True,
        scaling: float = 1.0,
        n_groups: int = 1,
        top_groups: int = 1,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        make: dict[str, Any] = {"device": device, "dtype": dtype}
        self.router = TopKRouter(
            dim,
            n_experts,
            top_k=top_k,
            routing=routing,
            normalize=normalize,
            scaling=scaling,
            n_groups=n_groups,
            top_groups=top_groups,
            **make,
        )
        stack: dict[str, Any] = {"activation": activation, "bias": bias, **make}
        self.experts = Experts(dim, hidden_dim, n_experts=n_experts, dispatch=dispatch, **stack)
        shared = positive_int("n_shared_experts", n_shared_experts, minimum=0)
        self.shared = FeedForward(dim, shared * hidden_dim, **stack) if shared else None
        self.balancer = balancer
        self.layer_name = (
            None
            if balancer is None
            else balancer.add_layer(n_experts=n_experts, top_k=top_k, device=self.router.weight.device)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute every token by its experts.

        Args:
            x: (..., dim) tokens.
            mask: (...,) True where a token counts for balancing; padding is computed but not counted.

        Returns:
            (..., dim).
        """
        if x.shape[-1] != self.experts.dim:
            raise InputError(
                "tokens have the layer's width",
                expected=f"a last dimension of {self.experts.dim}",
                got=f"shape {tuple(x.shape)}",
                next_step="Pass tokens of this width, or build the layer for theirs.",
            )
        if mask is not None and mask.shape != x.shape[:-1]:
            raise InputError(
                "the mask has one entry per token",
                expected=f"shape {tuple(x.shape[:-1])}",
                got=f"{tuple(mask.shape)}",
                next_step="Pass the attention mask of this batch, without the head dimension.",
            )
        tokens = x.reshape(-1, x.shape[-1])
        _, scores, indices = self.route(tokens, mask)
        y: Tensor = self.experts(tokens, indices, scores, may_drop=False)
        if self.shared is not None:
            y = y + self.shared(tokens)
        return y.view(x.shape)

    def route(self, tokens: Tensor, mask: Tensor | None = None) -> Routing:
        """Route tokens (N, dim), counting and pricing them with the layer's balancer, if it has one."""
        if self.balancer is None or self.layer_name is None:
            routing: Routing = self.router(tokens)
            return routing
        bias = self.balancer.bias(self.layer_name)
        logits, scores, indices = self.router(tokens, bias)
        aux = self.balancer.observe(
            self.layer_name,
            logits,
            indices=indices,
            scores=self.router.selection_scores(logits.detach()),
            mask=None if mask is None else mask.reshape(-1),
            router="sigmoid" if self.router.routing == "sigmoid" else "softmax",
            training=self.training,
        )
        return Routing(logits, self.balancer.inject(scores, aux), indices)


class FeedForward(nn.Module):
    """One dense feed-forward network with the experts' activations.

    Args:
        dim: width of the tokens.
        hidden_dim: width inside.
        activation: "swiglu" | "gelu".
        bias: whether both products have a bias.
        device, dtype: of the parameters.

    Example:
        >>> FeedForward(8, 32)(torch.randn(3, 8)).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        activation: str = "swiglu",
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        make: dict[str, Any] = {"bias": bias, "device": device, "dtype": dtype}
        self.activation = swiglu if activation == "swiglu" else F.gelu
        self.up_proj = nn.Linear(dim, 2 * hidden_dim if activation == "swiglu" else hidden_dim, **make)
        self.down_proj = nn.Linear(hidden_dim, dim, **make)

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output, of the shape of `x`."""
        y: Tensor = self.down_proj(self.activation(self.up_proj(x)))
        return y
