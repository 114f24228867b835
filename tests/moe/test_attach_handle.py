"""The handle: biases, detaching, saved states, optimizer hooks, and everything that is refused by name."""

from __future__ import annotations

import pytest
from tiny_moe_models import BUILDERS, build, gradients, routers_of, tokens, torch, transformers, warmed

from metier import moe
from metier.core.errors import InputError
from metier.moe.balancing.balancer import Balancer

RULES = ["potential", "sign", "proportional", "quantile"]


def biased(rule="sign", strength=0.02):
    return Balancer(sink="bias", bias_rule=rule, bias_strength=strength, weight_new=0.5)


def train(model, handle, steps=3, start=0):
    for i in range(start, start + steps):
        ids = tokens(seed=100 + i)
        model(input_ids=ids, labels=ids).loss.backward()
        handle.step()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p.sub_(0.05 * p.grad)
        model.zero_grad()


def decisions(model, ids):
    """Choices and gate values of every router, as the model itself uses them, dense (N, E)."""
    seen = []

    def keep(module, args, output):
        logits, scores, indices = output
        dense = torch.zeros(logits.shape, dtype=torch.float32)
        seen.append((dense.scatter(1, indices, scores.float()), indices.sort(-1).values))

    hooks = [router.register_forward_hook(keep) for _, router in routers_of(model)]
    training = model.training
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    model.train(training)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", BUILDERS)
def test_a_bias_should_be_centered_move_choices_and_leave_gates(name, rule):
    """What must be true, 18, through real routers: |mean b| <= 1e-6; gates of kept choices unchanged."""
    model, ids = build(name), tokens(batch=8)
    before = decisions(model, ids)[0]
    # Large steps: a bias that moves no choice would test nothing.
    strength = {"potential": 2.0, "quantile": 1.0}.get(rule, 0.1)
    handle = moe.attach(model, biased(rule, strength))
    for i in range(3):
        model(input_ids=tokens(seed=i))
        handle.step()
    for bias in handle.biases.values():
        assert abs(float(bias.mean())) <= 1e-6
        assert float(bias.abs().max()) > 0.01
    after = decisions(model, ids)[0]
    same = (before[1] == after[1]).all(-1)
    assert 0 < int(same.sum()) < len(same)
    torch.testing.assert_close(before[0][same], after[0][same], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("bake", [False, True])
def test_detaching_should_restore_or_keep_the_choice(name, bake):
    model, ids = build(name), tokens(batch=8)
    hooks = {n: len(m._forward_hooks) + len(m._forward_pre_hooks) for n, m in model.named_modules()}
    bare = [d[1] for d in decisions(model, ids)]
    handle = moe.attach(model, biased(strength=0.1))
    for i in range(3):
        model(input_ids=tokens(seed=i))
        handle.step()
    attached = [d[1] for d in decisions(model, ids)]
    handle.detach(bake_bias=bake)
    handle.detach()  # a second time does nothing
    detached = [d[1] for d in decisions(model, ids)]
    wanted = attached if bake else bare
    assert all(torch.equal(a, b) for a, b in zip(detached, wanted, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(attached, bare, strict=True))
    after = {n: len(m._forward_hooks) + len(m._forward_pre_hooks) for n, m in model.named_modules()}
    if not bake or name == "deepseek_v3":
        # transformers may add its own output recorders in a first call, on routers and attentions.
        assert all(after[n] - count in (0, 1) for n, count in hooks.items())
    with pytest.raises(InputError, match="a detached handle balances nothing"):
        handle.step()


def test_a_baked_bias_should_move_to_a_fresh_model():
    model, ids = build("mixtral"), tokens(batch=8)
    handle = moe.attach(model, biased(strength=0.1))
    for i in range(3):
        model(input_ids=tokens(seed=i))
        handle.step()
    biases = handle.biases
    handle.detach(bake_bias=True)
    assert "model.layers.0.mlp.gate.selection_bias" in model.state_dict()
    fresh = build("mixtral")
    moe.set_selection_bias(fresh, biases)
    moved = zip(decisions(model, ids), decisions(fresh, ids), strict=True)
    assert all(torch.equal(a[1], b[1]) for a, b in moved)
    with pytest.raises(InputError, match=r"has a selection bias that was baked in"):
        moe.attach(fresh, biased())
    with moe.attach(fresh, Balancer()) as prices:
        fresh(input_ids=ids).logits.sum().backward()
        prices.step()
    with pytest.raises(InputError, match=r"belongs to a router: .* got 'nowhere' with 4 entries"):
        moe.set_selection_bias(fresh, {"nowhere": torch.zeros(4)})


def test_a_models_own_bias_should_be_kept_beneath_ours():
    model = build("deepseek_v3")
    gate, own = model.model.layers[1].mlp.gate, torch.linspace(-0.2, 0.2, 8)
    gate.e_score_correction_bias.copy_(own)
    handle = moe.attach(model, biased())
    train(model, handle, 2)
    ours = handle.biases["model.layers.1.mlp.gate"]
    assert float(ours.abs().max()) > 0
    torch.testing.assert_close(gate.e_score_correction_bias, own + ours)
    handle.detach()
    assert torch.equal(gate.e_score_correction_bias, own)


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "gpt_oss"])
@pytest.mark.parametrize("sink", ["aux", "bias", "both"])
def test_a_saved_state_should_resume_bit_equal(name, sink):
    """What must be true, 9, through attach: save after two steps, go on in a new process's objects."""
    rule = {} if sink == "aux" else {"bias_rule": "sign", "bias_strength": 0.01}

    def start():
        model = build(name)
        return model, moe.attach(model, Balancer("shannon", 0.05, weight_new=0.3, sink=sink, **rule))

    model, handle = start()
    train(model, handle, 2)
    state = handle.state_dict()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    train(model, handle, 2, start=2)
    again, resumed = start()
    # The saved weights hold the bias that was in force; the state knows which part of it is ours.
    again.load_state_dict(weights)
    resumed.load_state_dict(state)
    train(again, resumed, 2, start=2)
    assert [k for k, v in again.state_dict().items() if not torch.equal(v, model.state_dict()[k])] == []
    a, b = handle.state_dict()["balancer"], resumed.state_dict()["balancer"]
    for part in ("ema", "price", "bias"):
        assert all(torch.equal(a[part][n], b[part][n]) for n in handle.routers)


