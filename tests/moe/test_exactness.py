"""Any split of a step, masks, evaluation, recomputation, saving: the same gradient and the same state."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from routers import EXPERTS, TOP_K, Naive, TinyRouter, domain_tokens, run_step

from metier import moe
from metier.core.errors import InputError

N = 256
SPLITS = {
    "1": [256],
    "2": [128] * 2,
    "8": [32] * 8,
    "32": [8] * 32,
    "unequal": [1, 7, 100, 3, 64, 81],
    "with empty": [0, 200, 0, 56],
}
KINDS = ("plain", "reentrant", "non-reentrant")


def trained(sizes: list[int], *, kind: str = "plain", steps: int = 3, **settings: object):
    """Run some steps of gradient descent; return the last gradient and the balancer."""
    balancer = moe.Balancer(tokens_per_step=N, **{"strength": 0.5, "weight_new": 0.4, **settings})
    model = TinyRouter(balancer)
    for t in range(steps):
        gradient = run_step(model, domain_tokens(seed=t), sizes, kind=kind)
        with torch.no_grad():
            model.weight -= 0.1 * gradient
    return gradient, balancer


def assert_same_state(one: moe.Balancer, other: moe.Balancer, tolerance: float = 0.0) -> None:
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    for key in a:
        if key in ("ema", "price", "bias"):
            for name in a[key]:
                assert (a[key][name] - b[key][name]).abs().max() <= tolerance, (key, name)
        else:
            assert a[key] == b[key], key


@pytest.mark.parametrize(
    "settings",
    [
        {"track": "soft"},
        {"track": "hard"},
        {"track": "hard", "sink": "bias", "bias_strength": 0.05},
        {"track": "soft", "sink": "both", "bias_strength": 0.05},
    ],
    ids=str,
)
def test_balancer_should_match_the_slow_reference(settings: dict) -> None:
    """Three steps in value and gradient against loops over tokens and experts."""
    strength = 0.5 if settings.get("sink") != "bias" else 0.0
    naive = Naive(strength, 0.4, track=settings["track"], kappa=settings.get("bias_strength", 0.0))
    balancer = moe.Balancer(strength=0.5, weight_new=0.4, **settings)
    model = TinyRouter(balancer)
    for t in range(3):
        x = domain_tokens(48, seed=t)
        weight = model.weight.detach().numpy().copy()
        expected = naive.step(x.numpy(), weight, model.values.numpy())
        got = run_step(model, x, [48])
        np.testing.assert_allclose(got.numpy(), expected, atol=2e-7)
        np.testing.assert_allclose(balancer.loads("gate").numpy(), naive.m, atol=1e-12)
        np.testing.assert_allclose(balancer.prices("gate").numpy(), naive.price(), atol=1e-6)
        bias = balancer.bias("gate")
        assert (bias is None) == (settings.get("sink") is None)
        if bias is not None:
            np.testing.assert_allclose(bias.numpy(), naive.b, atol=1e-6)
        with torch.no_grad():
            model.weight -= 0.1 * got


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "settings",
    [
        {"track": "soft"},
        {"track": "hard", "potential": "quadratic"},
        {"track": "hard", "sink": "both", "half_life_tokens": 300, "weight_new": None},
        {"running": True, "weight_new": None, "z_loss": 0.1},
        {"sink": "both", "bias_rule": "quantile", "track": "hard"},
    ],
    ids=str,
)
def test_any_split_into_micro_batches_should_give_the_same_step(split: str, settings: dict) -> None:
    """Must 6: gradient within 1e-6 relative, state within 1e-6."""
    expected, reference = trained([N], **settings)
    got, balancer = trained(SPLITS[split], **settings)
    assert (got - expected).norm() <= 1e-6 * expected.norm()
    assert_same_state(balancer, reference, 1e-6)


@given(cuts=st.lists(st.integers(0, N), max_size=6))
@settings(max_examples=10, deadline=None)
def test_arbitrary_cuts_should_give_the_same_gradient(cuts: list[int]) -> None:
    """Must 6, as a property."""
    edges = [0, *sorted(cuts), N]
    expected, reference = trained([N], steps=2)
    got, balancer = trained([b - a for a, b in pairwise(edges)], steps=2)
    assert (got - expected).norm() <= 1e-6 * expected.norm()
    assert_same_state(balancer, reference, 1e-6)


def test_unknown_tokens_per_step_should_be_exact_for_equal_micro_batches() -> None:
    expected, _ = trained([N])
    balancer = moe.Balancer(strength=0.5, weight_new=0.4, loss_scale=1 / 8)
    model = TinyRouter(balancer)
    for t in range(3):
        gradient = run_step(model, domain_tokens(seed=t), [32] * 8)
        with torch.no_grad():
            model.weight -= 0.1 * gradient
    assert (gradient - expected).norm() <= 1e-6 * expected.norm()


def test_paper_price_should_depend_on_the_split() -> None:
    """What the lagged price is for: the paper's own price does not survive accumulation."""
    expected, _ = trained([N], price="paper")
    got, _ = trained([32] * 8, price="paper")
    assert (got - expected).norm() > 1e-2 * expected.norm()


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("price", ["lagged", "paper"])
@pytest.mark.parametrize("sink", ["aux", "both"])
def test_recomputation_should_change_nothing(kind: str, price: str, sink: str) -> None:
    """Must 8: with both kinds of activation checkpointing, gradient and state are bit-equal."""
    options = {"price": price, "sink": sink, "track": "hard"}
    expected, reference = trained([100, 156], **options)
    got, balancer = trained([100, 156], kind=kind, **options)
    assert torch.equal(got, expected)
    assert_same_state(balancer, reference)


