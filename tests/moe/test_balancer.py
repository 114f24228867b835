"""Biases, rivals, schedules, bad input, cost: the balancer apart from its exactness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from routers import EXPERTS, TOP_K, TinyRouter, domain_tokens, run_step
from torch import Tensor

from metier import moe
from metier.core.errors import InputError
from metier.moe.balancing import steps
from metier.moe.balancing.bias_rules import (
    count_distances,
    distance_to_selection,
    histogram_quantile,
    quantile_bias,
)

SKEW = torch.tensor([1.2, 0.6, 0.3, 0.0, 0.0, -0.2, -0.4, -0.8])


def skewed(n: int = 600, seed: int = 0) -> Tensor:
    return torch.randn(n, EXPERTS, generator=torch.Generator().manual_seed(seed)) * 0.7 + SKEW


def one_step(balancer: moe.Balancer, logits: Tensor, *, sigmoid: bool = False) -> Tensor:
    """Select with the bias in force, count, step; return the choices."""
    scores = torch.sigmoid(logits) if sigmoid else logits.softmax(-1)
    bias = balancer.bias("gate")
    indices = (scores if bias is None else scores + bias).topk(TOP_K, dim=-1).indices
    balancer.observe("gate", logits, indices=indices, router="sigmoid" if sigmoid else "softmax")
    balancer.step()
    return indices


def gate(name: str, **settings: object) -> moe.Balancer:
    balancer = moe.balancer(name, **settings)
    balancer.add_layer("gate", n_experts=EXPERTS, top_k=TOP_K)
    return balancer


BIASES = [
    ("phi_bias", {"strength": 1.0, "weight_new": 0.05}),
    ("loss_free", {"strength": 5e-3}),
    ("loss_free", {"rule": "proportional", "strength": 0.02}),
    ("quantile", {}),
    ("quantile", {"strength": 0.3}),
]


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize(("name", "settings"), BIASES, ids=str)
def test_biases_should_balance_and_stay_centered(name: str, settings: dict, sigmoid: bool) -> None:
    """|mean b| <= 1e-6 after every update; loads of new tokens even out."""
    balancer = gate(name, **settings)
    first = moe.routing_metrics(
        torch.bincount(one_step(balancer, skewed(), sigmoid=sigmoid).flatten(), minlength=8)
    )
    for t in range(90):
        one_step(balancer, skewed(seed=t), sigmoid=sigmoid)
        assert abs(balancer.bias("gate").mean().item()) <= 1e-6
    last = balancer.last.routing()
    assert first.max_vio[0] > 0.8
    assert last.max_vio[0] < 0.35
    assert balancer.metrics()["bias_range/worst"] > 0


def test_bias_should_touch_no_gate_value_and_no_unchanged_choice() -> None:
    """Tokens whose choice the bias does not change have the same gates, 1e-6 (here: bit-equal)."""
    balancer = gate("phi_bias")
    for t in range(5):
        one_step(balancer, skewed(seed=t))
    logits = skewed(seed=9)
    gates, bias = logits.softmax(-1), balancer.bias("gate")
    plain = gates.topk(TOP_K, dim=-1).indices.sort(-1).values
    biased = (gates + bias).topk(TOP_K, dim=-1).indices.sort(-1).values
    same = (plain == biased).all(-1)
    assert 0 < same.sum() < len(same)
    assert torch.equal(gates.gather(-1, plain)[same], gates.gather(-1, biased)[same])


def test_bias_should_be_constant_within_a_step() -> None:
    balancer = gate("phi_bias")
    before = balancer.bias("gate").clone()
    for _ in range(3):
        balancer.observe("gate", skewed(), indices=skewed().topk(TOP_K).indices)
        assert torch.equal(balancer.bias("gate"), before)
    balancer.step()
    assert not torch.equal(balancer.bias("gate"), before)
    assert gate("phi").bias("gate") is None


def test_bias_rules_should_be_their_formulas() -> None:
    sign, proportional, phi = gate("loss_free"), gate("loss_free", rule="proportional"), gate("phi_bias")
    chosen = one_step(sign, skewed())
    one_step(proportional, skewed())
    one_step(phi, skewed())
    f = np.bincount(chosen.flatten().numpy(), minlength=EXPERTS) / chosen.numel()
    expected = 1e-3 * np.sign(1 / EXPERTS - f)
    np.testing.assert_allclose(sign.bias("gate").numpy(), expected - expected.mean(), atol=1e-8)
    np.testing.assert_allclose(proportional.bias("gate").numpy(), 0.01 * (1 - EXPERTS * f), atol=1e-7)
    log = np.log(np.maximum(EXPERTS * (0.98 / EXPERTS + 0.02 * f), 1e-3))
    np.testing.assert_allclose(phi.bias("gate").numpy(), -0.3 * (log - log.mean()), atol=1e-6)


@pytest.mark.parametrize("name", ["loss_free", "quantile", "phi_bias"])
def test_biases_should_reach_target_loads(name: str) -> None:
    target = np.array([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])
    settings = {"loss_free": {"rule": "proportional", "strength": 0.01}, "phi_bias": {"weight_new": 0.1}}
    balancer = gate(name, target=target, **settings.get(name, {}))
    for t in range(200):
        one_step(balancer, skewed(seed=t))
    counts = sum(balancer.last.counts().values())
    np.testing.assert_allclose((counts / counts.sum()).numpy(), target, atol=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_quantile_should_give_each_expert_its_share(seed: int) -> None:
    """The fraction of tokens with cut - s < b_e, before recentering, is k/E within 1/N."""
    scores, n = skewed(403, seed=seed).softmax(-1).double(), 403
    bias = 0.05 * torch.randn(EXPERTS, generator=torch.Generator().manual_seed(seed)).double()
    indices = (scores + bias).topk(TOP_K, dim=-1).indices
    found = quantile_bias(scores, bias, indices)
    share = (distance_to_selection(scores, bias, indices) < found).double().mean(0)
    assert (share - TOP_K / EXPERTS).abs().max() <= 1 / n + 1e-12


def test_distance_should_be_what_flips_a_choice() -> None:
    """Against brute force: one expert's bias just past its distance makes it chosen, and not before."""
    scores, bias = skewed(40).softmax(-1).double(), torch.linspace(-0.1, 0.1, EXPERTS).double()
    indices = (scores + bias).topk(TOP_K, dim=-1).indices
    distance = distance_to_selection(scores, bias, indices)
    for n in range(40):
        for e in range(EXPERTS):
            for shift, expected in ((1e-9, True), (-1e-9, False)):
                moved = bias.clone()
                moved[e] = distance[n, e] + shift
                assert (e in (scores[n] + moved).topk(TOP_K).indices.tolist()) == expected


