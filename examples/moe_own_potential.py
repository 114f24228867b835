"""Balance a router with a potential of your own: one method is enough.

python examples/moe_own_potential.py
"""

import torch

from metier import moe


class Hinge(moe.Potential):
    """Loads are free within a band around the mean and cost the square of what is beyond it."""

    def __init__(self, *, band=0.25, target=None):
        super().__init__(target=target)
        self.band = band

    def raw_value(self, loads):
        n_experts = loads.shape[-1]
        beyond = torch.relu((n_experts * loads - 1.0).abs() - self.band)
        # A little of the quadratic keeps the cost strictly convex, so that balance is the only minimum.
        return (beyond**2 + 0.1 * (n_experts * loads - 1.0) ** 2).sum(-1)


torch.manual_seed(0)
tokens = torch.randn(4096, 16) + 0.7
router = torch.nn.Linear(16, 8, bias=False)
balancer = moe.balancer("phi", potential=Hinge(band=0.25), strength=0.1, half_life_tokens=2_000)
layer = balancer.add_layer("router", n_experts=8, top_k=2)
optimizer = torch.optim.Adam(router.parameters(), lr=0.002)

for step in range(400):
    batch = tokens[torch.randint(0, 4096, (256,))]
    logits = router(batch)
    gates, chosen = logits.softmax(-1).topk(2, dim=-1)
    gates = balancer.inject(gates, balancer.observe(layer, logits, indices=chosen))
    loss = ((gates.sum(-1) - 0.8) ** 2).mean()  # stands in for the model and its task
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    balancer.step()
    if step in (0, 399):
        routing = balancer.last.routing()
        print(f"step {step + 1:3d}: {routing.summary()}, gate entropy {routing.gate_entropy[0]:.3f}")
