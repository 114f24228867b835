"""Rules that move selection biases between two steps: potential, sign, proportional, quantile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from metier.core.errors import InputError

from .potentials import Potential

RANGE = 64.0
"""Distances beyond this are counted in the outermost bins."""


def distance_to_selection(scores: Tensor, bias: Tensor, indices: Tensor) -> Tensor:
    r"""Return cut - score: what must be added to each expert's score for it to be among the chosen.

    With t the sorted scores + bias of a token, cut is t_(k+1) for the experts it chose and t_k for the
    others; expert e is chosen for a bias b_e exactly where cut - score < b_e.

    Args:
        scores: Selection scores before the bias, (N, E).
        bias: Biases, (E,).
        indices: Chosen experts, (N, k), k < E.

    Returns:
        Distances, (N, E).

    Raises:
        InputError: Every expert is chosen.

    Example:
        >>> d = distance_to_selection(torch.tensor([[0.5, 0.3, 0.2]]), torch.zeros(3), torch.tensor([[0]]))
        >>> [round(x, 3) for x in d[0].tolist()]
        [-0.2, 0.2, 0.3]
    """
    n_experts, top_k = scores.shape[-1], indices.shape[-1]
    if top_k >= n_experts:
        raise InputError(
            "the quantile rule needs experts that are not chosen",
            expected=f"top_k below n_experts={n_experts}",
            got=f"top_k={top_k}",
            next_step="Route to fewer experts, or drop the balancer: all loads are equal.",
        )
    best = torch.topk(scores + bias, top_k + 1, dim=-1).values
    # One slot more for ids beyond the experts, which expert parallelism uses for absent ones.
    chosen = torch.zeros(scores.shape[0], n_experts + 1, dtype=torch.bool, device=scores.device)
    chosen.scatter_(-1, indices.clamp(0, n_experts), True)
    cut = torch.where(chosen[:, :n_experts], best[:, -1:], best[:, -2:-1])
    return cut - scores


def quantile_bias(scores: Tensor, bias: Tensor, indices: Tensor) -> Tensor:
    """Return the biases, not centered, at which each expert wins top_k / E of these tokens.

    Args:
        scores: Selection scores before the bias, (N, E).
        bias: Biases of this step, (E,).
        indices: Chosen experts, (N, k), k < E.

    Returns:
        The top_k / E quantile over tokens of `distance_to_selection`, (E,): the fraction of tokens
        below it is top_k / E within 1 / N.

    Raises:
        InputError: Every expert is chosen.

    Example:
        >>> scores = torch.rand(300, 4, generator=torch.Generator().manual_seed(0))
        >>> chosen = scores.topk(1).indices
        >>> b = quantile_bias(scores, torch.zeros(4), chosen)
        >>> ((distance_to_selection(scores, torch.zeros(4), chosen) < b).sum(0)).tolist()
        [75, 75, 75, 75]

    Source: quantile balancing as in torchtitan; the cut of the chosen experts is ours.
    """
    distance = distance_to_selection(scores, bias, indices)
    ordered = distance.sort(dim=0).values
    n_tokens = distance.shape[0]
    rank = round(n_tokens * indices.shape[-1] / distance.shape[-1])
    return ordered[min(rank, n_tokens - 1)]


def count_distances(histogram: Tensor, distance: Tensor, weight: Tensor) -> None:
    """Add distances (N, E) to a histogram (E, bins) in place; `weight` (N,) is 0 for masked tokens."""
    n_experts, bins = histogram.shape
    place = torch.asinh(distance * 8.0 * n_experts) / math.asinh(RANGE * 8.0 * n_experts)
    slot = ((place + 1.0) * (0.5 * bins)).clamp(0, bins - 1).long()
    slot = slot + torch.arange(n_experts, device=slot.device) * bins
    weights = weight.to(histogram.dtype)[:, None].expand_as(slot)
    histogram.view(-1).scatter_add_(0, slot.reshape(-1), weights.reshape(-1))


def histogram_quantile(histogram: Tensor, level: Tensor) -> Tensor:
    """Return the quantile at `level` (..., E) of histograms (..., E, bins), interpolated within the bin.

    The bins are evenly spaced in asinh(8 E x), so that they are finest near 0, where scores of
    a softmax over many experts lie.
    """
    n_experts, bins = histogram.shape[-2], histogram.shape[-1]
    below = histogram.cumsum(-1)
    rank = level[..., None] * below[..., -1:]
    slot = (below < rank).sum(-1, keepdim=True).clamp_max(bins - 1)
    inside = histogram.gather(-1, slot)
    before = below.gather(-1, slot) - inside
    place = slot + ((rank - before) / inside.clamp_min(1e-12)).clamp(0.0, 1.0)
    scale = math.asinh(RANGE * 8.0 * n_experts)
    return (torch.sinh((place * (2.0 / bins) - 1.0) * scale) / (8.0 * n_experts)).squeeze(-1)


BIAS_FLOOR = 1e-3
"""Smallest relative load that a bias price sees."""


@dataclass(frozen=True, slots=True)
class StepLoads:
    """What a bias rule sees of a finished step.

    Attributes:
        hard: Shares of the choices of this step, (L, E), summing to 1.
        ema: Loads as they are remembered, this step included, (L, E).
        target: Loads to aim for, (E,).
        quantile: The top_k target quantile of cut - score per expert, (L, E), for the quantile rule.
    """

    hard: Tensor
    ema: Tensor
    target: Tensor
    quantile: Tensor | None = None


def potential_bias(bias: Tensor, loads: StepLoads, *, strength: float, potential: Potential) -> Tensor:
    """Return b = -strength price(max(m, 1e-3 / E)): the price enters the selection, not the loss (ours).

    Example:
        >>> from metier.moe import Shannon
        >>> m = torch.tensor([[0.5, 0.25, 0.25]])
        >>> loads = StepLoads(hard=m, ema=m, target=torch.full((3,), 1 / 3))
        >>> potential_bias(torch.zeros(1, 3), loads, strength=0.3, potential=Shannon())[0, 0].item() < 0
        True
    """
    return -strength * potential.price(loads.ema, floor=BIAS_FLOOR)


def sign_bias(bias: Tensor, loads: StepLoads, *, strength: float, potential: Potential) -> Tensor:
    """Return b + strength sign(target - load): loss-free balancing (arXiv 2408.15664).

    Example:
        >>> m = torch.tensor([[0.7, 0.3]])
        >>> loads = StepLoads(hard=m, ema=m, target=torch.full((2,), 0.5))
        >>> sign_bias(torch.zeros(1, 2), loads, strength=0.5, potential=None).tolist()
        [[-0.5, 0.5]]
    """
    return bias + strength * torch.sign(loads.target - loads.hard)


def proportional_bias(bias: Tensor, loads: StepLoads, *, strength: float, potential: Potential) -> Tensor:
    """Return b + strength (1 - load / target): the proportional variant of loss-free balancing.

    Example:
        >>> m = torch.tensor([[0.75, 0.25]])
        >>> loads = StepLoads(hard=m, ema=m, target=torch.full((2,), 0.5))
        >>> proportional_bias(torch.zeros(1, 2), loads, strength=1.0, potential=None).tolist()
        [[-0.5, 0.5]]
    """
    return bias + strength * (1.0 - loads.hard / loads.target)


def mixed_quantile_bias(bias: Tensor, loads: StepLoads, *, strength: float, potential: Potential) -> Tensor:
    """Return (1 - strength) b + strength quantile: each expert wins its share of the tokens.

    The quantile is that of cut - score at top_k target, where cut is the selection score that a token's
    expert has to beat: `moe.quantile_bias` is the exact form. Without a quantile the bias stays.

    Example:
        >>> m = torch.full((1, 2), 0.5)
        >>> loads = StepLoads(hard=m, ema=m, target=m[0], quantile=torch.ones(1, 2))
        >>> mixed_quantile_bias(torch.zeros(1, 2), loads, strength=0.5, potential=None).tolist()
        [[0.5, 0.5]]
    """
    return bias if loads.quantile is None else bias + strength * (loads.quantile - bias)


BIAS_RULES: MappingProxyType[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "potential": potential_bias,
        "sign": sign_bias,
        "proportional": proportional_bias,
        "quantile": mixed_quantile_bias,
    }
)
"""Rules by name: (biases (L, E), loads of the step, strength, potential) -> new biases, to be centered."""

BIAS_STRENGTHS = MappingProxyType({"potential": 0.3, "sign": 1e-3, "proportional": 1e-2, "quantile": 1.0})
"""Default strengths of the rules, for scores in [0, 1]."""
