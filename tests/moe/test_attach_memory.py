"""A limit of ours: a memory longer than the routers' own pace makes loads swing instead of even out."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_moe_models import build, torch

from metier import moe


def late_max_vio(balancer, *, steps=60, n_tokens=512):
    """Mean over the last 20 steps of each batch's MaxVio, routers trained fast on random tokens."""
    model = build("mixtral", num_local_experts=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    figures = []
    with moe.attach(model, balancer, tokens_per_step=n_tokens) as handle:
        for _ in range(steps):
            ids = torch.randint(3, 64, (n_tokens // 16, 16), generator=generator)
            model(input_ids=ids, labels=ids).loss.backward()
            handle.step()
            optimizer.step()
            optimizer.zero_grad()
            figures.append(handle.metrics()["max_vio/mean"])
    return float(np.mean(figures[-20:]))


@pytest.mark.slow
def test_a_memory_slower_than_the_routers_should_be_seen_to_swing():
    """Of at most 3.0: ten steps of memory stay near collapse, a tenth of a step and Switch do not."""
    slow = late_max_vio(moe.balancer("phi", strength=0.05, half_life_tokens=10 * 512))
    quick = late_max_vio(moe.balancer("phi", strength=0.05, half_life_tokens=0.1 * 512))
    switch = late_max_vio(moe.balancer("switch"))
    print(f"late MaxVio: memory of ten steps {slow:.2f}, of a tenth {quick:.2f}, Switch {switch:.2f}")
    assert slow > 2.0
    assert quick < slow - 0.7
    assert switch < slow - 0.7


def late_swing(weight_new, *, steps=150):
    """Mean over the last 50 steps of MaxVio and of the dual gap over its floor."""
    torch.manual_seed(0)
    balancer = moe.balancer("phi", strength=0.3, weight_new=weight_new)
    layer = moe.SparseMoE(16, 32, n_experts=8, top_k=2, balancer=balancer)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2)
    x, figures = torch.randn(512, 16) + 1.0, []
    for _ in range(steps):
        optimizer.zero_grad()
        (layer(x) - x.roll(1, dims=1)).square().mean().backward()
        optimizer.step()
        balancer.step()
        now = balancer.metrics()
        figures.append((now["max_vio/mean"], now["dual_gap/mean"] / now["dual_gap_floor/mean"]))
    return np.mean(figures[-50:], axis=0)


@pytest.mark.slow
def test_the_dual_gap_should_tell_a_memory_too_long_for_the_routers():
    """The default memory swings with fast routers and the gap shows it; weight_new=0.5 mends both."""
    default, shorter = late_swing(0.05), late_swing(0.5)
    print(f"MaxVio, gap over floor: default {default.round(1)}, weight_new=0.5 {shorter.round(1)}")
    assert default[0] > 1.5
    assert default[1] > 30.0
    assert shorter[0] < 1.0
    assert shorter[1] < 10.0
