"""Entmax without sorting, against sorting; statements 3, 4 and 5 of the method note."""

from __future__ import annotations

import entmax as oracle
import pytest
import torch
from hypothesis import given, strategies as st

from metier import moe
from metier.moe.multilinear.entmax import newton_map

STDS = (0.0, 0.01, 0.3, 1.0, 4.0)


def by_sorting(x, alpha=1.5):
    """Return alpha-entmax of (..., N) for alpha 1.5 or 2 by the closed form over sorted logits."""
    z = x.double() / (2 if alpha == 1.5 else 1)
    z = z - z.amax(-1, keepdim=True)
    ordered = z.sort(-1, descending=True).values
    k = torch.arange(1, z.shape[-1] + 1, dtype=torch.float64)
    mean = ordered.cumsum(-1) / k
    if alpha == 2:
        tau = mean - 1 / k
    else:
        spread = k * (ordered.square().cumsum(-1) / k - mean.square())
        tau = mean - ((1 - spread) / k).clamp_min(0).sqrt()
    support = (tau <= ordered).sum(-1, keepdim=True)
    r = (z - tau.gather(-1, support - 1)).clamp_min(0)
    return r if alpha == 2 else r.square()


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("n", [1, 2, 3, 16, 255, 2048, 4096])
@pytest.mark.parametrize("fn", [moe.entmax15, newton_map], ids=["function", "traced"])
def test_3_entmax_should_equal_sorting(fn, n, std):
    """Statement 3: float32 within 1e-6 of the largest probability, sums of 1, exact zeros."""
    x = std * torch.randn(24, n, generator=torch.Generator().manual_seed(n))
    exact = by_sorting(x)
    p = fn(x)
    assert ((p - exact).abs() / exact.amax(-1, keepdim=True)).max() <= 1e-6
    assert (p.sum(-1) - 1).abs().max() <= 1e-5
    # An exact zero may be a rounding away from the support's edge.
    assert bool((p[exact == 0] <= 1e-12).all())
    if n >= 255 and std >= 1:
        assert bool(((p == 0).float().mean(-1) > 0.3).all())


@pytest.mark.parametrize("n", [16_384, 262_144])
def test_3_traced_entmax_should_reach_many_experts(n):
    x = torch.randn(2, n, generator=torch.Generator().manual_seed(1))
    for std in (0.01, 0.3, 1.0):
        exact = by_sorting(std * x)
        assert ((newton_map(std * x) - exact).abs() / exact.amax(-1, keepdim=True)).max() <= 2e-6


@pytest.mark.parametrize("fn", [moe.entmax15, lambda x: newton_map(x, steps=12)], ids=["function", "traced"])
def test_3_gradients_should_equal_sorting(fn):
    """Statement 3: gradients within 1e-12 in float64; the reference is the entmax package's backward."""
    for n in (2, 7, 300):
        x = torch.randn(
            6, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n), requires_grad=True
        )
        weight = torch.randn(6, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n + 1))
        (ours,) = torch.autograd.grad((fn(x) * weight).sum(), x)
        (theirs,) = torch.autograd.grad((oracle.entmax15(x, dim=-1) * weight).sum(), x)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("alpha", [1.1, 1.25, 1.5, 1.75, 2.0])