@pytest.mark.parametrize("kind", KINDS)
def test_interleaved_passes_should_reuse_their_own_paper_price(kind: str) -> None:
    """All forward passes first, as pipelines do, then all backward passes in the same order."""
    from torch.utils.checkpoint import checkpoint

    balancer = moe.Balancer(strength=0.5, weight_new=0.4, price="paper", tokens_per_step=N)
    model = TinyRouter(balancer)
    model.weight.grad = None
    losses = []
    for part in domain_tokens().split([64] * 4):
        part = part.requires_grad_()
        y = model(part) if kind == "plain" else checkpoint(model, part, use_reentrant=kind == "reentrant")
        losses.append((y**2).sum() / N)
    for loss in losses:
        loss.backward()
    expected, _ = trained([64] * 4, steps=1, price="paper")
    assert (model.weight.grad - expected).norm() <= 1e-6 * expected.norm()


def test_evaluation_should_leave_the_state_bit_equal() -> None:
    """Must 8: eval counts nothing, injects nothing, and keeps the bias in force."""
    _, balancer = trained([N], sink="both", track="hard")
    before = balancer.state_dict()
    model = TinyRouter(balancer, layer="second")
    model.layer = "gate"
    model.eval()
    model(domain_tokens())
    model.train()
    with torch.no_grad():
        assert model.eval()(domain_tokens()).isfinite().all()
    after = balancer.state_dict()
    assert torch.equal(before["ema"]["gate"], after["ema"]["gate"])
    assert (
        balancer.observe("gate", torch.zeros(2, EXPERTS), indices=torch.zeros(2, 1).long(), training=False)
        is None
    )
    assert balancer.bias("gate") is not None


def test_masked_tokens_should_leave_no_trace() -> None:
    """Must 8: padding of any content, NaN too, gives the gradient and the state of the tokens alone."""
    options = {"z_loss": 0.1, "sink": "both", "bias_rule": "quantile", "track": "hard"}
    expected, reference = trained([N], **options)
    balancer = moe.Balancer(strength=0.5, weight_new=0.4, tokens_per_step=N, **options)
    model = TinyRouter(balancer)
    for t in range(3):
        x = domain_tokens(seed=t)
        model.weight.grad = None
        padded = torch.cat([x[:100], torch.full((50, x.shape[1]), 1e3), x[100:]])
        mask = torch.ones(306, dtype=torch.bool)
        mask[100:150] = False
        y = model(padded, mask)[mask]
        (y**2).sum().div(N).backward()
        balancer.step()
        with torch.no_grad():
            model.weight -= 0.1 * model.weight.grad
    assert (model.weight.grad - expected).norm() <= 1e-6 * expected.norm()
    assert_same_state(balancer, reference, 1e-12)


