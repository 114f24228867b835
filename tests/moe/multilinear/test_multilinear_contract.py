"""One contract for every form, gate, norm, hierarchy and dtype: shapes, copies, precision, persistence."""

from __future__ import annotations

import copy
import itertools
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from metier import moe

FACTORS = {
    "form": tuple(moe.FORMS),
    "gate": tuple(moe.GATES),
    "norm": ("layer", "batch", "none"),
    "modes": ((5,), (3, 4), (3, 3, 3)),
    "dtype": (torch.float64, torch.float32, torch.bfloat16, torch.float16),
}


def pairwise():
    """Return settings in which every pair of choices of two factors occurs, greedily."""
    names = list(FACTORS)
    todo = {
        ((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in FACTORS[a] for y in FACTORS[b]
    }
    rows = list(itertools.product(*FACTORS.values()))
    chosen = []
    while todo:
        pairs = [set(itertools.combinations(zip(names, row, strict=True), 2)) & todo for row in rows]
        best = max(range(len(rows)), key=lambda i: len(pairs[i]))
        chosen.append(dict(zip(names, rows[best], strict=True)))
        todo -= pairs[best]
    return chosen


DEFAULTS = [
    {"form": form, "gate": "entmax15", "norm": "layer", "modes": modes, "dtype": dtype}
    for form in moe.FORMS
    for modes in ((5,), (3, 4))
    for dtype in (torch.float32, torch.bfloat16)
]
CASES = [case for case in pairwise() if case not in DEFAULTS] + DEFAULTS


TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 5e-3, torch.float32: 1e-5, torch.float64: 1e-12}


def name_of(case):
    return "-".join(str(v).removeprefix("torch.") for v in case.values())


def build(case, **settings):
    rank = None if case["form"] == "mxd" else 3
    names = {"n_experts": case["modes"], **{key: case[key] for key in ("form", "gate", "norm")}}
    return moe.MultilinearMoE(8, 6, rank=rank, rng=0, **names, **settings)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_contract_should_hold(case, tmp_path):
    """Statements 15 and 16 over all pairs of choices."""
    dtype = case["dtype"]
    layer = build(case, dtype=torch.float64).to(dtype)
    x = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = layer(x.to(dtype))
    assert (y.shape, y.dtype) == ((6, 6), dtype)
    if not case["gate"].endswith("topk"):  # the k-th and the next logit may swap under rounding
        tolerance = {torch.bfloat16: 3e-2, torch.float16: 5e-3, torch.float32: 1e-5, torch.float64: 1e-12}[
            dtype
        ]
        wide = copy.deepcopy(layer).double()
        rounded = wide(x.to(dtype).double())
        assert (y - rounded).norm() / rounded.norm() <= tolerance
    y.float().square().sum().backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in layer.parameters())
    torch.testing.assert_close(copy.deepcopy(layer).eval()(x.to(dtype)), layer.eval()(x.to(dtype)))
    check_shapes(layer, x.to(dtype))
    check_round_trip(layer, x.to(dtype), tmp_path)
    check_mixture(layer, x.to(dtype))


