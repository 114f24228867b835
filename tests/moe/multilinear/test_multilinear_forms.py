"""Factorized forms against the materialized expert tensor; statements 1, 2, 13, 18 and 22."""

from __future__ import annotations

import pytest
import tensorly
import torch
from tensorly.tr_tensor import tr_to_tensor

from metier import moe

FORMS = tuple(moe.FORMS)
MODES = {1: (5,), 2: (3, 4), 3: (3, 2, 4)}


def build(form, modes, *, bias=True, dtype=torch.float64, rank=3, **settings):
    settings = {"norm": "none", "rng": 0, **settings}
    rank = None if form == "mxd" else rank
    return moe.MultilinearMoE(7, 6, n_experts=modes, form=form, rank=rank, bias=bias, dtype=dtype, **settings)


def expert_tensor(layer):
    """Return W (N_1, ..., N_E, slots, O) by one textbook einsum; the last slot is the bias."""
    f = layer.factors
    into = f.input_weight if f.input_bias is None else torch.cat([f.input_weight, f.input_bias[:, None]], 1)
    modes = layer.n_experts
    letters = "abc"[: len(modes)]
    if layer.form in ("cp", "mxd"):
        out = torch.eye(layer.out_features).to(into) if layer.form == "mxd" else f.output_weight
        terms = ",".join(f"{m}r" for m in letters)
        return torch.einsum(f"{terms},ri,or->{letters}io", *f.experts, into, out)
    if layer.form in ("tr", "tt"):
        r = f.ranks
        ring = "uvwx"
        cores = [u.reshape(n, r[e], r[e + 1]) for e, (u, n) in enumerate(zip(f.experts, modes, strict=True))]
        terms = ",".join(f"{m}{ring[e]}{ring[e + 1]}" for e, m in enumerate(letters))
        second = into.reshape(r[-2], r[-1], -1)
        third = f.output_weight.reshape(layer.out_features, r[0], r[-1])
        end = ring[len(modes)]
        return torch.einsum(f"{terms},{end}zi,ouz->{letters}io", *cores, second, third)
    *of_experts, r_in, r_out = f.ranks
    core = f.core.reshape(r_out, *of_experts, r_in)
    ranks = "uvw"[: len(modes)]
    terms = ",".join(f"{m}{p}" for m, p in zip(letters, ranks, strict=True))
    return torch.einsum(f"{terms},y{ranks}z,zi,oy->{letters}io", *f.experts, core, into, f.output_weight)


