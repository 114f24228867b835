"""The slow, obvious dispatch: for each expert, select its tokens by `where`, compute, add."""

from __future__ import annotations

import torch
from torch.nn import functional


def where_loop(x, indices, weights, experts):
    """Return the (N, D) sums over chosen experts; ids beyond the experts contribute nothing."""
    out = torch.zeros_like(x)
    for expert in range(experts.n_experts):
        tokens, choices = torch.where(indices == expert)
        if not len(tokens):
            continue
        up_bias = None if experts.up_bias is None else experts.up_bias[expert]
        hidden = functional.linear(x[tokens], experts.up[expert], up_bias)
        if experts.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = functional.silu(gate) * value
        else:
            hidden = functional.gelu(hidden)
        down_bias = None if experts.down_bias is None else experts.down_bias[expert]
        y = functional.linear(hidden, experts.down_proj[expert], down_bias)
        out = out.index_add(0, tokens, y * weights[tokens, choices, None].to(y.dtype))
    return out
