"""The injected gradient is that of an explicit loss term: families x experts backends x checkpointing."""

from __future__ import annotations

import pytest
from tiny_moe_models import (
    BUILDERS,
    SIGMOID,
    build,
    expected_gradients,
    gradients,
    largest_difference,
    tokens,
    torch,
    warmed,
)

from metier import moe
from metier.moe.balancing.balancer import Balancer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.utils.checkpoint.*:UserWarning"),
]

MODES = {"plain": None, "reentrant": True, "non-reentrant": False}


def balancer(**more):
    return Balancer("shannon", 0.05, weight_new=0.5, **more)


CELLS = [
    pytest.param(backend, mode, marks=[] if backend == "eager" or mode == "plain" else pytest.mark.slow)
    for backend in ("eager", "grouped_mm", "batched_mm")
    for mode in MODES
]


@pytest.mark.parametrize(("backend", "mode"), CELLS)
@pytest.mark.parametrize("name", BUILDERS)
def test_injected_gradient_should_be_that_of_an_explicit_loss(name, backend, mode):
    """To 1e-7, and one count per layer and forward pass."""
    model = build(name)
    model.set_experts_implementation(backend)
    handle = warmed(model, balancer(), attach=moe.attach)
    ids = tokens()
    inputs = {"input_ids": ids, "labels": ids}
    if mode != "plain":
        model.activation_checkpointing_enable({"use_reentrant": MODES[mode]})
        if MODES[mode]:
            model.enable_input_require_grads()
    # A quarter of the loss: single precision resolves gradients below 1 to 6e-8.
    (0.25 * model(**inputs).loss).backward()
    ours = gradients(model)
    counted = {n: handle.balancer._layers.find(n) for n in handle.routers}
    assert [float(b.part("calls")[row]) for b, row in counted.values()] == [1.0, 1.0]
    assert [float(b.part("tokens")[row]) for b, row in counted.values()] == [20.0, 20.0]
    assert [float(b.part("hard")[row].sum()) for b, row in counted.values()] == [40.0, 40.0]

    prices = handle.balancer
    handle.detach()
    model.activation_checkpointing_disable()
    reference = expected_gradients(model, inputs, prices, task_weight=0.25, sigmoid=name in SIGMOID)
    assert largest_difference(ours, reference) <= 1e-7
    (0.25 * model(**inputs).loss).backward()
    without = gradients(model)
    assert largest_difference(ours, without) > 1e-4, "the balancing gradient must be visible"


@pytest.mark.parametrize("mode", ["reentrant", "non-reentrant"])
def test_masks_should_be_the_same_where_layers_are_computed_again(mode):
    """Two micro-batches with different padding, backward once over both."""
    model = build("mixtral")
    handle = warmed(model, balancer(tokens_per_step=31), attach=moe.attach)
    batches = []
    for seed, real in ((1, (10, 4)), (2, (7, 10))):
        mask = torch.zeros(2, 10, dtype=torch.long)
        for row, n in enumerate(real):
            mask[row, :n] = 1
        batches.append({"input_ids": tokens(seed=seed), "attention_mask": mask, "labels": tokens(seed=seed)})

    def run():
        model.zero_grad()
        sum(model(**batch).loss for batch in batches).backward()
        return gradients(model)

    plain = run()
    handle.discard()
    model.activation_checkpointing_enable({"use_reentrant": MODES[mode]})
    if MODES[mode]:
        model.enable_input_require_grads()
    assert largest_difference(plain, run()) <= 1e-7
    block, row = handle.balancer._layers.find(handle.routers[0])
    assert float(block.part("tokens")[row]) == 31.0


