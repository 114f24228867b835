"""Adapters: routers are found under PEFT's wrappers by their plain names, and only those that are called."""

from __future__ import annotations

import pytest
from tiny_moe_models import build, expected_gradients, gradients, largest_difference, tokens, torch

from metier import moe
from metier.core.errors import InputError
from metier.moe.balancing.balancer import Balancer

peft = pytest.importorskip("peft")

pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning")]

ADAPTERS = {
    "attention": {"target_modules": ["q_proj", "v_proj"]},
    "router kept whole": {"target_modules": ["q_proj"], "modules_to_save": ["gate"]},
    "router adapted": {"target_modules": ["q_proj"], "target_parameters": ["mlp.gate.weight"]},
    "experts adapted": {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj"]},
}
NAMES = ("model.layers.0.mlp.gate", "model.layers.1.mlp.gate")


def adapted(kind):
    torch.manual_seed(1)
    settings = peft.LoraConfig(r=4, init_lora_weights=False, **ADAPTERS[kind])
    return peft.get_peft_model(build("mixtral"), settings).train()


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_should_get_the_gradient_of_an_explicit_loss(kind):
    """What must be true, 16, under LoRA."""
    model, balancer = adapted(kind), Balancer("shannon", 0.05, weight_new=0.5)
    handle, ids = moe.attach(model, balancer), tokens()
    assert handle.routers == NAMES
    for _ in range(2):
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        ours, prices = gradients(model), {name: balancer.prices(name) for name in handle.routers}
        handle.step()
    handle.detach()
    calls = [name for name, _ in called_routers(model)]
    balancer.prices = dict(zip(calls, (prices[n] for n in NAMES), strict=True)).__getitem__
    reference = expected_gradients(model, {"input_ids": ids, "labels": ids}, balancer)
    assert largest_difference(ours, reference) <= 1e-7


def called_routers(model):
    """Return the routers that a forward pass calls, found by watching one."""
    seen = []
    hooks = [
        module.register_forward_hook(lambda m, a, o, name=name: seen.append((name, m)))
        for name, module in model.named_modules()
        if type(module).__name__ == "MixtralTopKRouter"
    ]
    with torch.no_grad():
        model(input_ids=tokens())
    for hook in hooks:
        hook.remove()
    return seen


def test_a_state_should_move_between_the_bare_and_the_adapted_model():
    model, balancer = build("mixtral"), Balancer("shannon", 0.05, weight_new=0.5)
    with moe.attach(model, balancer) as handle:
        model(input_ids=tokens()).logits.sum().backward()
        handle.step()
        state = handle.state_dict()
    other = Balancer("shannon", 0.05, weight_new=0.5)
    moe.attach(adapted("router kept whole"), other).load_state_dict(state)
    assert torch.equal(other.loads(NAMES[1]), balancer.loads(NAMES[1]))


def test_a_frozen_model_should_be_refused_at_the_step():
    model = build("mixtral").requires_grad_(False)
    handle = moe.attach(model, Balancer("shannon", 0.05))
    model(input_ids=tokens())
    with pytest.raises(InputError, match=r"needs something to train: .* none at the 2 balanced routers"):
        handle.step()