def reference(layer, x):
    """Return the layer's outputs by building all experts."""
    W = expert_tensor(layer).flatten(0, len(layer.n_experts) - 1)
    z = x if layer.factors.input_bias is None else torch.cat([x, torch.ones_like(x[..., :1])], -1)
    return torch.einsum("bn,bi,nio->bo", layer.gate_values(x), z, W)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("modes", MODES.values(), ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_1_forward_should_equal_the_materialized_experts(form, modes, bias):
    """Statement 1: value 1e-10 in float64, 1e-5 relative in float32; gradients of every parameter too."""
    layer = build(form, modes, bias=bias)
    x = torch.randn(9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y, slow = layer(x), reference(layer, x)
    torch.testing.assert_close(y, slow, rtol=0, atol=1e-10)
    weight = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameters = list(layer.parameters())
    fast_gradients = torch.autograd.grad((y * weight).sum(), parameters)
    slow_gradients = torch.autograd.grad((slow * weight).sum(), parameters)
    torch.testing.assert_close(fast_gradients, slow_gradients, rtol=1e-10, atol=1e-10)
    single = build(form, modes, bias=bias, dtype=torch.float32)
    single.load_state_dict(layer.state_dict())
    error = (single(x.float()) - slow).norm() / slow.norm()
    assert error <= 1e-5


@pytest.mark.parametrize("modes", [pytest.param((4,), marks=pytest.mark.slow), (2, 3)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_1_gradcheck_should_pass_gate_included(form, modes):
    layer = build(form, modes, rank=2)
    x = torch.randn(3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]

    def run(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("modes", [(5,), (3, 4)], ids=str)
def test_experts_should_be_slices_of_the_tensor(form, modes):
    layer = build(form, modes)
    W = expert_tensor(layer).flatten(0, len(modes) - 1)
    for n in range(layer.n_joint):
        torch.testing.assert_close(layer.expert_weight(n), W[n, :-1], rtol=0, atol=1e-12)
        torch.testing.assert_close(layer.expert_bias(n), W[n, -1], rtol=0, atol=1e-12)
    if len(modes) == 2:
        torch.testing.assert_close(layer.expert_weight((2, 1)), W[9, :-1], rtol=0, atol=1e-12)


def test_2_tr_experts_should_equal_the_kronecker_formula_and_tensorly():
    """Statement 2: W_n = M2 (A_n^T kron I) M3, and the tensor that TensorLy rebuilds, 1e-10 in float64."""
    layer = build("tr", (5,), rank=(2, 3, 4), bias=False)
    f = layer.factors
    c1 = f.experts[0].detach().reshape(5, 2, 3).permute(1, 0, 2)
    c2 = f.input_weight.detach().reshape(3, 4, 7).permute(0, 2, 1)
    c3 = f.output_weight.detach().reshape(6, 2, 4).permute(2, 0, 1)
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        rebuilt = tr_to_tensor([c1, c2, c3])
    m2 = c2.permute(1, 0, 2).reshape(7, 12)
    m3 = c3.permute(2, 0, 1).reshape(8, 6)
    for n in range(5):
        kron = m2 @ torch.kron(c1[:, n].T.contiguous(), torch.eye(4, dtype=torch.float64)) @ m3
        torch.testing.assert_close(layer.expert_weight(n), kron, rtol=0, atol=1e-10)
        torch.testing.assert_close(layer.expert_weight(n).detach(), rebuilt[n], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("form", "rank", "n", "span", "expert_rank"),
    [
        ("cp", 5, 40, 5, 5),
        ("cp", 9, 4, 4, 6),
        ("tr", (2, 3, 2), 40, 6, 4),
        ("tr", (2, 2, 2), 3, 3, 4),
        ("tt", (1, 3, 2), 40, 3, 2),
        ("tucker", (4, 3, 5), 40, 4, 3),
        ("mxd", None, 40, 6, 6),
    ],
)
def test_13_span_and_rank_of_experts_should_be_bounded(form, rank, n, span, expert_rank):
    """Statement 13: numerical ranks; generic factors reach the bounds, so that equality is asked for."""
    layer = build(form, n, rank=rank, bias=False)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in layer.factors.parameters():
            p.copy_(torch.randn(p.shape, generator=draw, dtype=torch.float64))
    W = torch.stack([layer.expert_weight(k) for k in range(n)])
    assert int(torch.linalg.matrix_rank(W.flatten(1))) == span
    assert int(torch.linalg.matrix_rank(W).max()) == expert_rank


@pytest.mark.parametrize("modes", [(5,), (3, 4)], ids=str)
def test_18_mxd_should_be_cp_with_the_identity(modes):
    """Statement 18: mxd = cp with R = O and U3 the identity, 1e-10."""
    mxd, cp = build("mxd", modes), build("cp", modes, rank=6)
    state = dict(mxd.state_dict())
    cp.load_state_dict({**state, "factors.output_weight": torch.eye(6, dtype=torch.float64)})
    x = torch.randn(9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mxd(x), cp(x), rtol=0, atol=1e-10)


def test_18_a_gated_linear_unit_should_be_cp():
    """Statement 18: y = U3 (phi(G^T z) * U2^T z) is cp with U1 the identity and coefficients phi(G^T z)."""
    draw = torch.Generator().manual_seed(0)
    gate, up, down = (
        torch.randn(s, generator=draw, dtype=torch.float64) for s in ((10, 7), (10, 7), (6, 10))
    )
    layer = moe.MultilinearMoE(7, 6, n_experts=10, rank=10, gate=None, bias=False, dtype=torch.float64)
    layer.load_state_dict(
        {"factors.experts.0": torch.eye(10), "factors.input_weight": up, "factors.output_weight": down}
    )
    x = torch.randn(9, 7, generator=draw, dtype=torch.float64)
    a = torch.nn.functional.silu(x @ gate.T)
    torch.testing.assert_close(layer(x, coefficients=a), (a * (x @ up.T)) @ down.T, rtol=0, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_22_one_expert_should_be_a_low_rank_linear_layer(form):
    """Statement 22: 1e-6, and the linear layer has the form's rank."""
    layer = build(form, 1, dtype=torch.float32, norm="layer")
    x = torch.randn(20, 7, generator=torch.Generator().manual_seed(1))
    dense = x @ layer.expert_weight(0) + layer.expert_bias(0)
    torch.testing.assert_close(layer(x), dense, rtol=0, atol=1e-6)
    if form == "cp":
        assert int(torch.linalg.matrix_rank(layer.expert_weight(0))) == 3


def test_22_joint_coefficients_should_sum_to_one():
    """Statement 22: modes (4, 8), within 1e-5."""
    layer = build("cp", (4, 8), dtype=torch.float32, norm="layer")
    a = layer.gate_values(torch.randn(30, 7, generator=torch.Generator().manual_seed(1)))
    assert a.shape == (30, 32)
    assert (a.sum(-1) - 1).abs().max() <= 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_permuting_experts_should_permute_their_roles(form):
    layer = build(form, 6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    permuted = build(form, 6)
    state = layer.state_dict()
    state["factors.experts.0"] = state["factors.experts.0"][order]
    state["gate.weight"] = state["gate.weight"][order]
    permuted.load_state_dict(state)
    x = torch.randn(9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(permuted(x), layer(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(permuted.gate_values(x), layer.gate_values(x)[:, order], rtol=0, atol=1e-12)
