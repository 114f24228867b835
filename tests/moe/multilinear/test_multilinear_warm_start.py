"""Warm starts from dense layers; statement 10."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from metier import moe
from metier.moe.multilinear.dense import effective_weight

FORMS = tuple(moe.FORMS)
GATES = ("entmax15", "alpha_entmax", "sparsemax", "softmax", "topk")


@pytest.fixture
def linear():
    torch.manual_seed(3)
    return nn.Linear(20, 14)


def inputs(n=300):
    draw = torch.Generator().manual_seed(5)
    return torch.randn(n, 20, generator=draw) @ torch.randn(20, 20, generator=draw) + 0.5


@pytest.mark.parametrize("modes", [6, (3, 4)], ids=str)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("form", FORMS)
def test_10_full_rank_should_keep_the_function(form, gate, modes, linear):
    """Statement 10: relative error 1e-5 in float32, for every gate whose coefficients sum to 1."""
    layer = moe.MultilinearMoE.from_linear(linear, n_experts=modes, form=form, gate=gate, rng=0)
    x = inputs()
    assert (layer(x) - linear(x)).norm() / linear(x).norm() <= 1e-5


@pytest.mark.parametrize("form", ["tr", "tucker", "cp"])
def test_10_ranks_above_the_full_rank_should_keep_it_too(form, linear):
    layer = moe.MultilinearMoE.from_linear(linear, n_experts=6, form=form, rank=30)
    x = inputs()
    assert (layer(x) - linear(x)).norm() / linear(x).norm() <= 1e-5


@pytest.mark.parametrize(
    ("form", "rank", "kept"), [("cp", 5, 5), ("tr", 2, 8), ("tt", 5, 5), ("tucker", 5, 5)]
)
def test_10_truncation_should_be_the_truncated_svd(form, rank, kept, linear):
    """Statement 10: TR holds rank r r3 at its cost."""
    layer = moe.MultilinearMoE.from_linear(linear, n_experts=6, form=form, rank=rank)
    dense = torch.cat([linear.weight, linear.bias[:, None]], 1).detach().double()
    u, s, v = torch.linalg.svd(dense, full_matrices=False)
    best = u[:, :kept] * s[:kept] @ v[:kept]
    x = torch.cat([inputs(), torch.ones(300, 1)], 1).double()
    expected = x @ best.T
    assert (layer(inputs()) - expected).norm() / expected.norm() <= 1e-5


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("form", "rank"), [("cp", 5), ("tr", 1), ("tucker", 5)])
def test_10_calibration_should_lower_the_error_of_outputs(form, rank, bias):
    """Statement 10: on its calibration data, and it is the least of rank-5 linear maps there."""
    torch.manual_seed(3)
    linear, x = nn.Linear(20, 14, bias=bias), inputs()
    plain = moe.MultilinearMoE.from_linear(linear, n_experts=6, form=form, rank=rank)
    aware = moe.MultilinearMoE.from_linear(linear, n_experts=6, form=form, rank=rank, calibration=x)
    target = linear(x).detach().double()
    error = {
        name: float((layer(x).detach() - target).norm())
        for name, layer in (("plain", plain), ("aware", aware))
    }
    assert error["aware"] <= error["plain"]
    kept = 4 if form == "tr" else 5
    best = torch.linalg.svdvals(target)[kept:].norm()
    assert error["aware"] <= 1.001 * float(best)


@pytest.mark.parametrize("form", FORMS)
def test_noise_should_keep_the_mean_expert(form, linear):
    layer = moe.MultilinearMoE.from_linear(linear, n_experts=6, form=form, noise=0.1)
    W = torch.stack([layer.expert_weight(n) for n in range(6)])
    torch.testing.assert_close(W.mean(0), linear.weight.detach().T, rtol=0, atol=1e-5)
    assert W.std(0).max() > 1e-3
    assert (effective_weight(layer.factors)[:, :-1] - linear.weight).abs().max() <= 1e-5


def test_conv1d_should_be_transposed():
    torch.manual_seed(0)
    conv = Conv1D(14, 20)
    layer = moe.MultilinearMoE.from_linear(conv, n_experts=6)
    x = inputs()
    torch.testing.assert_close(layer(x), conv(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_warm_start_should_learn_to_specialize(form, linear):
    """Equal experts and a random gate are no dead point: training parts them and lowers the loss."""
    layer = moe.MultilinearMoE.from_linear(linear, n_experts=4, form=form, norm="none", rng=0)
    x = inputs(256) / 5
    target = torch.where(x[:, :1] > 0, linear(x), -linear(x)).detach()
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        loss = (layer(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    least = torch.linalg.lstsq(torch.cat([x, torch.ones(256, 1)], 1), target).solution
    by_dense = float((torch.cat([x, torch.ones(256, 1)], 1) @ least - target).square().mean())
    assert losses[-1] < 0.9 * by_dense
    assert (layer.expert_weight(0) - layer.expert_weight(1)).norm() > 0.05


@pytest.mark.parametrize("kind", ["zero", "one row", "one direction", "huge"])
@pytest.mark.parametrize("bias", [True, False])
def test_10_singular_calibrations_should_keep_the_function_at_full_rank(kind, bias):
    """Also for inputs that the calibration has never seen."""
    torch.manual_seed(3)
    linear, x = nn.Linear(20, 14, bias=bias), inputs()
    seen = {"zero": 0 * x, "one row": x[:1], "one direction": x[:, :1].expand(-1, 20), "huge": 1e6 * x[:3]}
    layer = moe.MultilinearMoE.from_linear(linear, n_experts=6, calibration=seen[kind])
    assert (layer(x) - linear(x)).norm() / linear(x).norm() <= 1e-5


def test_a_seed_should_decide_the_noise(linear):
    state = torch.random.get_rng_state()
    make = lambda seed: moe.MultilinearMoE.from_linear(linear, n_experts=6, noise=0.1, rng=seed)  # noqa: E731
    a, b, c = (make(seed).factors.experts[0] for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_dtype_should_follow_the_dense_layer(linear):
    layer = moe.MultilinearMoE.from_linear(linear.bfloat16(), n_experts=4)
    assert layer(inputs().bfloat16()).dtype == torch.bfloat16


def test_bad_warm_starts_should_be_refused(linear):
    with pytest.raises(ValueError, match=r"a warm start begins from a dense layer .* got ReLU"):
        moe.MultilinearMoE.from_linear(nn.ReLU(), n_experts=4)
    with pytest.raises(ValueError, match="a layer without biases cannot start from one with them"):
        moe.MultilinearMoE.from_linear(linear, n_experts=4, bias=False)
    with pytest.raises(ValueError, match=r"calibration inputs show what the layer sees.* got no row"):
        moe.MultilinearMoE.from_linear(linear, n_experts=4, calibration=torch.zeros(0, 20))
    with pytest.raises(ValueError, match="got NaN or infinity"):
        moe.MultilinearMoE.from_linear(linear, n_experts=4, calibration=torch.full((2, 20), torch.nan))
    with pytest.raises(
        ValueError, match=r"inputs of the dense layer: expected \(..., 20\), got shape \(5, 7\)"
    ):
        moe.MultilinearMoE.from_linear(linear, n_experts=4, calibration=torch.ones(5, 7))
    with pytest.warns(UserWarning, match="do not sum to 1: the dense function is not kept"):
        moe.MultilinearMoE.from_linear(linear, n_experts=4, gate="relu_topk")
