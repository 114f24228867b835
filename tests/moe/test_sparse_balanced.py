"""SparseMoE with a balancer: the same gradient as an explicit loss, and biases that even the load."""

from __future__ import annotations

import pytest
import torch

from metier import moe
from metier.core.errors import InputError


def tokens(n, seed=0, dim=8):
    """Tokens around four centers, so that an untrained router is uneven."""
    g = torch.Generator().manual_seed(seed)
    centers = 1.0 * torch.randn(4, dim, generator=g)
    shift = torch.randn(dim, generator=g)
    return shift + centers[torch.randint(4, (n,), generator=g)] + torch.randn(n, dim, generator=g)


def seeded_layer(balancer=None, **options):
    torch.manual_seed(0)
    return moe.SparseMoE(8, 12, n_experts=4, top_k=2, balancer=balancer, **options)


@pytest.mark.parametrize("routing", ["softmax", "sigmoid"])
def test_layer_should_inject_what_an_explicit_loss_gives(routing):
    """4: the injected gradient equals alpha sum q p added to the loss, 1e-6."""
    balancer = moe.balancer("phi", strength=0.5)
    layer = seeded_layer(balancer, routing=routing)
    x = tokens(64)
    for _ in range(2):  # the second step has a price
        layer.zero_grad()
        layer(x).square().mean().backward()
        balancer.step()
    layer.zero_grad()
    layer(x).square().mean().backward()

    plain = seeded_layer(routing=routing)
    logits = plain.router(x).logits
    p = (torch.nn.functional.logsigmoid(logits) if routing == "sigmoid" else logits).softmax(-1)
    m = balancer.loads(layer.layer_name).double()
    price = torch.log(m) - torch.log(m).mean()
    (plain(x).square().mean() + 0.5 * (price.float() * p.mean(0)).sum()).backward()
    torch.testing.assert_close(layer.router.weight.grad, plain.router.weight.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        layer.experts.down_proj.grad, plain.experts.down_proj.grad, atol=1e-6, rtol=1e-5
    )


def test_masked_tokens_should_not_count():
    """8: padding is computed but neither counted nor priced."""
    x = tokens(64)
    mask = torch.arange(64) < 40
    states = []
    for batch, of in ((x, mask), (x[:40], None)):
        balancer = moe.balancer("phi")
        layer = seeded_layer(balancer)
        layer(batch, of).sum().backward()
        balancer.step()
        states.append(balancer.loads(layer.layer_name))
    torch.testing.assert_close(*states, atol=1e-7, rtol=0)


@pytest.mark.parametrize("routing", ["softmax", "topk_softmax", "sigmoid"])
@pytest.mark.parametrize("name", ["loss_free", "quantile", "phi_bias"])
def test_bias_balancers_should_even_the_load_without_training(name, routing):
    strength = {"loss_free": 0.01, "quantile": 0.5, "phi_bias": 0.5}[name]
    balancer = moe.balancer(name, strength=strength)
    layer = seeded_layer(balancer, routing=routing)

    def excess():
        with torch.no_grad():
            _, _, indices = layer.route(tokens(2000, seed=7))
        counts = torch.bincount(indices.flatten(), minlength=4)
        return float(counts.max() / counts.float().mean() - 1)

    layer.eval()
    before = excess()
    layer.train()
    for _ in range(70):
        layer(tokens(256, seed=7)).sum().backward()
        balancer.step()
    layer.eval()
    assert before > 0.2
    assert excess() < 0.5 * before


def test_layers_should_share_a_balancer_and_keep_their_own_loads():
    balancer = moe.balancer("phi")
    layers = torch.nn.Sequential(seeded_layer(balancer), seeded_layer(balancer))
    layers(tokens(32)).sum().backward()
    balancer.step()
    assert not torch.equal(*(balancer.loads(name) for name in balancer.layers))
    assert layers[0].layer_name != layers[1].layer_name


def test_a_layer_that_was_never_called_should_be_named():
    balancer = moe.balancer("phi")
    first, _second = seeded_layer(balancer), seeded_layer(balancer)
    first(tokens(32)).sum().backward()
    with pytest.raises(InputError, match="layer_1"):
        balancer.step()
