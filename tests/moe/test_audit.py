"""The audit: figures counted by hand, what pooling hides, information, advice, a model left as found."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from tiny_moe_models import BUILDERS, SIGMOID, build, capture_logits, probabilities, tokens, torch

from metier import moe
from metier.core.errors import InputError
from metier.moe.auditing.report import loads_of, remedy


def snapshot(model):
    modes = {name: module.training for name, module in model.named_modules()}
    hooks = {name: len(module._forward_pre_hooks) for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    return modes, hooks, state


@pytest.mark.parametrize("name", BUILDERS)
def test_figures_should_be_those_counted_by_hand(name):
    model = build(name)
    mask = torch.ones(3, 10).long()
    mask[0, :4] = 0
    batches = [{"input_ids": tokens(batch=3, seed=i), "attention_mask": mask} for i in range(2)]
    found = moe.audit(model, batches)
    outputs, hooks = capture_logits(model)
    with torch.no_grad():
        for batch in batches:
            model(**batch)
    for hook in hooks:
        hook.remove()
    keep = mask.reshape(-1).bool()
    for layer, (router, calls) in zip(found.layers, outputs.items(), strict=True):
        assert layer.name == router
        n_experts = calls[0][0].shape[1]
        counts = [torch.bincount(c[2][keep].reshape(-1), minlength=n_experts).double() for c in calls]
        f = sum(counts) / sum(counts).sum()
        p = sum(probabilities(c[0][keep], sigmoid=name in SIGMOID).sum(0) for c in calls) / 52
        np.testing.assert_allclose(layer.load, f, atol=1e-12)
        np.testing.assert_allclose(layer.loads.gate, p, atol=1e-7)
        assert layer.tokens == 52
        assert layer.max_vio == pytest.approx(float(n_experts * f.max() - 1))
        each = [float(n_experts * (c / c.sum()).max() - 1) for c in counts]
        assert layer.loads.batch_max_vio == pytest.approx(np.mean(each))
        assert layer.loads.switch_value == pytest.approx(float(n_experts * (f * p).sum()), abs=1e-6)


def test_the_model_should_be_left_as_it_was_found():
    model = build("mixtral")
    model.model.layers[0].eval()
    modes, hooks, state = snapshot(model)
    generator = torch.get_rng_state()
    moe.audit(model, [{"input_ids": tokens(), "labels": tokens()}], labels=["a", "b"])
    after_modes, after_hooks, after_state = snapshot(model)
    assert modes == after_modes
    assert hooks == after_hooks
    assert all(torch.equal(state[key], after_state[key]) for key in state)
    assert torch.equal(generator, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(RuntimeError):
        moe.audit(model, [{"input_ids": torch.zeros(1, 2, 3, 4).long()}])
    assert snapshot(model)[0] == modes


def collapsed(expert, n_experts=4):
    layer = moe.SparseMoE(8, 8, n_experts=n_experts, top_k=1)
    with torch.no_grad():
        layer.router.weight.zero_()
        layer.router.weight[expert, 0] = 200.0
    return layer


class Residual(torch.nn.Module):
    """Layers that all see the first coordinate of the input."""

    def __init__(self, layers):
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x):
        return sum(layer(x) for layer in self.layers)


def test_pooling_should_hide_layers_that_collapse_on_different_experts():
    """What must be true, 17: four layers collapsed on four experts: pooled 1.0, each alone 4.0, to 1e-4."""
    x = torch.randn(64, 8)
    x[:, 0] = 1.0
    found = moe.audit(Residual([collapsed(e) for e in range(4)]), [x])
    assert found.pooled_value == pytest.approx(1.0, abs=1e-4)
    assert [layer.loads.switch_value for layer in found.layers] == pytest.approx([4.0] * 4, abs=1e-4)
    assert found.mean_value == pytest.approx(4.0, abs=1e-4)
    assert "is 1.000 (1 is perfect); taken apart it is 4.000" in found.hidden
    assert [layer.dead for layer in found.layers] == [(1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)]
    assert found.layers[0].remedy == '3 of 4 experts are dead: moe.attach(model, moe.balancer("phi"))'


def test_the_pooled_value_should_be_what_transformers_computes():
    """The rival's own function as oracle; ours divides by k."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    model, ids = build("mixtral", num_hidden_layers=3), tokens(batch=4)
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    found = moe.audit(model, [{"input_ids": ids, "attention_mask": mask}])
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, output_router_logits=True).router_logits
    theirs = load_balancing_loss_func(tuple(logits), 4, 2, mask)
    assert found.pooled_value == pytest.approx(float(theirs) / 2, rel=1e-5)