@pytest.mark.parametrize("spread", [0.01, 1.0, 10.0])
def test_histogram_quantile_should_be_near_the_exact_one(spread: float) -> None:
    """Relative 2 % of the scores' spread: the bins are finer near 0."""
    scores = skewed(5000).softmax(-1).double() * spread
    bias = torch.zeros(EXPERTS).double()
    indices = scores.topk(TOP_K, dim=-1).indices
    distance = distance_to_selection(scores, bias, indices)
    histogram = torch.zeros(EXPERTS, 1024, dtype=torch.float64)
    for part in distance.split(999):
        count_distances(histogram, part, torch.ones(len(part)))
    got = histogram_quantile(histogram, torch.full((EXPERTS,), TOP_K / EXPERTS))
    assert (got - quantile_bias(scores, bias, indices)).abs().max() <= 0.02 * distance.abs().max()


def test_quantile_balancer_should_follow_the_exact_rule() -> None:
    balancer, bias = gate("quantile"), torch.zeros(EXPERTS)
    for t in range(5):
        logits = skewed(2000, seed=t)
        scores = logits.softmax(-1)
        indices = (scores + bias).topk(TOP_K, dim=-1).indices
        bias = quantile_bias(scores, bias, indices)
        bias = bias - bias.mean()
        one_step(balancer, logits)
    assert (balancer.bias("gate") - bias).abs().max() <= 0.005


