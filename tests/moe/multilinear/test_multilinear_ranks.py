"""Ranks for budgets and the costs they are made of; statements 6 and 7."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from metier import moe

FORMS = tuple(moe.FORMS)


class MixerBlock(nn.Module):
    def __init__(self, tokens_mlp, channels_mlp, dim=512):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim), nn.LayerNorm(dim)])
        self.tokens, self.channels = tokens_mlp, channels_mlp


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)


def mixer(kind):
    """Return MLP-Mixer S-16 with MLPs of a kind: patches 16, width 512, 196 tokens, 256 and 2048 hidden."""

    def block():
        if kind == "mlp":
            return MixerBlock(Mlp(196, 256), Mlp(512, 2048))
        token_rank, channel_rank = {"cp": (147, 384), "tr": (37, 97)}[kind]
        settings = {"n_experts": 64, "form": kind, "norm": "batch"}
        return MixerBlock(
            moe.MultilinearMLP(196, 256, rank=token_rank, **settings),
            moe.MultilinearMLP(512, 2048, rank=channel_rank, **settings),
        )

    blocks = [block() for _ in range(8)]
    return nn.ModuleList([nn.Conv2d(3, 512, 16, 16), *blocks, nn.LayerNorm(512), nn.Linear(512, 1000)])


@pytest.mark.parametrize(("kind", "count"), [("mlp", 18_528_264), ("cp", 18_630_616), ("tr", 18_290_792)])
def test_6_mixer_counts_should_be_the_published_ones(kind, count):
    """Statement 6, exactly."""
    with torch.device("meta"):
        model = mixer(kind)
    assert sum(p.numel() for p in model.parameters()) == count


def parameters_at(form, n, rank, *, hidden=None, ring=(4, 4), size_in=48, size_out=40):
    """Count the parameters of a built layer or block."""
    settings = {"n_experts": n, "form": form, "ring_ranks": ring, "device": "meta"}
    rank = None if form == "mxd" else rank
    if hidden is None:
        layer = moe.MultilinearMoE(size_in, size_out, rank=rank, **settings)
    else:
        layer = moe.MultilinearMLP(size_in, hidden, size_out, rank=rank, **settings)
    return sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize("hidden", [None, 96], ids=["one-layer", "two-layer"])
@pytest.mark.parametrize("n", [1, 16, (4, 8)], ids=str)
@pytest.mark.parametrize("form", [f for f in FORMS if f != "mxd"])
def test_7_the_rank_should_spend_the_budget(form, n, hidden):
    """Statement 7: parameters <= P, and one rank more exceeds P."""
    for budget in (4_000, 9_001, 30_000):
        settings = {"n_experts": n, "form": form, "hidden_features": hidden, "parameters": budget}
        rank = moe.rank_for_budget(48, 40, **settings)
        assert parameters_at(form, n, rank, hidden=hidden) <= budget
        assert parameters_at(form, n, rank + 1, hidden=hidden) > budget
        above = moe.rank_for_budget(48, 40, **settings, rounding="ceil")
        assert above in (rank, rank + 1)


@pytest.mark.parametrize(
    ("i", "o", "n", "p"), [(768, 1000, 64, 769_000), (48, 40, 16, 5_000), (9, 30, 7, 3_333)]
)
def test_7_ceil_should_be_the_published_formula(i, o, n, p):
    """Statement 7: R = ceil((P-IN) / (I+1+O+N)), r3 = ceil((P - r1 r2 N - IN) / (r2 (I+1) + r1 O))."""
    settings = {"n_experts": n, "parameters": p, "rounding": "ceil"}
    assert moe.rank_for_budget(i, o, **settings) == math.ceil((p - i * n) / (i + 1 + o + n))
    for r1, r2 in ((4, 4), (2, 3)):
        expected = math.ceil((p - r1 * r2 * n - i * n) / (r2 * (i + 1) + r1 * o))
        assert moe.rank_for_budget(i, o, form="tr", ring_ranks=(r1, r2), **settings) == expected


def test_7_two_layers_should_follow_the_derived_formula():
    i, h, o, n, p = 768, 3072, 768, 64, 4_722_432
    cp = (p - i * n) // (2 * n + i + 1 + h + h + 1 + o)
    assert moe.rank_for_budget(i, o, n_experts=n, hidden_features=h, parameters=p) == cp
    tr = (p - i * n - 2 * 16 * n) // (4 * (i + 1) + 4 * h + 4 * (h + 1) + 4 * o)
    assert moe.rank_for_budget(i, o, n_experts=n, hidden_features=h, parameters=p, form="tr") == tr


def test_7_an_impossible_budget_should_say_why():
    """Statement 7: a ValueError with the gate's cost, the least budget and the largest number of experts."""
    gate, least = 768 * 2048, 768 * 2048 + 2048 + 769 + 1000
    most = (769_000 - 1769) // 769
    rule = (
        rf"at least {least:,} parameters .*gate alone takes {gate:,}, got 769,000; .*at most {most:,} experts"
    )
    with pytest.raises(ValueError, match=rule):
        moe.rank_for_budget(768, 1000, n_experts=2048, parameters=769_000)
    assert moe.rank_for_budget(768, 1000, n_experts=most, parameters=769_000) == 1
    assert moe.rank_for_budget(768, 1000, n_experts=(32, 64), parameters=769_000) > 300
    with pytest.raises(ValueError, match="it allows no number of experts"):
        moe.rank_for_budget(768, 1000, n_experts=4, parameters=1_000)


