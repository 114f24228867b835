"""A CP layer as it is usually written: entmax by sorting, a column of ones, einsum over factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from metier.moe import MultilinearMoE


class _SortedEntmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        z = (x - x.max(dim=-1, keepdim=True).values) / 2
        ordered = z.sort(dim=-1, descending=True).values
        k = torch.arange(1, z.shape[-1] + 1, device=z.device, dtype=z.dtype)
        mean = ordered.cumsum(-1) / k
        spread = k * (ordered.square().cumsum(-1) / k - mean.square())
        tau = mean - ((1 - spread) / k).clamp_min(0).sqrt()
        support = (tau <= ordered).sum(-1, keepdim=True)
        p = (z - tau.gather(-1, support - 1)).clamp_min(0).square()
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (p,) = ctx.saved_tensors
        g = p.sqrt()
        dx = grad * g
        return dx - dx.sum(-1, keepdim=True) / g.sum(-1, keepdim=True) * g


def entmax15_by_sorting(x: Tensor) -> Tensor:
    """Entmax-1.5 over the last dimension by the closed form over sorted logits."""
    return _SortedEntmax.apply(x)


class SortedCP(nn.Module):
    """The CP layer of arXiv 2402.12550 with the weights of a metier layer, one einsum per factor."""

    def __init__(self, layer: MultilinearMoE) -> None:
        super().__init__()
        f = layer.factors
        self.gate = nn.Parameter(layer.gate.weight.detach().T.clone())
        self.norm = nn.LayerNorm(layer.n_joint, elementwise_affine=False)
        self.experts = nn.Parameter(f.experts[0].detach().clone())
        into = torch.cat([f.input_weight, f.input_bias.unsqueeze(1)], dim=1)
        self.into = nn.Parameter(into.detach().T.clone())
        self.out = nn.Parameter(f.output_weight.detach().clone())

    def forward(self, z: Tensor) -> Tensor:
        a = entmax15_by_sorting(self.norm(torch.einsum("bi,in->bn", z, self.gate)))
        z = torch.cat([z, torch.ones(len(z), 1, device=z.device)], dim=1)
        f = torch.einsum("bn,nr->br", a, self.experts)
        h = torch.einsum("bi,ir->br", z, self.into)
        return torch.einsum("br,or->bo", f * h, self.out)
