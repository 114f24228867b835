"""A small router with a task loss, its tokens, and the balancer's algorithm once more, slow and obvious."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metier import moe

DIM, EXPERTS, TOP_K = 6, 8, 2


def domain_tokens(n: int = 256, *, seed: int = 0, dim: int = DIM) -> Tensor:
    """Tokens sorted by domain, so that every micro-batch is of one kind."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(8, dim)) * 1.5
    domain = np.sort(rng.integers(0, 8, n))
    return torch.from_numpy(centers[domain] + 0.4 * rng.normal(size=(n, dim)))


class TinyRouter(nn.Module):
    """Linear router whose gate values weigh fixed expert outputs: a task loss that needs the router."""

    def __init__(self, balancer: moe.Balancer | None, *, seed: int = 1, layer: str = "gate", **kw) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.weight = nn.Parameter(torch.from_numpy(rng.normal(size=(EXPERTS, DIM)) * 0.6))
        self.register_buffer("values", torch.from_numpy(rng.normal(size=EXPERTS)))
        self.balancer, self.layer, self.options = balancer, layer, kw
        self.seen: list[Tensor] = []
        if balancer is not None:
            balancer.add_layer(layer, n_experts=EXPERTS, top_k=TOP_K)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        logits = x @ self.weight.T
        gates = logits.softmax(-1)
        bias = None if self.balancer is None else self.balancer.bias(self.layer)
        indices = (gates if bias is None else gates + bias).topk(TOP_K, dim=-1).indices
        scores = gates.gather(-1, indices)
        self.seen.append(indices.detach())
        if self.balancer is not None:
            aux = self.balancer.observe(
                self.layer, logits, indices=indices, mask=mask, training=self.training, **self.options
            )
            scores = self.balancer.inject(scores, aux)
        return (scores * self.values[indices]).sum(-1)


def run_step(
    model: TinyRouter, x: Tensor, sizes: list[int], *, kind: str = "plain", step: bool = True
) -> Tensor:
    """Forward and backward over micro-batches of these sizes, then step; return the router's gradient."""
    model.weight.grad = None
    for part in x.split(sizes):
        if kind == "plain":
            y = model(part)
        else:
            part = part.clone().requires_grad_()
            y = checkpoint(model, part, use_reentrant=kind == "reentrant")
        (y**2).sum().div(x.shape[0]).backward()
    if step and model.balancer is not None:
        model.balancer.step()
    assert model.weight.grad is not None
    return model.weight.grad.clone()


@dataclass
class Naive:
    """Section 3 of the method in loops over tokens and experts, in NumPy: lagged price, aux or bias."""

    strength: float
    weight_new: float
    track: str = "soft"
    kappa: float = 0.0
    m: np.ndarray = field(default_factory=lambda: np.full(EXPERTS, 1.0 / EXPERTS))
    b: np.ndarray = field(default_factory=lambda: np.zeros(EXPERTS))

    def price(self) -> np.ndarray:
        q = np.log(self.m)
        return q - q.mean()

    def step(self, x: np.ndarray, weight: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return d(task + aux)/d weight, by central differences of the loss with choices held fixed."""
        p = softmax(x @ weight.T, axis=-1)
        chosen = np.argsort(-(p + self.b), axis=-1)[:, :TOP_K]
        q = self.price()

        def loss(w: np.ndarray) -> float:
            gates = softmax(x @ w.T, axis=-1)
            total = 0.0
            for n in range(x.shape[0]):
                y = sum(gates[n, e] * values[e] for e in chosen[n])
                total += y**2 + self.strength * sum(q[e] * gates[n, e] for e in range(EXPERTS))
            return total / x.shape[0]

        gradient = np.zeros_like(weight)
        for i in np.ndindex(*weight.shape):
            shift = np.zeros_like(weight)
            shift[i] = 1e-6
            gradient[i] = (loss(weight + shift) - loss(weight - shift)) / 2e-6
        counts = np.bincount(chosen.reshape(-1), minlength=EXPERTS)
        target = p.mean(0) if self.track == "soft" else counts / counts.sum()
        self.m = (1 - self.weight_new) * self.m + self.weight_new * target
        if self.kappa:
            log = np.log(np.maximum(EXPERTS * self.m, 1e-3))
            self.b = -self.kappa * (log - log.mean())
        return gradient
