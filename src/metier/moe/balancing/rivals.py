"""Rival losses and routings as explicit functions: for loops of your own, and as oracles."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from metier.core.checks import ensure, positive_int
from metier.core.errors import InputError


def switch_loss(probs: Tensor, indices: Tensor, *, mask: Tensor | None = None) -> Tensor:
    r"""Return the Switch loss of one layer, E sum_e f_e p_e: 1 at balance, E / k where k experts take all.

    Args:
        probs: Gate values over all experts, (N, E).
        indices: Chosen experts, (N, k).
        mask: True where a token counts, (N,).

    Returns:
        A scalar in float32 at least; the gradient goes through `probs` only. f is counts / (k N).

    Example:
        >>> probs = torch.full((8, 4), 0.25)
        >>> switch_loss(probs, torch.arange(8).reshape(8, 1) % 4).item()
        1.0

    Source: Switch Transformer (arXiv 2101.03961), equation 4, with f divided by k.
    """
    n_experts, probs = probs.shape[-1], _precise(probs)
    weight = probs.new_ones(probs.shape[0]) if mask is None else mask.reshape(-1).to(probs.dtype)
    total = weight.sum().clamp_min(1.0)
    chosen = weight[:, None].expand(indices.shape).reshape(-1)
    counts = probs.new_zeros(n_experts).scatter_add_(0, indices.reshape(-1), chosen)
    mean = (weight[:, None] * probs).sum(0) / total
    # No product of vectors: autocast would round it.
    return n_experts * (counts / (indices.shape[-1] * total) * mean).sum()


def z_loss(logits: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Return the mean squared logsumexp of router logits, (N, E) -> scalar; 0.001 is its usual weight.

    Example:
        >>> z_loss(torch.zeros(3, 1)).item()
        0.0

    Source: ST-MoE (arXiv 2202.08906), equation 5.
    """
    squares = torch.logsumexp(_precise(logits), -1) ** 2
    if mask is None:
        return squares.mean()
    weight = mask.reshape(squares.shape).to(squares.dtype)
    return (weight * squares).sum() / weight.sum().clamp_min(1.0)


def simbal_loss(weight: Tensor) -> Tensor:
    r"""Return the similarity-preserving router loss, sum |R^T R - I|, of a router's weights.

    It keeps the experts' directions orthonormal, so that like tokens get like logits, and sees no token:
    batches and ranks do not matter. Initialize the router orthogonally.

    Args:
        weight: Router weights R^T, (E, D), as `nn.Linear` keeps them; E <= D.

    Returns:
        A scalar; 0.1 is its published weight.

    Example:
        >>> simbal_loss(torch.eye(2, 5)).item()
        0.0

    Source: SimBal (arXiv 2506.14038).
    """
    weight = _precise(weight)
    identity = torch.eye(weight.shape[0], dtype=weight.dtype, device=weight.device)
    with torch.autocast(weight.device.type, enabled=False):
        return (weight @ weight.T - identity).abs().sum()


def _precise(values: Tensor) -> Tensor:
    """Return values in float32 at least: a loss in 16 bits would be rounded to 1 in 256."""
    return values if values.dtype == torch.float64 else values.float()


@torch.no_grad()
def sinkhorn_route(
    logits: Tensor, top_k: int, *, epsilon: float = 1.0, tolerance: float = 1e-4, max_iterations: int = 2000
) -> tuple[Tensor, Tensor]:
    r"""Choose experts by a balanced transport plan; gate values are read from the raw scores elsewhere.

    The plan is exp(z / epsilon) scaled until rows sum to k and columns to k N / E. It looks at the whole
    batch, later tokens included: a baseline for studies, not for causal inference.

    Args:
        logits: Router logits, (N, E).
        top_k: Experts per token, k.
        epsilon: Temperature of the plan.
        tolerance: Largest relative deviation of a row or column sum.
        max_iterations: Where to give up.

    Returns:
        Chosen experts (N, k), and the plan (N, E).

    Raises:
        InputError: The scaling did not converge.

    Example:
        >>> indices, plan = sinkhorn_route(torch.tensor([[2.0, 0.0], [1.0, 0.0]]), 1)
        >>> indices.T.tolist(), [round(x, 3) for x in plan.sum(0).tolist()]
        ([[0, 1]], [1.0, 1.0])
    """
    n_tokens, n_experts = logits.shape
    positive_int("top_k", top_k)
    log_plan = logits.double() / epsilon
    log_row, log_column = math.log(top_k), math.log(top_k * n_tokens / n_experts)
    for _ in range(max_iterations):
        log_plan = log_plan + log_row - torch.logsumexp(log_plan, 1, keepdim=True)
        columns = torch.logsumexp(log_plan, 0, keepdim=True)
        if float((columns - log_column).abs().max()) <= tolerance:
            plan = log_plan.exp()
            return plan.topk(top_k, dim=-1).indices, plan.to(logits.dtype)
        log_plan = log_plan + log_column - columns
    raise InputError(
        "Sinkhorn's scaling converges",
        expected=f"sums within {tolerance:g} after {max_iterations} iterations",
        got=f"{float((columns - log_column).abs().max()):.3g}",
        next_step="Raise epsilon or max_iterations, or check the logits for infinities.",
    )


def expert_choice(
    probs: Tensor, top_k: int, *, capacity_factor: float = 1.0, causal: bool
) -> tuple[Tensor, Tensor]:
    r"""Let each expert take its best ceil(capacity_factor k N / E) tokens.

    Args:
        probs: Gate values, (N, E).
        top_k: Mean experts per token, k.
        capacity_factor: Tokens per expert relative to the mean.
        causal: Whether the model predicts later tokens from earlier ones.

    Returns:
        Token numbers (E, C) and their gate values (E, C).

    Raises:
        InputError: The model is causal: which tokens an expert takes would tell of later tokens.

    Example:
        >>> probs = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]])
        >>> expert_choice(probs, 1, causal=False)[0].tolist()
        [[0, 1], [3, 2]]

    Source: Expert Choice (arXiv 2202.09368).
    """
    ensure(
        not causal,
        "expert choice looks at later tokens",
        expected="a model that is not causal",
        got="causal=True",
        next_step="Balance with moe.balancer instead; it selects each token's experts by itself.",
    )
    n_tokens, n_experts = probs.shape
    capacity = min(n_tokens, math.ceil(capacity_factor * top_k * n_tokens / n_experts))
    gates, tokens = probs.T.topk(capacity, dim=-1)
    return tokens, gates
