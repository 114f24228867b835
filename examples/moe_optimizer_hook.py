"""Let the optimizer step the balancer, as torchtitan does: the loop itself does not change at all.

python examples/moe_optimizer_hook.py
"""

from __future__ import annotations

import torch
from torch import nn

from metier import moe

torch.manual_seed(0)


class Block(nn.Module):
    """A residual block with sparse experts of ours; attach finds their routers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.experts = moe.SparseMoE(16, 32, n_experts=8, top_k=2, routing="sigmoid")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.experts(self.norm(x))


model = nn.Sequential(Block(), Block(), nn.Linear(16, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
handle = moe.attach(model, moe.balancer("loss_free"))
handle.step_with(optimizer)

x = torch.randn(512, 16) + torch.randn(16)
y = x[:, :1].sin()
for _ in range(100):
    optimizer.zero_grad()
    (model(x) - y).square().mean().backward()
    optimizer.step()

print("balancer steps:", handle.balancer.steps)
print("largest bias:", f"{max(float(bias.abs().max()) for bias in handle.biases.values()):.3f}")
handle.detach(bake_bias=True)  # the trained bias stays in force, in each router's selection_bias