@pytest.mark.parametrize("name", BUILDERS)
def test_padding_should_not_count_and_get_no_gradient(name):
    """Masked tokens."""
    model = build(name)
    handle = warmed(model, balancer(), attach=moe.attach)
    ids = tokens(batch=3)
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    mask[2, 8:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    model(**inputs).loss.backward()
    ours = gradients(model)
    block, row = handle.balancer._layers.find(handle.routers[1])
    assert float(block.part("tokens")[row]) == float(mask.sum()) == 22
    prices = handle.balancer
    handle.detach()
    reference = expected_gradients(model, inputs, prices, sigmoid=name in SIGMOID, mask=mask)
    assert largest_difference(ours, reference) <= 1e-7


def test_a_mask_of_ones_own_should_stand_in_for_the_models():
    model = build("qwen3_moe")
    handle = warmed(model, balancer(), attach=moe.attach)
    mask = torch.arange(20) % 4 != 0
    with handle.token_mask(mask):
        model(input_ids=tokens()).logits.sum().backward()
    block, row = handle.balancer._layers.find(handle.routers[0])
    assert float(block.part("tokens")[row]) == 15


def test_evaluation_should_count_nothing_and_change_nothing():
    """Evaluation leaves the state bit-equal and the outputs as they were."""
    model = build("mixtral")
    ids = tokens(seed=9)
    model.eval()
    with torch.no_grad():
        bare = model(input_ids=ids).logits
    model.train()
    handle = warmed(model, balancer(), attach=moe.attach)
    before = handle.state_dict()["balancer"]
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, bare)
    model(input_ids=ids).logits.sum().backward()
    after = handle.state_dict()["balancer"]
    for name in handle.routers:
        assert torch.equal(before["ema"][name], after["ema"][name])
        assert torch.equal(before["price"][name], after["price"][name])


def test_micro_batches_should_add_up_to_the_whole_batch():
    """Through a real model: 12 sequences whole, in halves, and one by one."""
    ids = tokens(batch=12)
    results = []
    for sizes in ((12,), (6, 6), (1,) * 12, (5, 1, 6)):
        model = build("olmoe")
        handle = warmed(model, balancer(tokens_per_step=120), attach=moe.attach)
        for part in ids.split(sizes):
            # The task's own gradient is left out: only the balancer's remains.
            (model(input_ids=part).logits.sum() * 0.0).backward()
        grads = gradients(model)
        handle.step()
        results.append((grads, handle.state_dict()["balancer"]["ema"]))
    for grads, ema in results[1:]:
        for name in results[0][0]:
            scale = float(results[0][0][name].abs().max())
            assert float((grads[name] - results[0][0][name]).abs().max()) <= 1e-6 * max(scale, 1e-3)
        for name in ema:
            torch.testing.assert_close(ema[name], results[0][1][name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_should_train(dtype):
    model = build("qwen3_moe").to(dtype)
    model.set_experts_implementation("eager")
    handle = warmed(model, balancer(), attach=moe.attach)
    ids = tokens()
    model(input_ids=ids, labels=ids).loss.backward()
    handle.step()
    assert all(torch.isfinite(g).all() for g in gradients(model).values())
    assert torch.isfinite(handle.loss)


@pytest.mark.parametrize("mode", [pytest.param("reentrant", marks=pytest.mark.slow), "non-reentrant"])
@pytest.mark.parametrize("name", BUILDERS)
def test_recomputation_should_leave_the_state_bit_equal(name, mode):
    """Three steps with checkpointing end in the state of three steps without."""
    states = []
    for use_reentrant in (None, MODES[mode]):
        model = build(name)
        handle = moe.attach(model, Balancer("shannon", weight_new=0.5, sink="both", bias_rule="sign"))
        if use_reentrant is not None:
            model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
            if use_reentrant:
                model.enable_input_require_grads()
        for i in range(3):
            model(input_ids=tokens(seed=i)).logits.sum().backward()
            handle.step()
        states.append(handle.state_dict()["balancer"])
    for part in ("ema", "price", "bias"):
        assert all(torch.equal(states[0][part][n], states[1][part][n]) for n in states[0][part])
    assert states[0]["tokens"] == states[1]["tokens"] == [60, 60]


def test_a_router_whose_class_was_replaced_should_be_found():
    """Sharding replaces a module's class by a subclass with another name."""
    model = build("mixtral")
    for layer in model.model.layers:
        cls = type(layer.mlp.gate)
        layer.mlp.gate.__class__ = type(f"FSDP{cls.__name__}", (cls,), {})
    assert moe.attach(model, balancer()).routers == ("model.layers.0.mlp.gate", "model.layers.1.mlp.gate")
