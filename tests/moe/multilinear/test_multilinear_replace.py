"""Replacing dense layers of models: plain, transformers, timm-like."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
)

from metier import moe


class TimmMlp(nn.Module):
    """The block of timm: fc1, act, drop1, norm, fc2, drop2."""

    def __init__(self, width=8, norm=False):
        super().__init__()
        self.fc1, self.act, self.drop1 = nn.Linear(width, 16), nn.GELU(), nn.Dropout(0.1)
        self.norm = nn.LayerNorm(16) if norm else nn.Identity()
        self.fc2, self.drop2 = nn.Linear(16, width), nn.Dropout(0.0)

    def forward(self, x):
        return self.drop2(self.fc2(self.norm(self.drop1(self.act(self.fc1(x))))))


def gpt2():
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=50, n_positions=32)
    return GPT2LMHeadModel(config).eval()


def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        num_hidden_layers=2, hidden_size=16, intermediate_size=24, num_attention_heads=2, vocab_size=50
    )
    return LlamaForCausalLM(config).eval()


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=2, hidden_size=16, intermediate_size=24, num_attention_heads=2, vocab_size=50
    )
    return BertModel(config, add_pooling_layer=False).eval()


TOKENS = torch.arange(24).reshape(2, 12)


def output(model):
    with torch.no_grad():
        result = model(input_ids=TOKENS)
    return result.logits if hasattr(result, "logits") else result.last_hidden_state


@pytest.mark.parametrize("form", ["cp", "tr", "mxd"])
@pytest.mark.parametrize(
    ("make", "pattern", "kinds"),
    [
        (gpt2, "transformer.h.*.mlp", ["mlp", "mlp"]),
        (gpt2, re.compile(r"c_(fc|proj)$"), ["linear"] * 6),
        (llama, "*.mlp", ["glu", "glu"]),
        (bert, ["*.intermediate.dense", "encoder.layer.*.output.dense"], ["linear"] * 6),
        (bert, lambda name, module: name.endswith("intermediate.dense"), ["linear", "linear"]),
    ],
    ids=["gpt2-blocks", "gpt2-conv1d", "llama-glu", "bert-linear", "bert-function"],
)
def test_full_rank_should_keep_the_model(make, pattern, kinds, form):
    """Must 4: transformers' nn.Linear, Conv1D and gated blocks, function kept."""
    model = make()
    before = output(model)
    report = moe.replace(model, pattern, n_experts=(3, 4), form=form, rng=0)
    assert [layer.kind for layer in report.layers] == kinds
    torch.testing.assert_close(output(model), before, rtol=1e-4, atol=1e-4)
    assert all(error <= 1e-5 for layer in report.layers for error in layer.weight_error.values())
    assert report.layers[0].parameters == sum(
        p.numel() for p in model.get_submodule(report.layers[0].name).parameters()
    )


def test_plain_and_timm_like_blocks_should_be_replaced():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "plain": nn.Sequential(
                nn.Linear(8, 16), nn.SiLU(), nn.Dropout(0.0), nn.Linear(16, 8, bias=False)
            ),
            "timm": TimmMlp(),
            "head": nn.Linear(8, 3),
        }
    )
    x = torch.randn(5, 8)
    before = {name: module.eval()(x) for name, module in model.items()}
    report = moe.replace(model, "*", n_experts=6, rng=0)
    assert [(layer.name, layer.kind) for layer in report.layers] == [
        ("plain", "mlp"), ("timm", "mlp"), ("head", "linear"),
    ]  # fmt: skip
    for name, module in model.items():
        torch.testing.assert_close(module(x), before[name], rtol=1e-4, atol=1e-5)
    assert model["plain"].activation == "silu"
    assert report.layers[1].notes == ("dropout 0.1 inside the block is left out",)
    assert "3 replaced: " in report.summary()


def test_calibration_should_lower_the_error_of_the_model_it_reports():
    torch.manual_seed(0)
    batches = [{"input_ids": TOKENS}, {"input_ids": TOKENS.flip(1)}]
    plain, aware = bert(), bert()
    settings = {"n_experts": 6, "budget": 0.7, "rng": 0}
    blind = moe.replace(plain, "*.intermediate.dense", **settings)
    informed = moe.replace(aware, "*.intermediate.dense", calibration=batches, **settings)
    again = moe.replace(bert(), "*.intermediate.dense", calibration=iter(batches), **settings)
    assert again.to_dict() == informed.to_dict()
    for one, two in zip(blind.layers, informed.layers, strict=True):
        assert one.rank == two.rank
        assert one.output_error == {}
        assert one.weight_error["linear"] <= two.weight_error["linear"]
    original = bert()
    seen = {}
    layer = "encoder.layer.0.intermediate.dense"
    original.get_submodule(layer).register_forward_hook(lambda m, a, o: seen.update(x=a[0], y=o))
    output(original)
    twice, y = seen["x"], seen["y"]
    error = (aware.get_submodule(layer)(twice) - y).norm() / y.norm()
    assert (
        0.2 * informed.layers[0].output_error["linear"]
        < error
        < 5 * informed.layers[0].output_error["linear"]
    )
    blind_error = (plain.get_submodule(layer)(twice) - y).norm() / y.norm()
    assert error < blind_error


