"""A sparse transformer block in a loop of your own: one balancer for all layers, micro-batches, padding.

python examples/moe_sparse_layer.py
"""

import torch
from torch import nn

from metier import moe

torch.manual_seed(0)
balancer = moe.balancer("phi", strength=0.03, half_life_tokens=20_000, loss_scale=0.5)  # two micro-batches


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim)
        self.experts = moe.SparseMoE(dim, 64, n_experts=8, top_k=2, n_shared_experts=1, balancer=balancer)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return x + self.experts(self.norm(x), mask)


embedding, head = nn.Embedding(32, 32), nn.Linear(32, 32)
blocks = nn.ModuleList(Block(32) for _ in range(2))
parameters = [*embedding.parameters(), *head.parameters(), *blocks.parameters()]
optimizer = torch.optim.AdamW(parameters, lr=3e-3)

for _ in range(60):
    for _micro_batch in range(2):
        words = torch.randint(32, (8, 33)).cumsum(1) % 32  # a toy language
        mask = torch.ones(8, 32, dtype=torch.bool)
        mask[0, 20:] = False  # padding is computed, not counted
        x = embedding(words[:, :-1])
        for block in blocks:
            x = block(x, mask)
        loss = nn.functional.cross_entropy(head(x)[mask], words[:, 1:][mask]) / 2
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    balancer.step()

figures = balancer.metrics()
print(f"MaxVio {figures['max_vio/mean']:.2f}, worst layer {figures['max_vio/worst']:.2f}")
checkpoint = {"blocks": blocks.state_dict(), "balancer": balancer.state_dict()}
print(sorted(checkpoint))