def test_quantile_should_refuse_to_choose_all() -> None:
    with pytest.raises(InputError, match="expected top_k below n_experts=2, got top_k=2"):
        quantile_bias(torch.rand(3, 2), torch.zeros(2), torch.tensor([[0, 1]] * 3))


def test_collapsed_layers_should_not_hide_each_other() -> None:
    """Four layers collapsed on different experts score 4 each, pooled they score 1."""
    chosen = [torch.full((20, 1), layer) for layer in range(4)]
    probs = [torch.eye(4)[c.flatten()] for c in chosen]
    for p, c in zip(probs, chosen, strict=True):
        assert moe.switch_loss(p, c).item() == pytest.approx(4.0, abs=1e-4)
    assert moe.switch_loss(torch.cat(probs), torch.cat(chosen)).item() == pytest.approx(1.0, abs=1e-4)
    balancer = moe.balancer("phi", weight_new=1.0)
    for layer, (p, c) in enumerate(zip(probs, chosen, strict=True)):
        balancer.observe(balancer.add_layer(n_experts=4, top_k=1), probs=p, indices=c)
        assert balancer.layers[layer] == f"layer_{layer}"
    balancer.step()
    assert balancer.metrics()["max_vio/mean"] == 3.0


@pytest.mark.parametrize("potential", list(moe.POTENTIALS))
def test_every_potential_should_balance_a_router(potential: str) -> None:
    """Gradient descent on the injected loss alone evens out the gate values of a skewed router."""
    balancer = moe.balancer("phi", strength=1.0, potential=potential, weight_new=0.3)
    balancer.add_layer("gate", n_experts=EXPERTS, top_k=TOP_K)
    shift = SKEW.clone().requires_grad_()
    optimizer = torch.optim.Adam([shift], lr=0.05)
    for t in range(80):
        logits = skewed(200, seed=t) - SKEW + shift
        indices = logits.topk(TOP_K).indices
        optimizer.zero_grad()
        aux = balancer.observe("gate", logits, indices=indices)
        balancer.inject(logits.gather(-1, indices), aux).mul(0.0).sum().backward()
        balancer.step()
        optimizer.step()
    assert balancer.last.routing().gate_entropy[0] > 0.995
    assert shift.detach().std() < 0.3 * SKEW.std()


def test_hard_tracking_should_even_out_choices_that_gate_values_hide() -> None:
    """Expert 0 always wins by a hair: gate values are even, choices are not, only hard tracking sees it."""
    logits = torch.zeros(50, 4)
    logits[:, 0] = 1e-3
    prices = {}
    for track in ("soft", "hard"):
        balancer = moe.Balancer(weight_new=1.0, track=track)
        balancer.add_layer("gate", n_experts=4, top_k=1)
        balancer.observe("gate", logits, indices=logits.argmax(-1, keepdim=True))
        balancer.step()
        prices[track] = balancer.prices("gate")
    assert prices["soft"].abs().max() < 1e-2
    assert prices["hard"][0] > 5.0


def test_z_loss_should_compose() -> None:
    logits = skewed(30).double().requires_grad_()
    both, alone = moe.balancer("phi", z_loss=0.01), moe.balancer("phi_bias", z_loss=0.01)
    mask = torch.arange(30) % 3 > 0
    expected = 0.01 * moe.z_loss(logits, mask=mask)
    for balancer in (both, alone):
        balancer.add_layer("gate", n_experts=EXPERTS, top_k=TOP_K)
        aux = balancer.observe("gate", logits, indices=logits.topk(TOP_K).indices, mask=mask)
        # In the first step all prices are 0.
        assert aux.item() == pytest.approx(expected.item(), rel=1e-9)
    got = torch.autograd.grad(aux, logits)[0]
    assert torch.allclose(got, torch.autograd.grad(expected, logits)[0])
    assert gate("phi_bias").observe("gate", logits, indices=logits.topk(TOP_K).indices) is None