def bijection(n_labels=4, per_label=25, noise=False):
    """Sequences whose first coordinates name their label; the router reads them, or noise instead."""
    layer = moe.SparseMoE(8, 8, n_experts=n_labels, top_k=1)
    with torch.no_grad():
        layer.router.weight.zero_()
        start = 4 if noise else 0
        layer.router.weight[torch.arange(n_labels), start + torch.arange(n_labels)] = 50.0
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(n_labels * per_label, 6, 8, generator=generator) * (1.0 if noise else 1e-3)
    labels = [i % n_labels for i in range(len(x))]
    if not noise:
        for i, label in enumerate(labels):
            x[i, :, label] += 1.0
    return layer, x, labels


def test_information_should_be_log_e_for_a_balanced_bijection():
    """What must be true, 22: ln E nats, to 1e-6."""
    layer, x, labels = bijection()
    found = moe.audit(layer, [x[:50], x[50:]], labels=[labels[:50], labels[50:]])
    result = found.layers[0].information
    assert result.value == pytest.approx(np.log(4), abs=1e-6)
    assert result.p_value == 0.01
    np.testing.assert_allclose(found.layers[0].composition, np.eye(4))
    assert found.labels == (0, 1, 2, 3)


def test_independent_labels_should_give_the_plug_in_bias():
    """What must be true, 22: within 3 standard errors of (labels-1)(E-1)/2N; two-sided error rate 0.3 %."""
    values = []
    for seed in range(30):
        layer, x, labels = bijection(noise=True, per_label=10)
        x = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        values.append(moe.audit(layer, [x], labels=labels, permutations=1).layers[0].information.value)
    wanted = 3 * 3 / (2 * 40 * 6)
    stderr = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - wanted) <= 3 * stderr
    assert stderr < 0.2 * wanted


def test_information_given_the_token_should_not_call_vocabulary_specialization():
    """Two domains with words of their own: routing by word alone tells the domain, and nothing beyond."""
    model = build("mixtral", num_hidden_layers=1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 33, (24, 12), generator=generator)
    ids[12:] += 30
    found = moe.audit(model, [{"input_ids": ids}], labels=["a"] * 12 + ["b"] * 12)
    layer = found.layers[0]
    assert layer.information_given_token.value == pytest.approx(0.0, abs=1e-9)
    assert layer.information.value > 0.001
    assert layer.information.n == 24 * 12
    assert layer.information.n_units == 24
    assert "I(label; expert | token)" in found.summary()


def test_labels_may_be_an_entry_of_the_batches():
    model = build("mixtral")
    batches = [{"input_ids": tokens(seed=i), "domain": ["x", "y"]} for i in range(3)]
    found = moe.audit(model, batches, labels="domain", permutations=9)
    same = moe.audit(
        model, [{"input_ids": b["input_ids"]} for b in batches], labels=list("xyxyxy"), permutations=9
    )
    assert found.to_dict() == same.to_dict()
    assert "domain" in batches[0], "the caller's batches stay as they are"


def test_few_tokens_should_be_enough_for_information():
    model = build("mixtral")
    ids = tokens(batch=12)
    found = moe.audit(
        model, [{"input_ids": ids}], labels=list("abcabcabcabc"), information_tokens=50, permutations=5
    )
    assert found.layers[0].information.n == 50
    assert found.layers[0].tokens == 120


def test_results_should_be_printable_and_drawable():
    model = build("deepseek_v3", output_router_logits=False)
    found = moe.audit(model, [{"input_ids": tokens(batch=4)}], labels=list("aabb"), permutations=9)
    assert json.loads(json.dumps(found.to_dict()))["layers"][1]["n_experts"] == 8
    assert len(found.summary().splitlines()) >= 4
    assert found.worst in found.layers
    figure = found.plot()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[0] == "Load relative to an even share"
    assert titles[1].startswith("What each label uses at model.layers.")
    shown = figure.axes[0].images[0].get_array()
    assert float(shown[0, 0]) == pytest.approx(1 + found.layers[0].max_vio)
    assert len(moe.audit(model, [{"input_ids": tokens()}]).plot().axes) == 2