def test_masked_nan_should_reach_neither_state_nor_gradient() -> None:
    balancer = moe.balancer("phi", weight_new=1.0)
    balancer.add_layer("gate", n_experts=4, top_k=1)
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask = torch.tensor([1, 1, 1, 0, 0, 1])
    for _ in range(2):
        holed = torch.where(mask[:, None].bool(), logits, torch.nan)
        aux = balancer.observe("gate", holed, indices=torch.zeros(6, 1).long(), mask=mask)
        assert aux is not None
        balancer.step()
    (gradient,) = torch.autograd.grad(aux, logits)
    assert torch.isfinite(gradient).all()
    assert gradient[:3].abs().sum() > 0
    assert torch.isfinite(balancer.loads("gate")).all()


def test_all_masked_should_change_nothing() -> None:
    _, balancer = trained([N], sink="both", track="hard")
    before = balancer.state_dict()
    indices = torch.zeros(5, TOP_K, dtype=torch.long)
    logits = torch.zeros(5, EXPERTS)
    balancer.observe("gate", logits, indices=indices, mask=torch.zeros(5))
    balancer.observe("gate", logits[:0], indices=indices[:0])
    balancer.step()
    after = balancer.state_dict()
    for key in ("ema", "price", "bias"):
        assert torch.equal(before[key]["gate"], after[key]["gate"]), key
    assert after["tokens"] == before["tokens"]


def test_constant_in_the_prices_should_not_matter() -> None:
    """Must 4: q + constant gives the same router gradient, 1e-10 in float64."""
    gradients = []
    for shift in (0.0, 5.0):
        _, balancer = trained([N])
        balancer._layers.find("gate")[0].price.add_(shift)
        model = TinyRouter(balancer, layer="second")
        model.layer = "gate"
        gradients.append(run_step(model, domain_tokens(seed=9), [N], step=False))
    # The shifted prices are rounded to float32, so shift by what float32 holds exactly.
    assert (gradients[0] - gradients[1]).abs().max() <= 1e-6
    exact = []
    for shift in (0.0, 5.0):
        b = moe.balancer("phi", strength=1.0)
        b.add_layer("gate", n_experts=4, top_k=1)
        price = torch.tensor([0.5, -0.25, -0.5, 0.25]) + shift
        b._layers.find("gate")[0].price.copy_(price)
        logits = torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(10, 4).requires_grad_()
        aux = b.observe("gate", logits, indices=torch.zeros(10, 1).long())
        exact.append(torch.autograd.grad(aux, logits)[0])
    assert (exact[0] - exact[1]).abs().max() <= 1e-10


def test_one_large_step_should_forget_as_much_as_three_small_ones() -> None:
    """Must 10: 3n tokens at once or in three steps with equal means, m within 1e-6."""
    x = domain_tokens(90)
    memories = []
    for parts in ([x.repeat(3, 1)], [x, x, x]):
        balancer = moe.balancer("phi", half_life_tokens=200)
        model = TinyRouter(balancer)
        for part in parts:
            run_step(model, part, [part.shape[0]])
        memories.append(balancer.loads("gate"))
        assert balancer.state_dict()["tokens"] == [270]
    assert (memories[0] - memories[1]).abs().max() <= 1e-6


@pytest.mark.parametrize("name", list(moe.PRESETS))
def test_resumed_run_should_be_bit_equal(name: str) -> None:
    """Must 9: save and load mid-run equals the uninterrupted run, for every preset."""
    balancer = moe.balancer(name, tokens_per_step=N)
    model = TinyRouter(balancer)
    saved = None
    for t in range(6):
        if t == 3:
            saved = (copy.deepcopy(model.weight.data), balancer.state_dict())
        gradient = run_step(model, domain_tokens(seed=t), [100, 156])
        with torch.no_grad():
            model.weight -= 0.1 * gradient
    again = moe.balancer(name, tokens_per_step=N)
    resumed = TinyRouter(again, seed=99)
    resumed.values.copy_(model.values)
    assert saved is not None
    resumed.weight.data.copy_(saved[0])
    again.load_state_dict(saved[1])
    for t in range(3, 6):
        gradient = run_step(resumed, domain_tokens(seed=t), [100, 156])
        with torch.no_grad():
            resumed.weight -= 0.1 * gradient
    assert torch.equal(resumed.weight, model.weight)
    assert_same_state(again, balancer)


def test_saved_state_should_not_move_with_training() -> None:
    _, balancer = trained([N])
    state = balancer.state_dict()
    held = state["ema"]["gate"].clone()
    model = TinyRouter(balancer, layer="x")
    model.layer = "gate"
    balancer.observe("x", torch.zeros(1, EXPERTS), indices=torch.zeros(1, 1).long())
    run_step(model, domain_tokens(seed=5), [N])
    assert torch.equal(state["ema"]["gate"], held)
    assert not torch.equal(balancer.loads("gate"), held)


