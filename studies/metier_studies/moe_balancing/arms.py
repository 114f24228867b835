"""The balancers that are compared, each with the grid its strength is chosen from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from metier import moe
from metier.core.extras import naming_extras

with naming_extras():
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to balance.

    Args:
        words: for people.
        strength: where the grid is centered; None has nothing to choose.
        ratio: between neighbors of the grid.
        preset: of `moe.balancer`, or None where the study itself does it.
        settings: further arguments of the preset.
        parts: or arguments of `moe.Balancer`, for what is no preset.
    """

    words: str
    strength: float | None
    ratio: float = 3.0
    preset: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    parts: tuple[tuple[str, Any], ...] = ()

    def grid(self, points: int) -> list[float | None]:
        """`points` strengths around the center, each `ratio` times the one before."""
        if self.strength is None:
            return [None]
        first = -(points // 2)
        return [self.strength * self.ratio**power for power in range(first, first + points)]


ARMS: dict[str, Arm] = {
    "none": Arm("no balancer", None),
    "phi": Arm("phi, lagged price", 0.03, preset="phi"),
    "phi_paper": Arm("phi as in the paper", 0.03, preset="phi_paper"),
    "phi_bias": Arm("phi as a bias", 0.1, preset="phi_bias"),
    "switch": Arm("Switch loss", 0.03, preset="switch"),
    "global_switch": Arm("Switch loss over the step", 0.03, preset="global_switch"),
    "loss_free": Arm("loss-free, sign", 0.003, preset="loss_free"),
    "quantile": Arm("quantile", 0.3, ratio=2.0, preset="quantile"),
    "simbal": Arm("similarity-preserving loss", 0.003),
    "sinkhorn": Arm("Sinkhorn", 1.0, ratio=2.0),
    "phi_short": Arm("phi, memory of a step", 0.03, preset="phi", settings=(("weight_new", 0.5),)),
    "phi_choices": Arm("phi of choices", 0.03, parts=(("track", "hard"), ("weight_new", 0.5))),
}
"""Expert choice is left out: it lets a token see later ones, which a language model must not."""


def make_balancer(arm: str, strength: float | None) -> moe.Balancer | None:
    """The balancer of an arm, or None where nothing or the study itself balances."""
    way = ARMS[arm]
    if way.parts:
        return moe.Balancer(strength=float(strength or 0.0), **dict(way.parts))
    return None if way.preset is None else moe.balancer(way.preset, strength=strength, **dict(way.settings))


def prepare(model: nn.Module, arm: str, strength: float | None) -> None:
    """Change a fresh model as the two baselines that are no `moe.Balancer` need it."""
    for layer in sparse_layers(model):
        if arm == "simbal":
            nn.init.orthogonal_(layer.router.weight)
        if arm == "sinkhorn":
            layer.router = _SinkhornRouter(layer.router, epsilon=float(strength or 1.0))


def extra_loss(model: nn.Module, arm: str, strength: float | None) -> Tensor | float:
    """What the training loop itself adds to the loss: only the similarity-preserving loss."""
    if arm != "simbal":
        return 0.0
    losses = [moe.simbal_loss(layer.router.weight) for layer in sparse_layers(model)]
    return float(strength or 0.0) * torch.stack(losses).sum()


def sparse_layers(model: nn.Module) -> Iterable[moe.SparseMoE]:
    """The mixtures of a model, in order."""
    return [module for module in model.modules() if isinstance(module, moe.SparseMoE)]


class _SinkhornRouter(moe.TopKRouter):
    """Choose by a balanced plan in training, by the scores alone in evaluation."""

    def __init__(self, router: moe.TopKRouter, *, epsilon: float) -> None:
        super().__init__(router.dim, router.n_experts, top_k=router.top_k)
        self.load_state_dict(router.state_dict())
        self.epsilon = epsilon

    def select(self, logits: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not self.training:
            return super().select(logits, bias)
        indices, _ = moe.sinkhorn_route(
            logits.detach(), self.top_k, epsilon=self.epsilon, tolerance=1e-2, max_iterations=10_000
        )
        return self.gate_values(logits, indices), indices
