"""SparseMoE: against Mixtral's own block, shared experts, compile, safetensors, upcycling."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from where_loop import where_loop

from metier.core.errors import InputError
from metier.moe.sparse.layer import SparseMoE
from metier.moe.sparse.upcycle import upcycle


def test_layer_should_compute_what_mixtral_computes():
    """6: the released block as an oracle, value and gradient of the input."""
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    config = MixtralConfig(hidden_size=32, intermediate_size=48, num_local_experts=4, num_experts_per_tok=2)
    config._experts_implementation = "eager"
    theirs = MixtralSparseMoeBlock(config)
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    ours = SparseMoE(32, 48, n_experts=4, top_k=2)
    with torch.no_grad():
        ours.router.weight.copy_(theirs.gate.weight)
        ours.experts.gate_up_proj.copy_(theirs.experts.gate_up_proj)
        ours.experts.down_proj.copy_(theirs.experts.down_proj)
    x = torch.randn(2, 7, 32, requires_grad=True)
    a, b = theirs(x.clone()), ours(x)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    probe = torch.randn_like(a)
    grads = [torch.autograd.grad((y * probe).sum(), x)[0] for y in (a, b)]
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-4)


def test_shared_experts_should_see_every_token():
    layer = SparseMoE(16, 24, n_experts=4, top_k=1, n_shared_experts=2)
    x = torch.randn(9, 16)
    routed = where_loop(x, *reversed(layer.router(x)[1:]), layer.experts)
    gate, up = layer.shared.up_proj(x).chunk(2, dim=-1)
    assert layer.shared.down_proj.weight.shape == (16, 48)
    shared = layer.shared.down_proj(functional.silu(gate) * up)
    torch.testing.assert_close(layer(x), routed + shared, atol=1e-5, rtol=1e-5)


def test_no_token_should_be_dropped_where_all_want_one_expert():
    layer = SparseMoE(16, 24, n_experts=4, top_k=1)
    layer.router.selection_bias.copy_(torch.tensor([5.0, 0, 0, 0]))
    x = torch.randn(300, 16)
    gate, up = (x @ layer.experts.gate_up_proj[0].t()).chunk(2, dim=-1)
    alone = (functional.silu(gate) * up) @ layer.experts.down_proj[0].t()
    torch.testing.assert_close(layer(x), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_safetensors_should_carry_the_layer(tmp_path, dtype):
    layer = SparseMoE(16, 24, n_experts=4, top_k=2, bias=True, n_shared_experts=1, dtype=dtype)
    layer.router.selection_bias.normal_()
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    other = SparseMoE(16, 24, n_experts=4, top_k=2, bias=True, n_shared_experts=1, dtype=dtype)
    other.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    x = torch.randn(5, 16, dtype=dtype)
    assert torch.equal(layer(x), other(x))


# torch 2.13's own tracer instantiates autograd functions.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiled_layer_should_agree():
    """6: torch.compile in one graph, without and with sharing."""
    layer = SparseMoE(16, 24, n_experts=4, top_k=2, n_shared_experts=1)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(3, 11, 16)
    torch.testing.assert_close(compiled(x), layer(x), atol=1e-5, rtol=1e-5)
    grads = [torch.autograd.grad(f(x).square().sum(), list(layer.parameters())) for f in (compiled, layer)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


# torch 2.13's own tracer instantiates autograd functions.
# And inductor's first import of a process builds TorchScript modules, which torch itself deprecates.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")
@pytest.mark.slow
def test_inductor_should_agree():
    layer = SparseMoE(16, 24, n_experts=4, top_k=2)
    x = torch.randn(40, 16)
    torch.testing.assert_close(torch.compile(layer)(x), layer(x), atol=1e-5, rtol=1e-5)


def test_an_empty_batch_should_pass_through():
    layer = SparseMoE(16, 24, n_experts=4, top_k=2)
    y = layer(torch.zeros(0, 5, 16))
    assert y.shape == (0, 5, 16)
    y.sum().backward()
    assert all(p.grad is not None for p in layer.experts.parameters())


def test_upcycled_layer_should_be_the_dense_network():
    """8: the experts begin as the dense network, whatever the router does."""
    up, down = torch.nn.Linear(12, 40), torch.nn.Linear(40, 12)
    x = torch.randn(30, 12)
    dense = down(functional.gelu(up(x)))
    layer = upcycle(up, down, n_experts=8, top_k=2)
    torch.testing.assert_close(layer(x), dense, atol=1e-5, rtol=1e-5)
    noisy = upcycle(up, down, n_experts=8, top_k=2, noise=0.1, generator=torch.Generator().manual_seed(0))
    again = upcycle(up, down, n_experts=8, top_k=2, noise=0.1, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(noisy.experts.up[0], noisy.experts.up[1])
    assert torch.equal(noisy(x), again(x))
    relative = (noisy.experts.up - up.weight).std() / up.weight.std()
    assert 0.09 < relative < 0.11


def test_upcycling_maps_that_do_not_fit_should_be_refused():
    with pytest.raises(InputError, match="expected down of 40 -> 12, got 40 -> 16"):
        upcycle(torch.nn.Linear(12, 40), torch.nn.Linear(40, 16), n_experts=2, top_k=1)


def test_bad_shapes_should_be_refused():
    layer = SparseMoE(16, 24, n_experts=4, top_k=2)
    with pytest.raises(InputError, match=r"last dimension of 16, got shape \(2, 15\)"):
        layer(torch.zeros(2, 15))
    with pytest.raises(InputError, match=r"one entry per token: expected shape \(2, 3\), got \(2,\)"):
        layer(torch.zeros(2, 3, 16), torch.ones(2, dtype=torch.bool))


def test_a_copy_should_be_independent():
    layer = SparseMoE(16, 24, n_experts=4, top_k=2)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.experts.up.zero_()
    assert layer.experts.up.abs().sum() > 0