def test_a_state_of_another_model_should_be_refused():
    state = moe.attach(build("deepseek_v3"), biased()).state_dict()
    handle = moe.attach(build("mixtral"), biased())
    with pytest.raises(InputError, match=r"belongs to the model it came from: .* biases are \[\], got"):
        handle.load_state_dict(state)
    with pytest.raises(InputError, match=r"layers"):
        moe.attach(build("mixtral", num_hidden_layers=3), biased()).load_state_dict(handle.state_dict())


def test_an_optimizer_should_bring_its_own_step():
    model = build("qwen3_moe")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with moe.attach(model, Balancer("shannon", 0.05, weight_new=0.5)) as handle:
        handle.step_with(optimizer)
        for i in range(3):
            ids = tokens(seed=i)
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert handle.balancer.steps == 3
    optimizer.step()
    assert handle.balancer.steps == 3, "detach takes the optimizer's hook off too"


def test_the_loss_should_be_the_injected_value_and_have_no_graph():
    model = build("mixtral")
    handle = warmed(model, Balancer("shannon", 0.05, weight_new=0.5), attach=moe.attach)
    found = []
    hook = model.model.layers[0].mlp.gate.register_forward_hook(lambda m, a, o: found.append(o[0]))
    other = model.model.layers[1].mlp.gate.register_forward_hook(lambda m, a, o: found.append(o[0]))
    model(input_ids=tokens()).logits.sum().backward()
    hook.remove()
    other.remove()
    prices = [handle.balancer.prices(name) for name in handle.routers]
    value = sum(0.05 * (q * z.softmax(-1).mean(0)).sum() for q, z in zip(prices, found, strict=True))
    torch.testing.assert_close(handle.loss.float(), value.detach(), rtol=1e-5, atol=1e-9)
    assert not handle.loss.requires_grad
    handle.step()
    assert set(handle.metrics()) >= {"max_vio/mean", "max_vio/worst", "loss"}


def test_our_own_layers_should_be_attachable():
    torch.manual_seed(0)
    stack = torch.nn.Sequential(
        moe.SparseMoE(8, 16, n_experts=4, top_k=2),
        moe.SparseMoE(8, 16, n_experts=4, top_k=1, routing="sigmoid"),
    )
    handle = moe.attach(stack, Balancer("shannon", 0.05, sink="both", bias_rule="sign", bias_strength=0.1))
    assert handle.routers == ("0.router", "1.router")
    stack(torch.randn(40, 8)).square().mean().backward()
    handle.step()
    for i, name in enumerate(handle.routers):
        torch.testing.assert_close(stack[i].router.selection_bias, handle.biases[name])
    handle.detach()
    assert float(stack[0].router.selection_bias.abs().max()) == 0
    assert gradients(stack)["0.router.weight"].abs().max() > 0