def test_mxd_should_have_one_rank():
    assert moe.rank_for_budget(48, 40, n_experts=4, form="mxd", parameters=10_000) == 40
    with pytest.raises(ValueError, match=r"at least 2,312 parameters"):
        moe.rank_for_budget(48, 40, n_experts=4, form="mxd", parameters=2_311)


@pytest.mark.parametrize("form", FORMS)
def test_multiplies_should_be_a_budget_too(form):
    rank = moe.rank_for_budget(48, 40, n_experts=(4, 4), form=form, multiplies=6_000)
    cost = moe.cost_of(moe.MultilinearMoE(48, 40, n_experts=(4, 4), form=form, rank=rank))
    assert cost.multiplies <= 6_000
    if form != "mxd":
        assert (
            moe.cost_of(moe.MultilinearMoE(48, 40, n_experts=(4, 4), form=form, rank=rank + 1)).multiplies
            > 6_000
        )


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({}, "expected parameters=... or multiplies=..., got neither"),
        ({"parameters": 9, "multiplies": 9}, "got parameters and multiplies"),
        ({"parameters": 0}, "parameters is a whole number"),
        ({"parameters": 9_000, "form": "cpp"}, "Did you mean 'cp'"),
        ({"parameters": 9_000, "rounding": "up"}, "rounding is one of a fixed list"),
        ({"parameters": 9_000, "hidden_features": -1}, "hidden_features is a whole number"),
    ],
)
def test_bad_budgets_should_be_refused(settings, fault):
    with pytest.raises(ValueError, match=fault):
        moe.rank_for_budget(48, 40, n_experts=4, **settings)


def counted(module, x):
    with FlopCounterMode(display=False) as counter:
        module(x)
    return counter.get_total_flops()


@pytest.mark.parametrize("modes", [5, (4, 4), (3, 4), (3, 3, 4)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_costs_should_agree_with_torch_counters(form, modes):
    """Must 3: parameters, twice the multiplies, and the bytes that autograd keeps."""
    for gate, norm in itertools.product(("entmax15", "softmax"), ("layer", "none")):
        rank = None if form == "mxd" else 3
        layer = moe.MultilinearMoE(16, 12, n_experts=modes, form=form, rank=rank, gate=gate, norm=norm)
        x, cost = torch.randn(10, 16), moe.cost_of(layer)
        assert cost.parameters == sum(p.numel() for p in layer.parameters())
        assert cost.gate_parameters == layer.gate.weight.numel()
        assert 2 * cost.multiplies * 10 == counted(layer, x)
        assert 4 * cost.saved * 10 == moe.activation_bytes(layer, x)
        assert (cost.dense_parameters, cost.dense_multiplies) == (16 * 12 + 12, 16 * 12)


@pytest.mark.parametrize("block", [moe.MultilinearMLP, moe.MultilinearGLU])
def test_a_shared_gate_should_count_once(block):
    module = block(16, 24, n_experts=6, rank=3)
    cost = moe.cost_of(module)
    assert cost.gate_parameters == 96
    assert cost.parameters == sum(p.numel() for p in module.parameters())
    assert 2 * cost.multiplies * 10 == counted(module, torch.randn(10, 16))
    assert f"{cost.parameters:,} parameters (96 gate)" in cost.summary()
    assert cost.to_dict()["saved"] == cost.saved


def test_decay_should_spare_expert_factors():
    for form in FORMS:
        model = nn.Sequential(
            nn.Linear(8, 8), moe.MultilinearMLP(8, 8, n_experts=(2, 3), form=form, norm="none")
        )
        model[0].weight.requires_grad_(False)
        decayed, spared = moe.decay_groups(model, weight_decay=0.05)
        names = {id(p): name for name, p in model.named_parameters()}
        kept = {names[id(p)] for p in spared["params"]}
        assert {n for n in kept if "experts" in n} == {n for n in names.values() if "experts" in n}
        assert all(p.dim() >= 2 for p in decayed["params"])
        assert "0.weight" not in kept | {names[id(p)] for p in decayed["params"]}
        assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
        torch.optim.AdamW([decayed, spared], lr=0.1)
    with pytest.raises(ValueError, match="weight_decay"):
        moe.decay_groups(nn.Linear(2, 2), weight_decay=-1)
