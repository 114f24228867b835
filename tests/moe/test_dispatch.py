"""Dispatch: every backend against the where-loop in value and gradient, and the kernels' traps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from where_loop import where_loop

from metier.core.errors import InputError
from metier.moe.sparse.dispatch import BACKENDS, grouped_product, make_plan
from metier.moe.sparse.experts import Experts, choose_backend, grouped_mm_runs

CPU = torch.device("cpu")


def problem(
    n=50,
    dim=16,
    hidden=24,
    n_experts=6,
    k=2,
    *,
    dtype=torch.float32,
    seed=0,
    skew=0.0,
    dropped=False,
    backend="auto",
    **options,
):
    """Experts and a batch; `skew` spoils the balance, `dropped` puts sentinels in."""
    g = torch.Generator().manual_seed(seed)
    experts = Experts(dim, hidden, n_experts=n_experts, dispatch=backend, dtype=dtype, **options)
    with torch.no_grad():
        for p in experts.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.3)
    x = torch.randn(n, dim, generator=g).to(dtype).requires_grad_()
    logits = torch.randn(n, n_experts, generator=g) + skew * torch.randn(n_experts, generator=g)
    weights, indices = logits.softmax(-1).topk(k, dim=-1)
    if dropped:
        indices = torch.where(torch.rand(n, k, generator=g) < 0.3, n_experts, indices)
    return experts, x, indices, weights.to(dtype).detach().requires_grad_()


def value_and_gradients(fn, experts, x, indices, weights):
    """The output and the gradients of a random linear functional of it, by name."""
    inputs = {"x": x, "weights": weights, **dict(experts.named_parameters())}
    y = fn(x, indices, weights)
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    grads = torch.autograd.grad((y * probe).sum(), list(inputs.values()))
    return {"value": y, **dict(zip(inputs, grads, strict=True))}


def assert_same_as_loop(experts, x, indices, weights, *, tolerance):
    found = value_and_gradients(experts, experts, x, indices, weights)
    slow = value_and_gradients(
        lambda *arguments: where_loop(*arguments, experts), experts, x, indices, weights
    )
    for name, expected in slow.items():
        scale = max(1.0, float(expected.detach().abs().max()))
        worst = float((found[name] - expected).detach().abs().max()) / scale
        assert worst <= tolerance, f"{name}: {worst}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dropped", [False, True])
def test_backends_should_agree_with_the_where_loop(backend, activation, bias, dropped):
    """Dispatch kernels agree, fp32 1e-5, values and gradients, with empty groups and sentinels."""
    experts, x, indices, weights = problem(
        backend=backend, activation=activation, bias=bias, dropped=dropped, skew=5.0
    )
    assert (torch.bincount(indices.flatten(), minlength=7)[:6] == 0).any()
    assert_same_as_loop(experts, x, indices, weights, tolerance=1e-5)


@pytest.mark.parametrize(
    ("dtype", "backend", "tolerance"),
    [
        (torch.float64, "padded", 1e-12),
        (torch.float64, "loop", 1e-12),
        (torch.float64, "auto", 1e-12),
        (torch.bfloat16, "grouped_mm", 0.05),
        (torch.bfloat16, "padded", 0.05),
        (torch.bfloat16, "loop", 0.05),
        (torch.bfloat16, "auto", 0.05),
        (torch.float16, "grouped_mm", 0.01),
        (torch.float16, "padded", 0.01),
        (torch.float16, "loop", 0.01),
        (torch.float16, "auto", 0.01),
    ],
)
def test_dtypes_should_agree_with_the_where_loop(dtype, backend, tolerance):
    """bf16, fp16, fp32, fp64. Tolerances are a few units of the last place of sums of tens of terms."""
    experts, x, indices, weights = problem(dtype=dtype, backend=backend, n=40)
    assert experts(x, indices, weights).dtype is dtype
    assert_same_as_loop(experts, x, indices, weights, tolerance=tolerance)


@pytest.mark.parametrize("backend", ["auto", "padded", "loop"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_widths_of_30_and_50_should_work(backend, dtype):
    """Dims 30/50, whose rows are not multiples of 16 bytes."""
    experts, x, indices, weights = problem(dim=30, hidden=50, backend=backend, dtype=dtype)
    assert not grouped_mm_runs(dtype, CPU, dim=30, hidden_dim=50)
    assert_same_as_loop(experts, x, indices, weights, tolerance=1e-5 if dtype is torch.float32 else 0.05)


@pytest.mark.parametrize("backend", BACKENDS)
def test_expanded_gradients_should_work(backend):
    """`y.sum().backward()` sends a gradient of stride 0 into the kernels."""
    experts, x, indices, weights = problem(backend=backend, k=1)
    experts(x, indices, weights).sum().backward()
    slow = torch.autograd.grad(where_loop(x, indices, weights, experts).sum(), [x, experts.down_proj])
    torch.testing.assert_close(x.grad, slow[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(experts.down_proj.grad, slow[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sentinels_should_leave_no_garbage(backend):
    """Rows beyond the last offset are uninitialized in the kernels; none of it may come out."""
    experts, x, indices, weights = problem(backend=backend)
    lost = torch.full_like(indices, experts.n_experts)
    half = torch.cat([indices[:25], lost[25:]])
    for _ in range(3):
        junk = torch.full((4000, 64), torch.nan)  # what freed memory may hold
        del junk
        y = experts(x, half, weights)
        grads = torch.autograd.grad(y.square().sum(), [x, weights, experts.down_proj])
        assert (y[25:] == 0).all()
        assert (grads[0][25:] == 0).all()
        assert (grads[1][25:] == 0).all()
        assert torch.isfinite(grads[2]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_dropped_and_no_tokens_should_give_zero_gradients(backend):
    """Zero tokens on a rank: defined, and every parameter still has a gradient for the reducer."""
    experts, x, indices, weights = problem(backend=backend)
    for n, ids in ((50, torch.full_like(indices, experts.n_experts)), (0, indices[:0])):
        y = experts(x[:n], ids, weights[:n])
        assert y.shape == (n, 16)
        experts.zero_grad()
        y.sum().backward()
        assert all((p.grad == 0).all() for p in experts.parameters())


@pytest.mark.parametrize("backend", ["loop", "padded"])
def test_float64_should_pass_gradcheck_twice(backend):
    """float64 passes gradcheck; second derivatives too."""
    experts, x, indices, weights = problem(
        4, 2, 2, 3, dtype=torch.float64, dropped=True, backend=backend, bias=True
    )

    def fn(x, weights, up, down):
        return torch.func.functional_call(
            experts, {"gate_up_proj": up, "down_proj": down}, (x, indices, weights)
        )

    inputs = (x, weights, experts.gate_up_proj, experts.down_proj)
    assert torch.autograd.gradcheck(fn, inputs)
    assert torch.autograd.gradgradcheck(fn, inputs)


def test_grouped_product_should_match_a_product_per_row():
    rows, weight = torch.randn(7, 3, dtype=torch.float64), torch.randn(4, 2, 3, dtype=torch.float64)
    ends = torch.tensor([2, 2, 5, 6], dtype=torch.int32)
    group = [0, 0, 2, 2, 2, 3]
    expected = torch.stack([weight[g] @ row for g, row in zip(group, rows, strict=False)])
    found = grouped_product(rows, weight, ends)
    torch.testing.assert_close(found[:6], expected)
    assert (found[6] == 0).all()


@given(seed=st.integers(0, 10_000), backend=st.sampled_from(sorted(BACKENDS)))
def test_permuting_experts_or_tokens_should_permute_the_outputs(seed, backend):
    experts, x, indices, weights = problem(seed=seed, backend=backend)
    y = experts(x, indices, weights)
    g = torch.Generator().manual_seed(seed)
    tokens, relabel = torch.randperm(50, generator=g), torch.randperm(6, generator=g)
    moved = experts(x[tokens], indices[tokens], weights[tokens])
    torch.testing.assert_close(moved, y[tokens], atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        for p in experts.parameters():
            p.copy_(p[relabel].clone())
    again = experts(x, torch.argsort(relabel)[indices], weights)
    torch.testing.assert_close(again, y, atol=1e-5, rtol=1e-4)


def test_choice_should_follow_dtype_alignment_and_load():
    """The automatic choice, by what was measured (docs/balancing.md)."""
    sizes = {"dim": 64, "hidden_dim": 64}
    even = make_plan(torch.arange(16).repeat(8)[:, None], 16)
    piled = make_plan(torch.zeros(2048, 1, dtype=torch.int64), 16)
    assert choose_backend(even, torch.float32, **sizes) == "grouped_mm"
    assert choose_backend(even, torch.float64, **sizes) == "loop"
    assert choose_backend(even, torch.float32, dim=30, hidden_dim=50) == "loop"
    assert choose_backend(even, torch.bfloat16, **sizes) == "padded"
    assert choose_backend(piled, torch.bfloat16, **sizes) == "grouped_mm"
    assert choose_backend(piled, torch.bfloat16, dim=30, hidden_dim=50) == "loop"
    # 82 rows of padding per expert, 1.2e7 operations: more than grouped_mm's set-up is worth, not the loop's.
    leaning = make_plan(torch.tensor([0] * 170 + [1] * 6)[:, None], 2)
    assert choose_backend(leaning, torch.bfloat16, dim=64, hidden_dim=128) == "grouped_mm"
    assert choose_backend(leaning, torch.bfloat16, dim=62, hidden_dim=130) == "padded"
    empty = make_plan(torch.zeros(0, 2, dtype=torch.int64), 16)
    assert choose_backend(empty, torch.bfloat16, **sizes) == "loop"


# torch 2.13's own tracer instantiates autograd functions.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.slow  # test_compiled_layer_should_agree has the experts of a whole layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_experts_should_agree_in_value_and_gradient(dtype):
    """torch.compile, the whole layer in one graph."""
    experts, x, indices, weights = problem(dtype=dtype, n=32)
    compiled = torch.compile(
        lambda *a: experts(*a, may_drop=False), backend="aot_eager", fullgraph=True, dynamic=False
    )
    found = value_and_gradients(compiled, experts, x, indices, weights)
    slow = value_and_gradients(lambda *a: where_loop(*a, experts), experts, x, indices, weights)
    tolerance = 1e-5 if dtype is torch.float32 else 0.05
    for name, expected in slow.items():
        scale = max(1.0, float(expected.detach().abs().max()))
        assert float((found[name] - expected).detach().abs().max()) <= tolerance * scale, name


def test_autocast_should_compute_in_its_dtype_and_reach_float32_weights():
    experts, x, indices, weights = problem()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = experts(x, indices, weights)
    assert y.dtype is torch.bfloat16
    torch.testing.assert_close(y.float(), where_loop(x, indices, weights, experts), atol=0.05, rtol=0.05)
    y.float().sum().backward()
    assert experts.down_proj.grad.dtype is torch.float32


def test_tokens_of_another_dtype_should_come_back_in_theirs():
    experts, x, indices, weights = problem(dtype=torch.bfloat16)
    assert experts(x.float(), indices, weights.float()).dtype is torch.float32


@pytest.mark.parametrize(
    ("x", "indices", "message"),
    [
        (
            torch.zeros(3, 15),
            torch.zeros(3, 2, dtype=torch.int64),
            r"expected \(N, 16\), got shape \(3, 15\)",
        ),
        (torch.zeros(3, 16), torch.zeros(4, 2, dtype=torch.int64), r"shape \(3, k\), got \(4, 2\)"),
        (torch.zeros(3, 16), torch.full((3, 2), 7), "got ids from 7 to 7"),
        (torch.zeros(3, 16), torch.full((3, 2), -1), "got ids from -1 to -1"),
    ],
)
def test_bad_input_should_be_refused(x, indices, message):
    with pytest.raises(InputError, match=message):
        problem()[0](x, indices, torch.ones(indices.shape))


@pytest.mark.parametrize("options", [{"dispatch": "groupedmm"}, {"activation": "relu"}])
def test_unknown_names_should_suggest_near_ones(options):
    with pytest.raises(InputError, match="grouped_mm" if "dispatch" in options else "swiglu"):
        Experts(8, 8, n_experts=2, **options)
