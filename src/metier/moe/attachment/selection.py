"""How each kind of router turns logits into a choice, with a bias that acts on the choice alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def softmax_then_top_k(router: nn.Module, logits: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Mixtral, Qwen, OLMoE: softmax over all experts in fp32, top-k, renormalized where the model does."""
    probabilities = torch.softmax(logits.float(), dim=-1)
    indices = _top_k(router, probabilities + bias)
    scores = probabilities.gather(-1, indices)
    if getattr(router, "norm_topk_prob", True):
        scores = scores / scores.sum(dim=-1, keepdim=True)
    return scores, indices


def softmax_then_top_k_plain(router: nn.Module, logits: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Jamba: softmax over all experts, top-k, gates not renormalized."""
    probabilities = torch.softmax(logits.float(), dim=-1)
    indices = _top_k(router, probabilities + bias)
    return probabilities.gather(-1, indices), indices


def top_k_then_softmax(router: nn.Module, logits: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """gpt-oss, Granite, Aria: top-k of the logits, softmax over the chosen ones.

    The bias is added to the softmax over all experts, which ranks as the logits do, so that one size of
    bias means the same for every family.
    """
    indices = _top_k(router, torch.softmax(logits.float(), dim=-1) + bias)
    return torch.softmax(logits.gather(-1, indices), dim=-1), indices


def top_k_then_softmax_over_k(router: nn.Module, logits: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """OpenAI's privacy filter: as gpt-oss, and the gates divided by k."""
    scores, indices = top_k_then_softmax(router, logits, bias)
    return scores / scores.shape[-1], indices


def group_limited_softmax(router: nn.Module, logits: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """DeepSeek-V2: softmax over all experts; the choice is greedy or limited to the best groups."""
    probabilities = torch.softmax(logits.float(), dim=-1)
    choice = probabilities + bias
    if router.topk_method == "group_limited_greedy":
        choice = choice.masked_fill(~_best_groups(router, choice), float("-inf"))
    indices = _top_k(router, choice)
    scale = float(router.routed_scaling_factor)  # type: ignore[arg-type]
    return probabilities.gather(-1, indices) * scale, indices


def sigmoid_then_top_k(router: nn.Module, logits: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Flint: sigmoid of each logit, top-k, renormalized where the model does."""
    values = torch.sigmoid(logits)
    indices = _top_k(router, values + bias)
    scores = values.gather(-1, indices)
    if router.norm_topk_prob:
        scores = scores / scores.sum(dim=-1, keepdim=True)
    return scores, indices


def _top_k(router: nn.Module, choice: Tensor) -> Tensor:
    return torch.topk(choice, int(router.top_k), dim=-1).indices  # type: ignore[arg-type]


def _best_groups(router: nn.Module, choice: Tensor) -> Tensor:
    n_groups, n_experts = int(router.num_group), choice.shape[-1]  # type: ignore[arg-type]
    best = choice.view(-1, n_groups, n_experts // n_groups).amax(dim=-1)
    best_few = torch.topk(best, int(router.topk_group), dim=-1).indices  # type: ignore[arg-type]
    mask = torch.zeros_like(best, dtype=torch.bool).scatter(1, best_few, True)
    return mask.repeat_interleave(n_experts // n_groups, dim=1)