def check_shapes(layer, x):
    """Statement 15: any leading shape; rows do not depend on the shape they come in (evaluation mode)."""
    batch = layer(x)
    wide = 0.0 if x.dtype == torch.float64 else 2e-2 if x.dtype in (torch.bfloat16, torch.float16) else 1e-5
    for shape in ((8,), (6, 8), (2, 3, 8), (1, 2, 3, 8)):
        y = layer(x[0] if shape == (8,) else x.reshape(shape))
        assert y.shape == (*shape[:-1], 6)
        torch.testing.assert_close(
            y.reshape(-1, 6), batch[: y.numel() // 6], rtol=wide, atol=max(wide, 1e-10)
        )
    assert layer(x[:0]).shape == (0, 6)


def check_round_trip(layer, x, folder):
    """Statement 16: the same bytes come back."""
    layer.save_pretrained(folder)
    stream = torch.random.get_rng_state()
    again = moe.MultilinearMoE.from_pretrained(folder).eval()
    assert torch.equal(torch.random.get_rng_state(), stream)
    assert again.config() == layer.config()
    saved, state = load_file(folder / "model.safetensors"), layer.state_dict()
    assert saved.keys() == state.keys() == again.state_dict().keys()
    for name, value in state.items():
        assert torch.equal(saved[name], value)
        assert torch.equal(again.state_dict()[name], value)
        assert again.state_dict()[name].dtype == value.dtype
    assert torch.equal(again(x), layer(x))


def check_mixture(layer, x):
    """Outputs are the mixture of the experts that the layer shows."""
    layer, x = copy.deepcopy(layer).double(), x.double()
    a = layer.gate_values(x)
    W = torch.stack([layer.expert_weight(n) for n in range(layer.n_joint)])
    b = torch.stack([layer.expert_bias(n) for n in range(layer.n_joint)])
    torch.testing.assert_close(layer(x), torch.einsum("bn,bi,nio->bo", a, x, W) + a @ b, rtol=0, atol=1e-9)


def test_cases_should_cover_all_pairs():
    for a, b in itertools.combinations(FACTORS, 2):
        seen = {(case[a], case[b]) for case in CASES}
        assert seen >= set(itertools.product(FACTORS[a], FACTORS[b]))


@pytest.mark.parametrize("form", FACTORS["form"])
@pytest.mark.parametrize("norm", FACTORS["norm"])
def test_16_autocast_should_work(form, norm):
    """Statement 16: float32 parameters under bfloat16 autocast, within 3e-2."""
    layer = build({"form": form, "gate": "entmax15", "norm": norm, "modes": (16,)})
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    exact = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert (y.float() - exact).norm() / exact.norm() <= 3e-2
    y.float().square().sum().backward()
    assert layer.gate.weight.grad.dtype == torch.float32


def test_16_deepcopy_after_a_forward_should_work():
    """Statement 16: nothing of the graph stays in the layer."""
    layer = build({"form": "cp", "gate": "entmax15", "norm": "layer", "modes": (5,)})
    seen = []
    layer.gate.register_forward_hook(lambda module, args, output: seen.append(output[0].detach()))
    y = layer(torch.ones(3, 8, requires_grad=True))
    twin = copy.deepcopy(layer)
    y.sum().backward()
    assert twin.gate.weight.grad is None
    assert seen[0].shape == (3, 5)


def test_15_a_training_batch_of_one_should_use_running_statistics():
    """Statement 15: batch norm of one row warns; without rows, and in evaluation, nothing is said."""
    layer = build({"form": "cp", "gate": "softmax", "norm": "batch", "modes": (5,)})
    with pytest.warns(UserWarning, match="batch norm of a single row in training: the running statistics"):
        y = layer(torch.ones(1, 8))
    running = layer.gate.batch_norm.running_mean.clone()
    torch.testing.assert_close(y, layer.eval()(torch.ones(1, 8)))
    assert layer.train()(torch.ones(0, 8)).shape == (0, 6)
    torch.testing.assert_close(layer.gate.batch_norm.running_mean, running)
    assert bool(torch.isfinite(running).all())


def test_batch_norm_should_be_convertible_to_sync_batch_norm():
    layer = build({"form": "cp", "gate": "softmax", "norm": "batch", "modes": (3, 4)})
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(layer))
    assert isinstance(converted.gate.batch_norm, torch.nn.SyncBatchNorm)
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(converted.eval()(x), layer.eval()(x))


def test_14_later_tokens_should_not_reach_earlier_ones():
    """Statement 14: with layer norm, a change of token t + 1 leaves y_t (1e-6); batch norm is flagged."""
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    changed = x.clone()
    changed[:, 3] += 10
    for norm, leaks in (("layer", False), ("none", False), ("batch", True)):
        layer = build({"form": "cp", "gate": "entmax15", "norm": norm, "modes": (5,)})
        difference = (layer(changed) - layer(x))[:, :3].abs().max()
        assert bool(difference > 1e-4) is leaks
        assert leaks or difference <= 1e-6
    for cls in (moe.MultilinearMoE, moe.MultilinearMLP, moe.MultilinearGLU):
        sizes = (8, 16)
        with pytest.raises(
            ValueError, match=r"a causal model must not see later tokens .* or pass force=True"
        ):
            cls(*sizes, n_experts=5, norm="batch", causal=True)
        assert cls(*sizes, n_experts=5, norm="batch", causal=True, force=True).gate.norm == "batch"