def test_the_mask_of_our_own_layer_should_be_seen():
    layer = moe.SparseMoE(8, 16, n_experts=4, top_k=2)
    handle = moe.attach(layer, Balancer())
    layer(torch.randn(3, 5, 8), mask=torch.arange(5) < torch.tensor([[5], [2], [0]])).sum().backward()
    handle.step()
    assert handle.state_dict()["balancer"]["tokens"] == [7]


def test_a_router_family_of_ones_own_should_work():
    class Picker(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.experts, self.k = 4, 1
            self.linear = torch.nn.Linear(8, 4)

        def forward(self, x):
            logits = self.linear(x)
            weights, chosen = logits.softmax(-1).topk(self.k)
            return chosen, weights, logits

    family = moe.RouterFamily(
        name="picker",
        routers=("Picker",),
        gating="softmax",
        n_experts="experts",
        top_k="k",
        read=lambda output: (output[2], output[1], output[0]),
        write=lambda output, scores, indices: (indices, scores, output[2]),
    )
    picker = Picker()
    with pytest.raises(InputError, match=r"routers that it knows: .*MixtralTopKRouter.* got Picker"):
        moe.attach(picker, Balancer())
    handle = moe.attach(picker, Balancer("shannon", 1.0, weight_new=1.0), families=[family])
    for _ in range(2):
        picker.zero_grad()
        _, weights, _ = picker(torch.randn(30, 8, generator=torch.Generator().manual_seed(1)))
        (0.0 * weights.sum()).backward()
        handle.step()
    assert float(picker.linear.weight.grad.abs().max()) > 1e-4
    with pytest.raises(
        InputError, match=r"needs a way into the choice: .* router 'router' of family 'picker'"
    ):
        moe.attach(Picker(), biased(), families=[family])


def test_a_router_that_was_never_called_should_be_refused_at_the_step():
    model = build("mixtral")
    handle = moe.attach(model, Balancer())
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers = 1
    model(input_ids=tokens()).logits.sum().backward()
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.gate"):
        handle.step()


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "olmoe", "gpt_oss"])
def test_a_built_in_loss_should_be_refused_by_name(name):
    model = build(name, output_router_logits=True)
    kind = type(model).__name__
    with pytest.raises(
        InputError, match=rf"balanced once: .* got {kind} adds its own: router_aux_loss_coef="
    ):
        moe.attach(model, Balancer())
    model.router_aux_loss_coef = 0.0
    with moe.attach(model, Balancer()) as handle:
        model(input_ids=tokens()).logits.sum().backward()
        handle.step()


def test_a_call_that_asks_for_the_built_in_loss_should_be_refused():
    model = build("mixtral")
    handle = moe.attach(model, Balancer())
    with pytest.raises(
        InputError, match=r"router_aux_loss_coef=0\.001 with output_router_logits=True in the call"
    ):
        model(input_ids=tokens(), output_router_logits=True)
    model.eval()
    assert len(model(input_ids=tokens(), output_router_logits=True).router_logits) == 2
    model.train()
    model(input_ids=tokens()).logits.sum().backward()
    handle.step()
    model.config.output_router_logits = True
    with pytest.raises(InputError, match="balanced once"):
        model(input_ids=tokens())


def test_two_balancers_should_be_refused():
    model = build("mixtral")
    moe.attach(model, Balancer())
    with pytest.raises(InputError, match=r"router 'model\.layers\.0\.mlp\.gate', which has another handle"):
        moe.attach(model, Balancer())
    layer = moe.SparseMoE(8, 16, n_experts=4, top_k=2, balancer=Balancer())
    with pytest.raises(InputError, match=r"which has the layer's own balancer"):
        moe.attach(layer, Balancer())


def test_a_dense_model_should_be_refused_with_the_list():
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    with pytest.raises(InputError, match=r"DeepseekV3TopkRouter.*GptOssTopKRouter.*RouterFamily"):
        moe.attach(transformers.LlamaForCausalLM(config), Balancer())


def test_a_mask_that_fits_no_token_should_be_refused():
    model = build("mixtral")
    handle = moe.attach(model, Balancer())
    with (
        handle.token_mask(torch.ones(7)),
        pytest.raises(
            InputError, match=r"one entry a token: expected 20 entries at router 'model\.layers\.0"
        ),
    ):
        model(input_ids=tokens())


def test_an_error_in_a_forward_pass_should_leave_no_mask_behind():
    model = build("mixtral")
    handle = moe.attach(model, Balancer())
    ids, mask = tokens(), torch.ones(2, 10).long()
    mask[:, :5] = 0
    broken = model.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model(input_ids=ids, attention_mask=mask)
    broken.remove()
    handle.discard()
    model(input_ids=ids).logits.sum().backward()
    handle.step()
    assert handle.state_dict()["balancer"]["tokens"] == [20, 20]
