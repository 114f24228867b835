"""Compiled models: the same gradient, and a clear refusal where the graph was made before the hooks."""

from __future__ import annotations

import pytest
from tiny_moe_models import build, expected_gradients, gradients, largest_difference, tokens, torch

from metier import moe
from metier.core.errors import InputError
from metier.moe.balancing.balancer import Balancer

pytestmark = [pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled(model, how, backend="eager"):
    if how == "wrapper":
        return torch.compile(model, backend=backend)
    model.compile(backend=backend)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("how", "backend"), [("wrapper", "aot_eager"), ("in place", "eager")])
def test_a_compiled_model_should_get_the_same_gradient(how, backend):
    bare = build("mixtral", num_hidden_layers=1)
    model, balancer = compiled(bare, how, backend), Balancer("shannon", 0.05, weight_new=0.5)
    handle = moe.attach(model, balancer)
    assert handle.routers == ("model.layers.0.mlp.gate",)
    ids = tokens()
    for _ in range(2):
        bare.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        ours, prices = gradients(bare), {name: balancer.prices(name) for name in handle.routers}
        handle.step()
    handle.detach()
    balancer.prices = prices.__getitem__
    plain = build("mixtral", num_hidden_layers=1)
    reference = expected_gradients(plain, {"input_ids": ids, "labels": ids}, balancer)
    assert largest_difference(ours, reference) <= 1e-7


class Small(torch.nn.Module):
    """A compiled model that is quick to trace: two sparse layers of ours."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = moe.SparseMoE(8, 16, n_experts=4, top_k=2, dispatch="loop")
        self.second = moe.SparseMoE(8, 16, n_experts=4, top_k=1, dispatch="loop")

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


@pytest.mark.slow
def test_compiled_and_plain_should_agree_for_our_own_layers():
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(2))
    results = []
    for wrap in (lambda m: m, lambda m: torch.compile(m, backend="eager")):
        bare = Small()
        model, balancer = wrap(bare), Balancer("shannon", 0.5, weight_new=0.5)
        handle = moe.attach(model, balancer)
        assert handle.routers == ("first.router", "second.router")
        for _ in range(2):
            bare.zero_grad()
            (0.0 * model(x).sum()).backward()
            grads = gradients(bare)
            handle.step()
        results.append(grads)
    assert float(results[0]["first.router.weight"].abs().max()) > 1e-3
    assert largest_difference(*results) <= 1e-7


def test_attaching_after_the_first_compiled_call_should_be_refused_with_a_way_out():
    model, x = compiled(Small().first, "wrapper"), torch.randn(30, 8)
    model(x).sum().backward()
    handle = moe.attach(model, Balancer("shannon", 0.05))
    model(x).sum().backward()
    with pytest.raises(InputError, match=r"hooks that were there before its first call.*compiler\.reset"):
        handle.step()
    torch.compiler.reset()
    model(x).sum().backward()
    handle.step()
    assert handle.balancer.steps == 1