@pytest.mark.parametrize("block", [moe.MultilinearMLP, moe.MultilinearGLU])
@pytest.mark.parametrize("form", FACTORS["form"])
def test_blocks_should_share_one_gate_and_keep_the_contract(block, form, tmp_path):
    module = block(8, 12, 6, n_experts=(3, 4), form=form, rank=None if form == "mxd" else 3, rng=0)
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    a = module.gate(x)
    act = torch.nn.functional.gelu
    if block is moe.MultilinearMLP:
        expected = module.down(act(module.up(x, coefficients=a)), coefficients=a)
    else:
        hidden = act(module.activated(x, coefficients=a)) * module.up(x, coefficients=a)
        expected = module.down(hidden, coefficients=a)
    torch.testing.assert_close(module(x), expected)
    assert sum(isinstance(m, moe.Gate) for m in module.modules()) == 1
    module.save_pretrained(tmp_path)
    torch.testing.assert_close(block.from_pretrained(tmp_path)(x), expected, rtol=0, atol=0)
    other = module(x, gate_input=x.flip(0))
    assert not torch.allclose(other, expected)
    half = copy.deepcopy(module).bfloat16()(x.bfloat16())
    assert (half.float() - expected).norm() / expected.norm() <= 3e-2
    twin = block(8, 12, 6, n_experts=(3, 4), form=form, rank=None if form == "mxd" else 3, rng=0)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), twin.parameters(), strict=True))


def test_a_mask_should_leave_out_experts():
    layer = build({"form": "cp", "gate": "softmax", "norm": "layer", "modes": (3, 4)})
    mask = torch.tensor([True, True, False, True, True, True, False])
    first, second = layer.coefficients(torch.ones(2, 8), mask)
    assert bool((first[:, 2] == 0).all())
    assert bool((second[:, 3] == 0).all())
    torch.testing.assert_close(first.sum(-1), torch.ones(2))
    none = torch.zeros(7, dtype=torch.bool)
    x = torch.ones(2, 8, requires_grad=True)
    for a in layer.coefficients(x, none):
        assert not bool(a.any())
    sum(a.square().sum() for a in layer.coefficients(x, none)).backward()
    assert bool(torch.isfinite(x.grad).all())


def test_a_mode_of_two_under_layer_norm_should_warn():
    with pytest.warns(UserWarning, match="layer norm over 2 logits leaves"):
        moe.MultilinearMoE(4, 4, n_experts=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moe.MultilinearMoE(4, 4, n_experts=2, norm="none")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"n_experts": 0}, "n_experts is a whole number"),
        ({"n_experts": ()}, "n_experts is a number of experts, or the sizes of its modes"),
        ({"n_experts": (4, 0)}, "n_experts is a whole number"),
        ({"n_experts": 2.5}, "n_experts is a whole number"),
        ({"n_experts": 4, "rank": 0}, "rank is a whole number"),
        ({"n_experts": 4, "rank": (2, 2)}, "form='cp' has one rank"),
        (
            {"n_experts": 4, "form": "tr", "rank": (2, 2)},
            r"form='tr' has 3 ranks here: expected \(r1, r2, r3\)",
        ),
        ({"n_experts": (4, 4), "form": "tr", "rank": (2, 2, 2)}, "form='tr' has 4 ranks here"),
        ({"n_experts": 4, "form": "tr", "rank": (2, 0, 2)}, "rank r2 is a whole number"),
        ({"n_experts": 4, "form": "tt", "rank": (2, 2, 2)}, "form='tt' has 2 ranks here"),
        ({"n_experts": 4, "form": "tucker", "rank": (2, 2)}, r"expected \(R_N1, R_I, R_O\)"),
        ({"n_experts": 4, "form": "mxd", "rank": 3}, 'form="mxd" has full rank'),
        ({"n_experts": 4, "form": "tr", "rank": 3, "ring_ranks": (0, 4)}, "ring_ranks is a whole number"),
        ({"n_experts": 4, "form": "tr", "ring_ranks": (4,)}, "two whole numbers"),
        ({"n_experts": 4, "form": "tr", "ring_ranks": 4}, "two whole numbers"),
        ({"n_experts": 4, "form": "tt", "rank": 2.0}, "rank is a whole number"),
        ({"n_experts": 4, "noise": -1.0}, "noise has no negative values"),
        ({"n_experts": 4, "gate_std": float("nan")}, "gate_std has no negative values"),
        ({"n_experts": 4, "form": "cpd"}, "Did you mean 'cp'"),
        ({"n_experts": 4, "gate": "entmax"}, "Did you mean 'entmax15'"),
        ({"n_experts": 4, "gate": moe.TopK(k=0)}, "k is a whole number"),
        ({"n_experts": 4, "norm": "rms"}, "norm is one of a fixed list"),
        ({"n_experts": 4, "init": "paper"}, "init is one of a fixed list"),
    ],
)
def test_bad_settings_should_be_refused(settings, fault):
    with pytest.raises(ValueError, match=fault):
        moe.MultilinearMoE(8, 6, **settings)


