"""The sparse mixture-of-experts layer: a top-k router, its experts, and a balancer in one module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metier.core.checks import ensure, one_of, positive_int
from metier.core.errors import InputError

from .experts import Experts, swiglu

if TYPE_CHECKING:
    from metier.moe.balancing.balancer import Balancer

KINDS = ("softmax", "topk_softmax", "sigmoid")


class Routing(NamedTuple):
    """What a router returns, in the order of transformers' routers.

    Args:
        logits: (N, E) raw router logits, float32 (float64 for float64 tokens).
        scores: (N, k) gate values of the chosen experts.
        indices: (N, k) chosen experts.
    """

    logits: Tensor
    scores: Tensor
    indices: Tensor


class TopKRouter(nn.Module):
    r"""Choose k of E experts per token by `z = W x`.

    Selection goes by s + b: s = softmax(z) over all experts or sigmoid(z), b the selection bias (zero unless
    a balancer moves it). Gate values never see b. They are s of the chosen (times `scaling`), divided by
    their sum where `normalize`; "topk_softmax" is the softmax of the chosen logits.

    Args:
        dim: width of the tokens.
        n_experts: E.
        top_k: k, at most E.
        routing: "softmax" (Mixtral, Qwen3, OLMoE), "topk_softmax" (gpt-oss), "sigmoid" (DeepSeek-V3).
        normalize: whether a token's gate values sum to `scaling`.
        scaling: what the gate values are multiplied by.
        n_groups, top_groups: only the `top_groups` of `n_groups` equal groups of experts with the largest
            sums of their two best s + b are open to a token.
        device, dtype: of the weight; logits are computed in float32 all the same.

    Raises:
        InputError: counts do not fit together.

    Example:
        >>> router = TopKRouter(8, 4, top_k=2)
        >>> logits, scores, indices = router(torch.randn(5, 8))
        >>> logits.shape, indices.shape, bool((scores.sum(-1) - 1).abs().max() < 1e-6)
        (torch.Size([5, 4]), torch.Size([5, 2]), True)

    Source: Mixtral, gpt-oss and DeepSeek-V3 as released; normalizing by a softmax of the chosen log
    probabilities, so that gate values for logits near -50 still sum to 1, is ours.
    """

    selection_bias: Tensor

    def __init__(
        self,
        dim: int,
        n_experts: int,
        *,
        top_k: int,
        routing: Literal["softmax", "topk_softmax", "sigmoid"] = "softmax",
        normalize: bool = True,
        scaling: float = 1.0,
        n_groups: int = 1,
        top_groups: int = 1,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.dim, self.n_experts = positive_int("dim", dim), positive_int("n_experts", n_experts)
        self.top_k = _at_most("top_k", positive_int("top_k", top_k), "n_experts", n_experts)
        self.routing = one_of("routing", routing, KINDS)
        self.normalize, self.scaling = bool(normalize), float(scaling)
        self.n_groups = positive_int("n_groups", n_groups)
        self.top_groups = _at_most("top_groups", positive_int("top_groups", top_groups), "n_groups", n_groups)
        ensure(
            n_experts % n_groups == 0 and top_k <= top_groups * (n_experts // n_groups),
            "experts fall into equal groups that hold every choice",
            expected=f"n_groups that divide {n_experts}, and top_k within {top_groups} of them",
            got=f"n_groups={n_groups}, top_k={top_k}",
            next_step="Open more groups, or make fewer.",
        )
        self.weight = nn.Parameter(torch.empty(n_experts, dim, device=device, dtype=dtype))
        self.register_buffer("selection_bias", torch.zeros(n_experts, device=device, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight uniformly within 1 / sqrt(dim)."""
        nn.init.uniform_(self.weight, -1 / math.sqrt(self.dim), 1 / math.sqrt(self.dim))

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Routing:
        """Route tokens.

        Args:
            x: (..., dim) tokens; leading dimensions are flattened to N.
            bias: (E,) added to the selection bias for this call.

        Returns:
            Logits, gate values and ids. A token whose logits are not finite gets gate values that are not
            finite and ids in range, and disturbs no other token.
        """
        x = x.reshape(-1, self.dim)
        dtype = torch.float64 if torch.float64 in (x.dtype, self.weight.dtype) else torch.float32
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.to(dtype), self.weight.to(dtype))
            scores, indices = self.select(logits, bias)
        return Routing(logits, scores, indices)

    def select(self, logits: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return gate values (N, k) and ids (N, k) for logits (N, E)."""
        biases = self.selection_bias if bias is None else self.selection_bias + bias
        with torch.no_grad():
            indices = self.choose(self.selection_scores(logits), biases)
        return self.gate_values(logits, indices), indices

    def selection_scores(self, logits: Tensor) -> Tensor:
        """Return s, (N, E) in [0, 1]: what selection goes by before its bias."""
        return logits.sigmoid() if self.routing == "sigmoid" else logits.softmax(dim=-1)

    def choose(self, scores: Tensor, bias: Tensor) -> Tensor:
        """Return the ids (N, k) with the largest `scores + bias` within the open groups."""
        biased = scores + bias.to(scores.dtype)
        if self.top_groups < self.n_groups:
            groups = biased.view(biased.shape[0], self.n_groups, -1)
            best = groups.topk(min(2, groups.shape[-1]), dim=-1).values.sum(-1)
            open_ = torch.zeros_like(best, dtype=torch.bool)
            open_.scatter_(-1, best.topk(self.top_groups, dim=-1).indices, True)
            biased = groups.masked_fill(~open_[..., None], -torch.inf).flatten(-2)
        return biased.topk(self.top_k, dim=-1).indices

    def gate_values(self, logits: Tensor, indices: Tensor) -> Tensor:
        """Return the gate values (N, k) of the chosen experts, with gradient; no bias enters."""
        if self.routing == "topk_softmax" or (self.routing == "softmax" and self.normalize):
            # Dividing softmax(z) by its sum over the chosen is the softmax over the chosen.
            return self.scaling * logits.gather(-1, indices).softmax(dim=-1)
        if self.routing == "softmax":
            return self.scaling * logits.softmax(dim=-1).gather(-1, indices)
        chosen = logits.gather(-1, indices)
        return self.scaling * (F.logsigmoid(chosen).softmax(dim=-1) if self.normalize else chosen.sigmoid())

    def extra_repr(self) -> str:
        """The sizes, for `print`."""
        return f"dim={self.dim}, n_experts={self.n_experts}, top_k={self.top_k}, routing={self.routing!r}"


def _at_most(name: str, value: int, other: str, limit: int) -> int:
    ensure(
        value <= limit,
        f"{name} is at most {other}",
        expected=f"1 to {limit}",
        got=f"{name}={value}",
        next_step=f"Lower {name} or raise {other}.",
    )
    return value


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
            return cast(Routing, self.router(tokens))
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
        return cast(Tensor, self.down_proj(self.activation(self.up_proj(x))))