def test_strength_and_scale_should_follow_a_schedule() -> None:
    balancer = gate("phi", strength=0.1)
    one_step(balancer, skewed())
    logits = skewed(seed=1)
    losses = []
    for strength, scale in ((0.1, 1.0), (0.2, 1.0), (0.1, 8.0)):
        balancer.strength, balancer.loss_scale = strength, scale
        losses.append(balancer.observe("gate", logits, indices=logits.topk(TOP_K).indices).item())
    assert losses[0] != 0
    assert losses[1] == pytest.approx(2 * losses[0])
    assert losses[2] == pytest.approx(8 * losses[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_any_precision_should_be_counted_in_full(dtype: torch.dtype) -> None:
    balancer = gate("phi", weight_new=1.0)
    logits = skewed(4000).to(dtype).requires_grad_()
    aux = balancer.observe("gate", logits, indices=logits.topk(TOP_K).indices)
    scores = balancer.inject(logits.topk(TOP_K).values, aux)
    assert scores.dtype == dtype
    scores.sum().backward()
    assert logits.grad.dtype == dtype
    balancer.step()
    assert balancer.loads("gate").dtype == torch.float64
    assert balancer.prices("gate").dtype == torch.float32
    expected = logits.detach().double().softmax(-1).mean(0)
    assert (balancer.loads("gate") - expected).abs().max() <= 1e-6


def test_layers_of_different_shapes_should_share_one_balancer() -> None:
    balancer = moe.balancer("phi_bias", weight_new=1.0)
    shapes = [(4, 1), (8, 2), (4, 2), (16, 4)]
    for i, (e, k) in enumerate(shapes):
        balancer.add_layer(f"l{i}", n_experts=e, top_k=k)
    for i, (e, k) in enumerate(shapes):
        logits = torch.randn(50, e, generator=torch.Generator().manual_seed(i))
        balancer.observe(f"l{i}", logits.reshape(5, 10, e), indices=logits.topk(k).indices.reshape(5, 10, k))
    balancer.step()
    for i, (e, k) in enumerate(shapes):
        logits = torch.randn(50, e, generator=torch.Generator().manual_seed(i))
        f = torch.bincount(logits.topk(k).indices.flatten(), minlength=e) / (50 * k)
        assert torch.allclose(balancer.loads(f"l{i}"), f.double())
    assert list(balancer.last.counts()) == ["l0", "l1", "l2", "l3"]
    assert balancer.last.routing().layers == ("l0", "l1", "l2", "l3")


def test_layer_on_another_device_should_be_moved_with_its_state() -> None:
    """The "meta" device stands in for an accelerator: the row leaves its block, the others stay."""
    balancer = moe.balancer("phi")
    for i in range(3):
        balancer.add_layer(f"l{i}", n_experts=4, top_k=1)
    layers = balancer._layers
    block, row = layers.move("l1", torch.device("meta"))
    assert (block.device.type, row) == ("meta", 0)
    assert layers.find("l0")[0] is layers.find("l2")[0]
    assert layers.find("l2")[0].device.type == "cpu"
    assert balancer.layers == ("l0", "l1", "l2")
    for name in ("l0", "l2"):
        balancer.observe(name, torch.zeros(2, 4), indices=torch.zeros(2, 1).long())
    assert layers.find("l2")[0].part("tokens").tolist() == [2.0, 2.0]


def test_running_memory_should_be_each_layer_s_own_mean() -> None:
    """A layer added later, or without tokens in a step, remembers the mean of its own steps."""
    balancer = moe.Balancer(running=True)
    names = [balancer.add_layer(n_experts=EXPERTS, top_k=TOP_K)]
    seen: dict[str, list[Tensor]] = {}
    for t in range(6):
        if t == 3:
            names.append(balancer.add_layer(n_experts=EXPERTS, top_k=TOP_K))
        for i, name in enumerate(names):
            logits = skewed(40, seed=10 * t + i)
            empty = t == 4 and i == 0
            mask = torch.zeros(40) if empty else None
            balancer.observe(name, logits, indices=logits.topk(TOP_K).indices, mask=mask)
            if not empty:
                seen.setdefault(name, []).append(logits.softmax(-1).double().mean(0))
        balancer.step()
    for name in names:
        expected = torch.stack(seen[name]).mean(0)
        assert (balancer.loads(name) - expected).abs().max() <= 1e-7
    assert balancer.state_dict()["folds"] == [5, 3]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_explicit_losses_should_not_be_rounded_by_autocast(dtype: torch.dtype) -> None:
    """16 bits would be 4e-3 off, or worse; values and gradients agree to float32."""
    logits, weight = skewed(200), torch.randn(EXPERTS, 16, generator=torch.Generator().manual_seed(1))
    indices = logits.topk(TOP_K).indices
    losses = (
        lambda z: moe.switch_loss(z.softmax(-1), indices),
        lambda z: moe.z_loss(z),
        lambda z: moe.simbal_loss(weight * z.mean()),
    )
    for loss in losses:
        found = []
        for enabled in (False, True):
            z = logits.clone().requires_grad_()
            with torch.autocast("cpu", dtype, enabled=enabled):
                value = loss(z)
            found.append((value, torch.autograd.grad(value, z)[0]))
        (value, gradient), (under, rounded) = found
        assert under.dtype == torch.float32
        assert under.item() == pytest.approx(value.item(), rel=1e-6)
        assert (rounded - gradient).norm() <= 1e-5 * gradient.norm()


def test_explicit_rivals_should_mask() -> None:
    probs, logits = skewed(30).softmax(-1), skewed(30)
    indices, mask = probs.topk(TOP_K).indices, torch.arange(30) < 20
    assert moe.switch_loss(probs, indices, mask=mask).item() == pytest.approx(
        moe.switch_loss(probs[:20], indices[:20]).item(), rel=1e-6
    )
    assert moe.z_loss(logits, mask=mask).item() == pytest.approx(moe.z_loss(logits[:20]).item(), rel=1e-6)


def test_simbal_should_vanish_for_orthonormal_routers_only() -> None:
    orthogonal = torch.linalg.qr(torch.randn(16, 4, dtype=torch.float64)).Q.T
    assert moe.simbal_loss(orthogonal).item() == pytest.approx(0.0, abs=1e-12)
    weight = torch.tensor([[1.0, 0.0], [1.0, 1.0]], requires_grad=True)
    loss = moe.simbal_loss(weight)
    assert loss.item() == 3.0
    loss.backward()
    assert weight.grad.abs().sum() > 0


def test_sinkhorn_should_balance_the_plan() -> None:
    logits = skewed(80)
    indices, plan = moe.sinkhorn_route(logits, TOP_K, epsilon=0.5)
    assert indices.shape == (80, TOP_K)
    assert (plan.sum(1) - TOP_K).abs().max() <= 1e-3
    assert (plan.sum(0) - TOP_K * 80 / EXPERTS).abs().max() <= 1e-3 * 20
    # Cyclical ratios are those of exp(z / epsilon): the plan is its scaling.
    kernel = (logits / 0.5).exp()
    ratio = plan / kernel
    assert torch.allclose(ratio[0, 0] * ratio[1, 1], ratio[0, 1] * ratio[1, 0], rtol=1e-3)
    plain = moe.routing_metrics(torch.bincount(logits.topk(TOP_K).indices.flatten(), minlength=8)).max_vio[0]
    assert moe.routing_metrics(torch.bincount(indices.flatten(), minlength=8)).max_vio[0] < 0.5 * plain
    with pytest.raises(InputError, match="Sinkhorn's scaling converges"):
        moe.sinkhorn_route(logits, 1, epsilon=0.01, max_iterations=2)


def test_expert_choice_should_fill_every_expert_and_refuse_causal_models() -> None:
    probs = skewed(40).softmax(-1)
    tokens, gates = moe.expert_choice(probs, TOP_K, causal=False)
    assert tokens.shape == gates.shape == (EXPERTS, 10)
    assert torch.equal(gates, probs.T.gather(-1, tokens))
    assert (gates.min(-1).values >= probs.T.sort(-1, descending=True).values[:, 9]).all()
    with pytest.raises(InputError, match="looks at later tokens"):
        moe.expert_choice(probs, TOP_K, causal=True)


# Bad input.


def test_non_finite_logits_should_stop_the_step_and_leave_the_state() -> None:
    balancer = gate("phi_bias")
    one_step(balancer, skewed())
    before = balancer.loads("gate")
    for bad in (torch.nan, torch.inf):
        logits = skewed()
        logits[3, 2] = bad
        balancer.observe("gate", logits, indices=logits.topk(TOP_K).indices)
        with pytest.raises(InputError, match=r"router logits are finite.*layer 'gate'.*discard"):
            balancer.step()
        assert torch.equal(balancer.loads("gate"), before)
        balancer.discard()
    one_step(balancer, skewed())
    assert balancer.steps == 2


def test_excluded_experts_should_be_allowed() -> None:
    """-inf in a logit is a choice (an expert that is masked out), not an error."""
    balancer = gate("phi", weight_new=1.0)
    logits = skewed()
    logits[:, 7] = -torch.inf
    one_step(balancer, logits)
    one_step(balancer, logits)
    assert balancer.loads("gate")[7] == 0
    assert torch.isfinite(balancer.prices("gate")).all()


@pytest.mark.parametrize("row", [[-0.1, 0.5, 0.4, 0.2], [0.5, 0.5, 0.5, 0.5], [float("nan"), 0.5, 0.3, 0.2]])
def test_rows_that_are_no_probabilities_should_be_refused(row: list[float]) -> None:
    balancer = moe.balancer("phi")
    balancer.add_layer("gate", n_experts=4, top_k=1)
    probs = torch.full((5, 4), 0.25)
    probs[2] = torch.tensor(row)
    balancer.observe("gate", probs=probs, indices=torch.zeros(5, 1).long())
    with pytest.raises(InputError, match=r"gate values are probabilities.*layer 'gate'"):
        balancer.step()


def test_wrong_shapes_should_name_the_layer() -> None:
    balancer = gate("phi")
    ids = torch.zeros(5, TOP_K, dtype=torch.long)
    with pytest.raises(InputError, match=r"layer 'gate' fit its registration: expected shape \(..., 8\)"):
        balancer.observe("gate", torch.zeros(5, 16), indices=ids)
    with pytest.raises(InputError, match=r"indices of layer 'gate'.*\(5, k\), got shape \(4, 2\)"):
        balancer.observe("gate", torch.zeros(5, EXPERTS), indices=ids[:4])
    with pytest.raises(InputError, match=r"mask of layer 'gate'.*\(5,\), got shape \(6,\)"):
        balancer.observe("gate", torch.zeros(5, EXPERTS), indices=ids, mask=torch.ones(6))
    with pytest.raises(InputError, match="exactly one of logits and probs"):
        balancer.observe("gate", indices=ids)
    with pytest.raises(InputError, match="exactly one of logits and probs"):
        balancer.observe("gate", ids.float(), probs=ids.float(), indices=ids)


def test_silent_layers_should_be_named() -> None:
    balancer = gate("phi")
    for i in range(5):
        balancer.add_layer(f"deep.{i}", n_experts=4, top_k=1)
    with pytest.raises(InputError, match="got none at all"):
        balancer.step()
    balancer.observe("gate", skewed(), indices=skewed().topk(TOP_K).indices)
    with pytest.raises(InputError, match=r"none at layers 'deep.0', 'deep.1', 'deep.2' and 2 more"):
        balancer.step()
    assert balancer.steps == 0


def test_refused_step_should_keep_this_rank_s_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks are played by an all-reduce that doubles: after the refusal the same step can be finished."""
    monkeypatch.setattr(steps, "_resolve_group", lambda group: (None, 2))
    monkeypatch.setattr(steps, "_device", lambda blocks, group: torch.device("cpu"))
    monkeypatch.setattr(steps.dist, "all_reduce", lambda flat, group, op=None: op or flat.mul_(2.0))
    balancer = moe.Balancer(weight_new=1.0, sink="both", bias_rule="quantile")
    for name in ("first", "second"):
        balancer.add_layer(name, n_experts=4, top_k=1)

    def call(name: str) -> None:
        logits = skewed()[:, :4].clone().requires_grad_()
        scores, indices = logits.softmax(-1).max(-1, keepdim=True)
        balancer.inject(scores, balancer.observe(name, logits, indices=indices)).sum().backward()

    call("first")
    for _ in range(2):
        with pytest.raises(InputError, match="none at layer 'second'"):
            balancer.step()
    call("second")
    balancer.step()
    assert torch.equal(balancer.loads("first"), balancer.loads("second"))
    # 600 tokens on each of two ranks, however often the step was refused.
    assert [int(n) for n in balancer._layers.blocks[0].tokens] == [1200, 1200]


def test_dropped_injection_should_be_found() -> None:
    """The result of inject must be used: a gradient that never arrives is an error, not a silent nothing."""
    balancer = gate("phi")
    logits = skewed().requires_grad_()
    indices = logits.topk(TOP_K).indices
    aux = balancer.observe("gate", logits, indices=indices)
    balancer.inject(logits.gather(-1, indices), aux)
    logits.sum().backward()
    with pytest.raises(InputError, match=r"an injected loss is differentiated.*1 injections"):
        balancer.step()


def test_step_before_backward_should_keep_the_prices_of_the_graph() -> None:
    balancer = gate("phi", strength=1.0)
    one_step(balancer, skewed())
    logits = skewed(seed=1).requires_grad_()
    indices = logits.topk(TOP_K).indices
    (expected,) = torch.autograd.grad(balancer.observe("gate", logits, indices=indices), logits)
    aux = balancer.observe("gate", logits, indices=indices)
    balancer.step()
    (got,) = torch.autograd.grad(aux, logits)
    assert torch.equal(got, expected)


def test_forward_should_read_no_value_on_the_host() -> None:
    """On a device without values any host read raises: observe and inject run there as they are."""
    for name in ("phi", "phi_paper", "phi_bias", "quantile"):
        balancer = moe.balancer(name, tokens_per_step=64, z_loss=0.1)
        balancer.add_layer("gate", n_experts=EXPERTS, top_k=TOP_K, device="meta")
        logits = torch.zeros(64, EXPERTS, device="meta", requires_grad=True)
        indices = torch.zeros(64, TOP_K, dtype=torch.long, device="meta")
        aux = balancer.observe("gate", logits, indices=indices, mask=torch.ones(64, device="meta"))
        scores = balancer.inject(logits.gather(-1, indices), aux)
        assert scores.device.type == "meta"
        assert aux is not None


def test_training_should_work_end_to_end_with_every_preset() -> None:
    """A router trained under each preset is more even than one that is not balanced."""
    unbalanced = run_many(None)
    for name, settings in {
        "phi": {"strength": 1.0},
        "phi_paper": {"strength": 1.0},
        "switch": {"strength": 1.0},
        "global_switch": {"strength": 1.0},
        "phi_bias": {"strength": 1.0, "weight_new": 0.05},
        "loss_free": {"strength": 0.01},
        "quantile": {},
    }.items():
        assert run_many(moe.balancer(name, **settings)) < 0.8 * unbalanced, name


def run_many(balancer: moe.Balancer | None) -> float:
    """Train, and return MaxVio of the mean loads of the last ten steps."""
    model = TinyRouter(balancer)
    counts = torch.zeros(EXPERTS)
    for t in range(80):
        # A common direction of all tokens favors some experts.
        gradient = run_step(model, domain_tokens(128, seed=t % 8) + 1.0, [128])
        with torch.no_grad():
            model.weight -= 0.3 * gradient
        if t >= 70:
            counts += torch.bincount(model.seen[-1].flatten(), minlength=EXPERTS)
    return moe.routing_metrics(counts).max_vio[0]