def other(**settings: object) -> moe.Balancer:
    balancer = moe.Balancer(**settings)
    balancer.add_layer("gate", n_experts=EXPERTS, top_k=TOP_K)
    return balancer


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: other(potential="tsallis"), r"the same potential: expected 'Tsallis.*got 'Shannon"),
        (lambda: other(target=np.full(EXPERTS, 1 / EXPERTS)), "the same potential"),
        (lambda: other(track="hard"), "the same track"),
    ],
)
def test_state_of_another_potential_should_be_refused(make, text: str) -> None:
    """Must 9: wrong potential."""
    _, balancer = trained([N])
    with pytest.raises(InputError, match=text):
        make().load_state_dict(balancer.state_dict())


def test_state_of_another_model_should_be_refused() -> None:
    """Must 9: wrong layers, expert counts, entries or tensors; nothing is taken up then."""
    _, balancer = trained([N])
    state = balancer.state_dict()
    renamed = moe.Balancer()
    renamed.add_layer("mlp.gate", n_experts=EXPERTS, top_k=TOP_K)
    with pytest.raises(InputError, match=r"same layers\[0\]: expected 'mlp.gate', got 'gate'"):
        renamed.load_state_dict(state)
    wider = moe.Balancer()
    wider.add_layer("gate", n_experts=2 * EXPERTS, top_k=TOP_K)
    with pytest.raises(InputError, match=r"same n_experts\[0\]: expected 16, got 8"):
        wider.load_state_dict(state)
    deeper = other()
    deeper.add_layer("gate2", n_experts=EXPERTS, top_k=TOP_K)
    with pytest.raises(InputError, match="same layers"):
        deeper.load_state_dict(state)
    mine = other()
    with pytest.raises(InputError, match=r"missing \['ema'\], unknown \['momentum'\]"):
        mine.load_state_dict({("momentum" if k == "ema" else k): v for k, v in state.items()})
    broken = {**state, "price": {"gate": torch.full((EXPERTS,), torch.nan)}}
    with pytest.raises(InputError, match=r"price of layer 'gate'.*not finite"):
        mine.load_state_dict(broken)
    with pytest.raises(InputError, match=r"ema of layer 'gate'.*got shape \(3,\)"):
        mine.load_state_dict({**state, "ema": {"gate": torch.ones(3)}})
    assert_same_state(mine, other())


def test_unfinished_step_should_not_be_saved() -> None:
    _, balancer = trained([N])
    balancer.observe("gate", torch.zeros(2, EXPERTS), indices=torch.zeros(2, 1).long())
    with pytest.raises(InputError, match="between two steps"):
        balancer.state_dict()
    balancer.discard()
    assert balancer.state_dict()["steps"] == 3


@pytest.mark.parametrize("name", ["switch", "own parts"])
def test_switch_should_be_a_member_of_the_family(name: str) -> None:
    """Must 15: quadratic, hard, weight 1, paper price = the explicit Switch gradient, 1e-6 relative."""
    if name == "switch":
        balancer = moe.balancer("switch", strength=0.3)
    else:
        balancer = moe.Balancer("quadratic", 0.3, weight_new=1.0, track="hard", price="paper")
    model, explicit = TinyRouter(balancer), TinyRouter(None)
    for t in range(2):
        x = domain_tokens(64, seed=t)
        got = run_step(model, x, [64])
        logits = x @ explicit.weight.T
        probs = logits.softmax(-1)
        chosen = probs.topk(TOP_K, dim=-1).indices
        y = (probs.gather(-1, chosen) * explicit.values[chosen]).sum(-1)
        loss = (y**2).mean() + 0.3 * moe.switch_loss(probs, chosen)
        (expected,) = torch.autograd.grad(loss, explicit.weight)
        assert (got - expected).norm() <= 1e-6 * expected.norm()
        bare = torch.autograd.grad((explicit(x) ** 2).mean(), explicit.weight)[0]
        assert (expected - bare).norm() > 1e-3 * bare.norm()
        value = balancer.loss.item()
        assert value == pytest.approx(0.3 * (moe.switch_loss(probs, chosen).item() - 1.0), rel=1e-6)