def test_bad_calls_should_be_refused():
    layer = build({"form": "cp", "gate": "entmax15", "norm": "layer", "modes": (3, 4)})
    with pytest.raises(ValueError, match=r"the last dimension of x holds the features: expected \(..., 8\)"):
        layer(torch.ones(2, 7))
    with pytest.raises(ValueError, match="the last dimension of gate input"):
        layer(torch.ones(2, 8), gate_input=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"x is a tensor: expected a tensor \(..., 8\), got ndarray"):
        layer(np.ones((2, 8)))
    for wrong in (torch.ones(2, 3), (torch.ones(2, 4), torch.ones(2, 3))):
        with pytest.raises(
            ValueError, match=r"belong to the expert modes: expected \(..., 3\) and \(..., 4\)"
        ):
            layer(torch.ones(2, 8), coefficients=wrong)
    with pytest.raises(ValueError, match="expected an index from 0 to 11, got 12"):
        layer.expert_weight(12)
    with pytest.raises(ValueError, match="expected an index from 0 to 3, got 4"):
        layer.expert_bias((1, 4))
    with pytest.raises(
        ValueError, match=r"an expert has one index per mode: expected 2 for n_experts=\(3, 4\)"
    ):
        layer.expert_weight((1, 2, 3))
    for wrong in ([-1], 1.5, None):
        with pytest.raises(ValueError, match="an index from 0"), layer.ablated(wrong):
            pass
    with pytest.raises(ValueError, match="a layer without a gate is told its coefficients"):
        moe.MultilinearMoE(8, 6, n_experts=3, gate=None)(torch.ones(8))
    with pytest.raises(ValueError, match="rank is given for all layers of a block, or for each"):
        moe.MultilinearMLP(8, 6, n_experts=3, rank={"up": 3})


def test_non_finite_rows_should_stay_alone():
    """Must 10: a NaN or an infinity spoils its own row and no other."""
    for form in moe.FORMS:
        layer = build({"form": form, "gate": "entmax15", "norm": "layer", "modes": (5,)})
        x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
        clean = layer(x)
        x[1, 2], x[3, 0] = torch.nan, torch.inf
        y = layer(x)
        torch.testing.assert_close(y[[0, 2]], clean[[0, 2]])
        assert bool(y[[1, 3]].isnan().all(-1).all())


def test_wrong_folders_should_be_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected config.json and model.safetensors"):
        moe.MultilinearMoE.from_pretrained(tmp_path)
    moe.MultilinearMLP(8, 6, n_experts=3, rank=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"Call MultilinearMLP.from_pretrained"):
        moe.MultilinearMoE.from_pretrained(tmp_path)
