"""A refused `moe.attach` changes nothing: the balancer is as it was, and works once the cause is gone."""

from __future__ import annotations

import pytest
import torch

from metier import moe
from metier.core import InputError


def layer(**options):
    return moe.SparseMoE(8, 16, n_experts=4, top_k=2, **options)


def two_layers(second):
    return torch.nn.Sequential(layer(), second)


REFUSED = {
    "another handle": lambda: attached(two_layers(layer())),
    "a layer's own balancer": lambda: two_layers(layer(balancer=moe.balancer("phi"))),
    "no router": lambda: torch.nn.Linear(3, 3),
    "top_k leaves no choice": lambda: two_layers(moe.SparseMoE(8, 16, n_experts=4, top_k=4)),
}


def attached(model):
    moe.attach(model[1], moe.balancer("phi"))
    return model


@pytest.mark.parametrize("cause", REFUSED)
def test_a_refused_attach_should_leave_the_balancer_as_it_was(cause):
    name = "quantile" if cause.startswith("top_k") else "loss_free"
    balancer = moe.balancer(name)
    before = balancer.state_dict()
    model = REFUSED[cause]()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with pytest.raises(InputError):
        moe.attach(model, balancer, tokens_per_step=64)
    assert balancer.tokens_per_step is None
    assert str(balancer.state_dict()) == str(before)
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    handle = moe.attach(layer(), balancer)  # as if nothing had been tried
    assert handle.routers == ("router",)


@pytest.mark.parametrize("tokens", [0, -1, 2.5, "64"])
def test_wrong_tokens_should_leave_the_balancer_as_it_was(tokens):
    balancer = moe.balancer("phi")
    with pytest.raises(InputError, match="tokens_per_step"):
        moe.attach(layer(), balancer, tokens_per_step=tokens)
    assert moe.attach(layer(), balancer).routers == ("router",)


def test_a_refused_selection_bias_should_leave_every_router_as_it_was():
    model = two_layers(layer())
    names = moe.attach(model, moe.balancer("phi")).routers
    biases = {names[0]: torch.ones(4), names[1]: torch.ones(3)}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match="belongs to a router"):
        moe.set_selection_bias(model, biases)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert set(model.state_dict()) == set(before)
