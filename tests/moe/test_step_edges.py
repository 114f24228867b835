"""What a step reports and remembers at its edges: floors, noise, worst layers, layers that saw nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from metier import moe
from metier.moe.balancing import steps
from metier.moe.balancing.memory import Memory

GATES = np.array([[0.7, 0.2, 0.1, 0.0], [0.4, 0.4, 0.2, 0.0], [0.1, 0.6, 0.3, 0.0]])
"""Nobody gives expert 3 anything."""


def layer(**settings: object) -> moe.Balancer:
    balancer = moe.Balancer(**settings)
    balancer.add_layer("gate", n_experts=4, top_k=1)
    return balancer


def count(balancer: moe.Balancer, gates: np.ndarray = GATES, *, name: str = "gate") -> None:
    probs = torch.from_numpy(gates)
    balancer.observe(name, probs=probs, indices=probs.argmax(-1, keepdim=True))


@pytest.mark.parametrize("n_experts", [4, 16])
def test_price_of_an_unused_expert_should_be_that_of_a_millionth_of_its_share(n_experts: int) -> None:
    """Shannon by hand: log max(E m, 1e-6), less its mean, through a step of the balancer."""
    balancer = moe.Balancer(weight_new=1.0)
    balancer.add_layer("gate", n_experts=n_experts, top_k=1)
    count(balancer, np.pad(GATES, ((0, 0), (0, n_experts - 4))))
    balancer.step()
    mean = np.r_[GATES.mean(0), np.zeros(n_experts - 4)]
    log = np.log(np.maximum(n_experts * mean, 1e-6))
    np.testing.assert_allclose(balancer.prices("gate").numpy(), log - log.mean(), rtol=1e-6)


def test_bias_of_an_unused_expert_should_be_that_of_a_thousandth_of_its_share() -> None:
    balancer = layer(weight_new=1.0, sink="bias", bias_rule="potential", bias_strength=0.3, track="hard")
    count(balancer)
    balancer.step()
    log = np.log(np.maximum(4 * np.array([2 / 3, 1 / 3, 0.0, 0.0]), 1e-3))
    np.testing.assert_allclose(balancer.bias("gate").numpy(), -0.3 * (log - log.mean()), rtol=1e-5)


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Bregman divergence of the entropy, with both loads at least 1e-6 / 4, as a plain sum."""
    p, q = np.maximum(p, 2.5e-7), np.maximum(q, 2.5e-7)
    return sum(a * math.log(a / b) - a + b for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("empty_first", [True, False])
def test_dual_gap_should_see_unused_experts_at_a_millionth_of_their_share(empty_first: bool) -> None:
    balancer = layer(weight_new=1.0)
    batches = [GATES, np.full((3, 4), 0.25)]
    for gates in batches if empty_first else batches[::-1]:
        count(balancer, gates)
        balancer.step()
    remembered, now = (x.mean(0) for x in (batches if empty_first else batches[::-1]))
    assert balancer.last.dual_gap()["gate"][0] == pytest.approx(divergence(now, remembered), rel=1e-9)


def squares_of_weights(memory: Memory, n_steps: int) -> float:
    """Sum of squares of what each of `n_steps` steps of 100 tokens weighs in the remembered loads."""
    weights = np.zeros(n_steps)
    for t in range(n_steps):
        eta = memory.weight(tokens=100, steps=t)
        weights *= 1 - eta
        weights[t] = eta
    return float(weights @ weights)


@pytest.mark.parametrize(
    ("settings", "earlier"),
    [
        ({"weight_new": 0.4}, 60),
        ({"half_life_tokens": 150.0}, 60),
        ({"running": True}, 5),
        ({"running": True}, 1),
    ],
)
@pytest.mark.parametrize(("track", "top_k"), [("soft", 1), ("hard", 1), ("hard", 2)])
def test_floor_of_the_dual_gap_should_be_its_sum(
    settings: dict, earlier: int, track: str, top_k: int
) -> None:
    """sum_e h_e Var_e (1 + eta') / (2 n), h = 1 / p for Shannon, eta' = the sum of squared weights."""
    gates = np.random.default_rng(0).dirichlet(np.ones(4), size=100)
    chosen = np.argsort(-gates, axis=1)[:, :top_k]
    balancer = moe.Balancer(track=track, **settings)
    balancer.add_layer("gate", n_experts=4, top_k=top_k)
    for _ in range(earlier + 1):
        balancer.observe("gate", probs=torch.from_numpy(gates), indices=torch.from_numpy(chosen))
        balancer.step()
    rows = np.eye(4)[chosen].mean(1) if track == "hard" else gates
    eta = squares_of_weights(Memory(**settings), earlier)
    expected = sum(rows[:, e].var() / rows[:, e].mean() for e in range(4)) * (1 + eta) / 200
    assert balancer.last.dual_gap()["gate"][1] == pytest.approx(expected, rel=1e-6)


def test_worst_should_be_the_least_even_layer_by_every_figure() -> None:
    """Layer b is worse in every way; the summary of a step says so of its gap and its floor as well."""
    m = moe.routing_metrics(
        {"b": [97, 1, 1, 1], "a": [3, 3, 2, 2]}, gates={"b": [8, 1, 1, 0], "a": [1, 1, 1, 1]}
    )
    assert m.worst == m.per_layer()["b"]
    assert m.worst != m.per_layer()["a"]
    assert m.worst["gate_entropy"] == pytest.approx(
        -(0.8 * math.log(0.8) + 0.2 * math.log(0.1)) / math.log(4)
    )
    balancer = moe.Balancer(weight_new=0.5)
    for name, gates in {"even": np.full((8, 4), 0.25), "skewed": np.tile(GATES, (2, 1))}.items():
        balancer.add_layer(name, n_experts=4, top_k=1)
        count(balancer, gates, name=name)
    balancer.step()
    figures, gaps = balancer.metrics(), balancer.last.dual_gap()
    assert gaps["skewed"] > gaps["even"]
    for i, name in enumerate(("dual_gap", "dual_gap_floor")):
        pair = [gaps["even"][i], gaps["skewed"][i]]
        assert pair[0] < pair[1]
        assert figures[f"{name}/worst"] == pair[1]
        assert figures[f"{name}/mean"] == pytest.approx(sum(pair) / 2)


def test_widest_bias_should_be_reported_over_layers_of_any_shape() -> None:
    """Two layers share a block, one has its own; one of the two is uneven."""
    balancer = moe.Balancer(weight_new=1.0, sink="bias", bias_rule="potential", track="hard")
    for name, n_experts in {"uneven": 4, "wide": 8, "even": 4}.items():
        balancer.add_layer(name, n_experts=n_experts, top_k=1)
        indices = torch.arange(16)[:, None] % (1 if name == "uneven" else n_experts)
        balancer.observe(name, torch.zeros(16, n_experts), indices=indices)
    balancer.step()
    widths = {name: float(np.ptp(balancer.bias(name).numpy())) for name in balancer.layers}
    assert widths["wide"] == widths["even"] == 0.0
    assert widths["uneven"] > 1.0
    assert balancer.metrics()["bias_range/worst"] == pytest.approx(widths["uneven"])


@pytest.mark.parametrize(
    "settings", [{"weight_new": 0.4}, {"half_life_tokens": 9.0}, {"running": True}], ids=str
)
def test_a_step_without_tokens_should_weigh_nothing(settings: dict) -> None:
    assert Memory(**settings).weight(tokens=0, steps=0) == 0.0
    assert Memory(**settings).weight(tokens=1, steps=0) > 0.0


def doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Play two ranks of equal tokens: the all-reduce doubles."""
    monkeypatch.setattr(steps, "_resolve_group", lambda group: (None, 2))
    monkeypatch.setattr(steps, "_device", lambda blocks, group: torch.device("cpu"))
    monkeypatch.setattr(steps.dist, "all_reduce", lambda flat, group, op=None: op or flat.mul_(2.0))


@pytest.mark.parametrize("track", ["soft", "hard"])
@pytest.mark.parametrize("price", ["lagged", "paper"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_layer_without_tokens_should_keep_its_loads_prices_and_bias(
    track: str, price: str, ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other layer of its block moves meanwhile."""
    if ranks == 2:
        doubled(monkeypatch)
    balancer = moe.Balancer(
        weight_new=0.5, track=track, price=price, sink="both", bias_rule="proportional", tokens_per_step=3
    )
    for name in ("rare", "busy"):
        balancer.add_layer(name, n_experts=4, top_k=1)

    def step(rare: bool, gates: np.ndarray) -> dict[str, list[Tensor]]:
        for name in balancer.layers:
            logits = torch.from_numpy(gates).clamp_min(1e-9).log().requires_grad_()
            scores, indices = logits.softmax(-1).max(-1, keepdim=True)
            mask = None if rare or name == "busy" else torch.zeros(3)
            aux = balancer.observe(name, logits, indices=indices, mask=mask)
            balancer.inject(scores, aux).sum().backward()
        balancer.step()
        now = {n: (balancer.loads(n), balancer.prices(n), balancer.bias(n)) for n in balancer.layers}
        return {name: [state.clone() for state in states] for name, states in now.items()}

    before = step(True, GATES)
    after = step(False, GATES[:, [1, 2, 3, 0]])
    for was, now in zip(before["rare"], after["rare"], strict=True):
        assert torch.equal(was, now)
    for was, now in zip(before["busy"], after["busy"], strict=True):
        assert not torch.equal(was, now)
    assert (before["rare"][0] - 0.25).abs().max() > 0.1


def test_tokens_without_an_expert_should_leave_hard_loads_alone() -> None:
    """Tokens that were dropped everywhere (their expert id is E) choose nothing: nothing is learned."""
    balancer = layer(weight_new=0.5, track="hard")
    count(balancer)
    balancer.step()
    before = balancer.loads("gate")
    balancer.observe("gate", probs=torch.from_numpy(GATES), indices=torch.full((3, 1), 4))
    balancer.step()
    assert torch.equal(balancer.loads("gate"), before)
    assert before.sum().item() == pytest.approx(1.0)