def test_sigmoid_router_should_not_shrink_its_way_out() -> None:
    """Must 23: logits near -50 give gate values that sum to 1, and a gradient along the simplex only."""
    balancer = moe.balancer("phi", strength=1.0, weight_new=1.0)
    balancer.add_layer("gate", n_experts=4, top_k=1)
    for dtype in (torch.float32, torch.float64):
        logits = (torch.randn(32, 4, generator=torch.Generator().manual_seed(1)) - 50.0).to(dtype)
        logits[:, 0] += 1.0
        logits.requires_grad_()
        for _ in range(2):
            indices = logits.argmax(-1, keepdim=True)
            aux = balancer.observe("gate", logits, indices=indices, router="sigmoid")
            balancer.step()
        assert balancer.loads("gate").sum().item() == pytest.approx(1.0, abs=1e-6)
        (gradient,) = torch.autograd.grad(aux, logits)
        assert gradient.abs().sum() > 1e-3
        # Shifting all logits of a token changes nothing there: sigmoid is exponential.
        assert gradient.sum(-1).abs().max() <= 1e-6


def test_injected_loss_should_be_the_explicit_one() -> None:
    injected, explicit = moe.balancer("phi", strength=0.7), moe.balancer("phi", strength=0.7)
    a, b = TinyRouter(injected), TinyRouter(explicit)
    for t in range(3):
        x = domain_tokens(64, seed=t)
        got = run_step(a, x, [64])
        logits = x @ b.weight.T
        probs = logits.softmax(-1)
        chosen = probs.topk(TOP_K, dim=-1).indices
        aux = explicit.observe("gate", logits, indices=chosen)
        y = (probs.gather(-1, chosen) * b.values[chosen]).sum(-1)
        (expected,) = torch.autograd.grad((y**2).mean() + aux, b.weight)
        assert explicit.loss.item() == pytest.approx(aux.item(), abs=1e-12)
        assert injected.loss.item() == pytest.approx(aux.item(), abs=1e-7)
        explicit.step()
        assert (got - expected).abs().max() <= 1e-7


def test_probabilities_should_do_in_place_of_logits() -> None:
    one, two = moe.balancer("phi", weight_new=1.0), moe.balancer("phi", weight_new=1.0)
    logits = domain_tokens(40, dim=4)
    for b in (one, two):
        b.add_layer("gate", n_experts=4, top_k=1)
    for _ in range(2):
        chosen = logits.argmax(-1, keepdim=True)
        first = one.observe("gate", logits, indices=chosen)
        second = two.observe("gate", probs=logits.softmax(-1), indices=chosen)
        one.step()
        two.step()
    assert first.item() == pytest.approx(second.item(), abs=1e-12)
    assert abs(first.item()) > 1e-4


def test_absent_expert_ids_should_not_be_counted() -> None:
    balancer = moe.balancer("phi", weight_new=1.0)
    balancer.add_layer("gate", n_experts=4, top_k=2)
    indices = torch.tensor([[0, 4], [1, 4], [0, 2]])
    balancer.observe("gate", torch.zeros(3, 4), indices=indices)
    balancer.step()
    assert balancer.last is not None
    assert balancer.last.counts()["gate"].tolist() == [2, 1, 1, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
def test_autocast_should_not_round_counts_or_prices(dtype: torch.dtype, masked: bool) -> None:
    """Statement 6 in mixed precision: the products of autocast would be 1e-3 off, or overflow in fp16."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(2, 1000, EXPERTS, generator=generator) + torch.linspace(0, 2, EXPERTS)
    mask = torch.arange(1000) % 100 > 0 if masked else None

    def run(autocast: bool) -> tuple[torch.Tensor, moe.Balancer]:
        balancer = moe.Balancer(strength=1.0, weight_new=1.0, z_loss=0.1)
        balancer.add_layer("gate", n_experts=EXPERTS, top_k=TOP_K)
        for logits in steps:
            z = logits.clone().requires_grad_()
            with torch.autocast("cpu", dtype, enabled=autocast):
                scores, indices = z.softmax(-1).topk(TOP_K)
                aux = balancer.observe("gate", z, indices=indices, mask=mask)
                scores = balancer.inject(scores, aux)
            (0.0 * scores).sum().backward()
            balancer.step()
        return z.grad, balancer

    (gradient, balancer), (expected, plain) = run(True), run(False)
    assert (gradient - expected).norm() <= 1e-6 * expected.norm()
    assert_same_state(balancer, plain, 1e-9)