def test_alpha_entmax_should_equal_bisection(alpha):
    x = 2 * torch.randn(8, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    theirs = oracle.entmax_bisect(x, alpha=alpha, dim=-1, n_iter=60)
    torch.testing.assert_close(moe.alpha_entmax(x, alpha=alpha), theirs, rtol=0, atol=1e-9)
    traced = x if alpha == 2.0 else newton_map(x, alpha, steps=20)
    if alpha < 2.0:
        torch.testing.assert_close(traced, theirs, rtol=0, atol=1e-9)


def test_sparsemax_should_equal_the_projection():
    x = torch.randn(8, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(moe.sparsemax(x), by_sorting(x, alpha=2), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "fn",
    [
        moe.entmax15,
        moe.sparsemax,
        lambda x: moe.alpha_entmax(x, alpha=1.3),
        lambda x: newton_map(x, steps=12),
        lambda x: newton_map(x, 1.7, steps=30),
    ],
    ids=["entmax15", "sparsemax", "alpha", "traced", "traced-alpha"],
)
def test_gradcheck_should_pass(fn):
    x = torch.randn(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(fn, (x,))


def test_function_transforms_should_work():
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.func.vmap(moe.entmax15)(x), moe.entmax15(x))
    jacobian = torch.func.jacrev(moe.entmax15)(x[0])
    torch.testing.assert_close(jacobian.sum(0), torch.zeros(6), rtol=0, atol=1e-6)


@pytest.mark.parametrize("gap", [0.0, 0.3, 1.0, 1.999, 2.0, 2.001, 3.0, 50.0])
def test_4_two_logits_should_follow_the_closed_form(gap):
    """Statement 4: p_max = ((t + sqrt(8 - t^2)) / 4)^2 for a gap t <= 2, one-hot from 2 on."""
    expected = 1.0 if gap >= 2 else ((gap + (8 - gap**2) ** 0.5) / 4) ** 2
    p = moe.entmax15(torch.tensor([gap, 0.0]))
    assert abs(float(p[0]) - expected) <= 1e-6
    assert abs(float(p[1]) - (1 - expected)) <= 1e-6


MAPS = {
    "entmax15": moe.Entmax15(),
    "alpha_entmax": moe.AlphaEntmax(),
    "sparsemax": moe.Sparsemax(),
    "softmax": moe.Softmax(),
    "topk": moe.TopK(k=3),
}


@pytest.mark.parametrize("name", MAPS)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(2, 40),
    shift=st.floats(-30, 30),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
)
def test_5_maps_should_ignore_shifts_and_follow_permutations(name, seed, n, shift, scale):
    """Statement 5, in float32 within 1e-6 (logits of the size the norms give; shifts round the logits)."""
    draw = torch.Generator().manual_seed(seed)
    x = (scale * torch.randn(n, generator=draw)).double()
    order = torch.randperm(n, generator=draw)
    phi = MAPS[name]
    torch.testing.assert_close(phi(x + shift), phi(x), rtol=0, atol=1e-9)
    x32 = x.float()
    torch.testing.assert_close(phi(x32[order]), phi(x32)[order], rtol=0, atol=1e-6)


def test_gates_should_all_be_tested():
    assert set(MAPS) | {"relu_topk"} == set(moe.GATES)


@pytest.mark.parametrize("name", MAPS)
def test_masks_should_be_exact_zeros(name):
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    x[:, 3] = -torch.inf
    x.requires_grad_()
    p = MAPS[name](x)
    assert bool((p[:, 3] == 0).all())
    others = [i for i in range(12) if i != 3]
    torch.testing.assert_close(p[:, others], MAPS[name](x[:, others]))
    p.square().sum().backward()
    assert bool(torch.isfinite(x.grad).all())


@pytest.mark.parametrize("fn", [moe.entmax15, moe.sparsemax], ids=["entmax15", "sparsemax"])
def test_a_row_of_masks_should_be_zeros(fn):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    x[1] = -torch.inf
    x.requires_grad_()
    p = fn(x)
    assert p[1].tolist() == [0.0] * 4
    p.square().sum().backward()
    assert bool(torch.isfinite(x.grad[[0, 2]]).all())


def test_traced_entmax_should_mask_too():
    x = torch.tensor([[1.0, -torch.inf, 0.0], [-torch.inf] * 3])
    torch.testing.assert_close(newton_map(x), moe.entmax15(x))
    assert newton_map(x)[1].tolist() == [0.0, 0.0, 0.0]


def test_nan_should_stay_in_its_row():
    x = torch.zeros(3, 4)
    x[1, 2] = torch.nan
    for phi in MAPS.values():
        p = phi(x)
        assert bool(torch.isfinite(p[[0, 2]]).all())
        assert bool(p[1].isnan().any())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_dimension_should_be_kept(dtype):
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    p = moe.entmax15(x, dim=1)
    assert p.dtype == dtype
    torch.testing.assert_close(p, moe.entmax15(x.transpose(1, 2)).transpose(1, 2))
    assert (p.float().sum(1) - 1).abs().max() <= (1e-2 if dtype == torch.bfloat16 else 2e-3)


@pytest.mark.parametrize("alpha", [1.1, 1.5, 1.9])
@pytest.mark.parametrize("size", [1e4, 1e6, 1e9, 1e30])
def test_large_logits_should_stay_probabilities(size, alpha):
    x = size * torch.randn(50, 64, generator=torch.Generator().manual_seed(0))
    assert (moe.alpha_entmax(x, alpha=alpha).sum(-1) - 1).abs().max() <= 1e-5
    whole = torch.randint(-3, 4, (50, 64), generator=torch.Generator().manual_seed(0)).float()
    for shift in (1e4, -1e6):
        # Whole numbers: the shifted logits are exact, so that the map must be too.
        shifted = moe.alpha_entmax(whole + shift, alpha=alpha)
        torch.testing.assert_close(shifted, moe.alpha_entmax(whole, alpha=alpha), rtol=0, atol=1e-6)


def test_empty_batches_should_work():
    x = torch.zeros(0, 5, requires_grad=True)
    p = moe.entmax15(x)
    p.sum().backward()
    assert p.shape == x.grad.shape == (0, 5)


def test_a_second_derivative_should_be_refused():
    x = torch.randn(5, requires_grad=True)
    (gradient,) = torch.autograd.grad(moe.entmax15(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"not have been used|once_differentiable"):
        torch.autograd.grad(gradient.sum(), x)


@pytest.mark.parametrize("alpha", [1.0, 0.5, 2.1])
def test_alpha_out_of_range_should_be_refused(alpha):
    with pytest.raises(ValueError, match=r"alpha sets how sparse .* expected 1.1 <= alpha <= 2"):
        moe.alpha_entmax(torch.zeros(3), alpha=alpha)
    with pytest.raises(ValueError, match="alpha sets how sparse"):
        moe.MultilinearMoE(4, 4, n_experts=3, gate=moe.AlphaEntmax(alpha=alpha))