def test_built_in_losses_should_be_listed():
    found = moe.audit(build("olmoe"), [{"input_ids": tokens()}])
    assert [loss.summary() for loss in found.builtin_losses] == [
        "OlmoeForCausalLM has router_aux_loss_coef=0.01; off, because output_router_logits=False"
    ]
    on = moe.builtin_losses(build("olmoe", output_router_logits=True))
    assert on[0].active
    assert on[0].to_dict()["value"] == 0.01


@pytest.mark.parametrize(
    ("counts", "gates", "takes_bias", "advice"),
    [
        ([10, 10, 10, 10], [1, 1, 1, 1], True, "balanced: leave it alone"),
        ([14, 9, 9, 8], [1, 1, 1, 1], True, "balanced: leave it alone"),
        ([25, 5, 5, 5], [2, 1, 1, 1], True, 'one expert gets 2.5 times its share: .*balancer\\("phi"\\)'),
        ([16, 8, 8, 8], [1, 1, 1, 1], True, r"uneven \(MaxVio 0.60\), though .* even: .*phi_bias"),
        ([16, 8, 8, 8], [1, 1, 1, 1], False, r'though .* even: .*Balancer\(track="hard"\)'),
        ([40, 0, 0, 0], [9, 1, 1, 1], True, "3 of 4 experts are dead"),
    ],
)
def test_advice_should_follow_its_rules(counts, gates, takes_bias, advice):
    loads = loads_of([np.array(counts)], np.array(gates, float), 4)
    text = remedy(loads, called=True, takes_bias=takes_bias)
    assert re.search(advice, text)
    for call in re.findall(r"attach\(model, (.*)\)$", text):
        assert isinstance(eval(call, {"moe": moe}), moe.Balancer)  # what is advised can be run


def test_a_router_that_is_never_called_should_be_named():
    model = Residual([collapsed(0), collapsed(1)])
    model.forward = lambda x: model.layers[0](x)
    found = moe.audit(model, [torch.randn(4, 8)])
    assert [layer.tokens for layer in found.layers] == [4, 0]
    assert found.layers[1].remedy.startswith("never called")


def test_extremes_should_be_exact():
    """What must be true, 21: even loads give 0, 0, 0, 1; collapse on k gives its closed forms."""
    even = loads_of([np.full(8, 5)], np.ones(8), 8)
    assert (even.max_vio, even.gini, even.cv) == pytest.approx((0, 0, 0), abs=1e-6)
    assert even.dead == ()
    assert even.entropy == pytest.approx(1.0)
    two = loads_of([np.array([5, 5, 0, 0, 0, 0, 0, 0])], np.ones(8), 8)
    found = (two.max_vio, two.gini, two.cv)
    assert found == pytest.approx((8 / 2 - 1, 1 - 2 / 8, np.sqrt(8 / 2 - 1)), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batches": []}, "an audit needs batches: .* got none"),
        (
            {"batches": [{"input_ids": tokens()}], "labels": ["a"]},
            "one entry per sequence: expected 2 labels, got 1",
        ),
        (
            {"batches": [{"input_ids": tokens()}], "labels": "domain"},
            r"names an entry .* \['input_ids'\], got 'domain'",
        ),
        ({"batches": [{"input_ids": [1, 2]}]}, "a batch holds tensors"),
        ({"batches": [{"input_ids": tokens()}], "permutations": 0}, "permutations is a whole number"),
    ],
)
def test_bad_input_should_be_refused(arguments, message):
    batches = arguments.pop("batches")
    with pytest.raises(InputError, match=message):
        moe.audit(build("mixtral"), batches, **arguments)


def test_logits_that_are_not_finite_should_be_refused_by_name():
    layer = collapsed(0)
    with pytest.raises(InputError, match=r"finite: .* at router 'router' in batch 1"):
        moe.audit(layer, [torch.randn(4, 8), torch.full((4, 8), float("nan"))])