def test_budgets_should_be_kept():
    for make, pattern in ((gpt2, "*.mlp"), (llama, "*.mlp"), (bert, "*.intermediate.dense")):
        for form in ("cp", "tr"):
            report = moe.replace(make(), pattern, n_experts=(3, 3), form=form, budget=0.8, ring_ranks=(2, 2))
            assert all(layer.parameters <= 0.8 * layer.parameters_before for layer in report.layers)
            assert all(layer.parameters > 0.4 * layer.parameters_before for layer in report.layers)
    with pytest.raises(
        ValueError, match=r"the budget of transformer.h.0.mlp must pay for the gate and for rank 1"
    ):
        moe.replace(gpt2(), "*.mlp", n_experts=512, budget=0.5)


def test_a_plan_should_rebuild_the_model_for_its_state():
    model = llama()
    plan = moe.replace(model, "*.mlp", n_experts=(3, 4), form="tr", budget=0.9, rng=0)
    fresh = moe.rebuild(llama(), json.loads(json.dumps(plan.to_dict())))
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    assert torch.equal(output(fresh), output(model))


def test_replaced_models_should_train():
    model = gpt2()
    moe.replace(model, "*.mlp", n_experts=8, budget=0.9, rng=0)
    model.train()
    optimizer = torch.optim.AdamW(moe.decay_groups(model), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = model(input_ids=TOKENS, labels=TOKENS).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3


def test_batch_norm_should_be_refused_in_causal_models():
    """Statement 14: flagged by the model's class."""
    for make in (gpt2, llama):
        with pytest.raises(ValueError, match=r"a causal model must not see later tokens"):
            moe.replace(make(), "*.mlp", n_experts=6, norm="batch")
        report = moe.replace(make(), "*.mlp", n_experts=6, norm="batch", force=True)
        assert report.layers[0].config["causal"] is True
    assert (
        moe.replace(bert(), "*.intermediate.dense", n_experts=6, norm="batch").layers[0].config["causal"]
        is False
    )


def test_causal_models_should_be_seen_inside_others():
    """Statement 14: a base model without a head, and a causal model inside a user's own module."""
    for model in (LlamaModel(llama().config), nn.ModuleDict({"inner": llama()})):
        with pytest.raises(ValueError, match=r"a causal model must not see later tokens"):
            moe.replace(model, "*.mlp", n_experts=6, norm="batch")


def test_a_refused_replacement_should_leave_the_model_alone():
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    with pytest.raises(ValueError, match="the budget of 2 must pay for the gate"):
        moe.replace(model, ["0", "2"], n_experts=8, budget=0.6)
    assert [type(module) for module in model] == [nn.Linear, nn.ReLU, nn.Linear]


def test_the_bias_of_the_gate_should_be_in_the_budget():
    """The published MxD gate has a bias: at this budget it makes the difference of one rank."""
    for budget in torch.linspace(0.5, 0.9, 41).tolist():
        model = nn.ModuleDict({"head": nn.Linear(16, 16)})
        (layer,) = moe.replace(model, "head", n_experts=4, budget=budget, gate="relu_topk").layers
        assert layer.parameters <= budget * layer.parameters_before


def test_seeds_should_decide_the_noise():
    """And the noise of a block's layers differs, and is not the gate's own draw."""
    state = torch.random.get_rng_state()
    models = [gpt2() for _ in range(3)]
    torch.random.set_rng_state(state)
    for model, seed in zip(models, (0, 0, 1), strict=True):
        moe.replace(model, "*.mlp", n_experts=6, rank=8, noise=0.1, rng=seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    a, b, c = (model.transformer.h[0].mlp for model in models)
    experts = [block.up.factors.experts[0] for block in (a, b, c)]
    assert torch.equal(experts[0], experts[1])
    assert not torch.equal(experts[0], experts[2])
    assert not torch.equal(experts[0], a.down.factors.experts[0])


def test_bad_replacements_should_be_refused():
    dense = nn.ModuleDict({"head": nn.Linear(4, 6)})
    with pytest.raises(ValueError, match='form="mxd" has full rank'):
        moe.replace(dense, "head", n_experts=3, form="mxd", rank=2)
    with pytest.raises(ValueError, match="budget has no negative values"):
        moe.replace(dense, "head", n_experts=3, budget=float("nan"))
    with pytest.raises(ValueError, match=r"a match, e.g. head, got '\*.mpl', which matches none"):
        moe.replace(nn.ModuleDict({"head": nn.Linear(2, 2)}), "*.mpl", n_experts=6)
    with pytest.raises(
        ValueError, match=r"lm_head owns its weights: .* a weight that is transformer.wte.weight too"
    ):
        moe.replace(gpt2(), "lm_head", n_experts=6)
    with pytest.raises(
        ValueError, match=r"timm is a plain feed-forward block: .* TimmMlp, which computes something else"
    ):
        moe.replace(nn.ModuleDict({"timm": TimmMlp(norm=True)}), "timm", n_experts=6)
    odd = nn.ModuleDict({"odd": nn.Sequential(nn.Linear(4, 4), nn.Softplus(), nn.Linear(4, 4))})
    with pytest.raises(ValueError, match=r"the activation of odd is one that blocks offer: .* got Softplus"):
        moe.replace(odd, "odd", n_experts=6)
    with pytest.raises(ValueError, match="a replacement has one size"):
        moe.replace(odd, "odd.0", n_experts=6, rank=2, budget=0.5)
    with pytest.raises(ValueError, match=r"finite inputs of odd.0, got none"):
        moe.replace(odd, "odd.0", n_experts=6, rank=2, calibration=[])
