"""Must 3 of the issue: the forward pass waits for no device, shown by watching every operation it runs."""

from __future__ import annotations

import pytest
import torch
from routers import EXPERTS, TOP_K
from torch.utils._python_dispatch import TorchDispatchMode

from metier import moe

WAITS = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "is_nonzero",
    "item",
    "equal",
    "unique",
    "bincount",
)
"""What reads a value on the host, or makes a shape that only values know."""
UPLOADS = ("lift_fresh", "lift_fresh_copy")
"""What makes a tensor of the host's numbers; on an accelerator a copy that blocks."""


def waits(func, args, names: set[str]) -> bool:
    """Whether an operation is one of these, or picks rows by a mask."""
    name = func.overloadpacket.__name__
    picked = args[1] if name in ("index", "index_put_") else ()
    return name in names or any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in picked)


class Forbidding(TorchDispatchMode):
    """Fail at any operation that would make the host wait for an accelerator."""

    def __init__(self) -> None:
        super().__init__()
        self.forbidden = {*WAITS, *UPLOADS}
        self.seen = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if waits(func, args, self.forbidden):
            raise AssertionError(f"{func} waits for the device")
        self.seen += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "run",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: bool(x.any()),
        lambda x: torch.bincount(x.long()),
        lambda x: torch.as_tensor(2.0, device=x.device),
        lambda x: torch.tensor([1, 2], device=x.device),
    ],
)
def test_the_watch_should_see_what_waits(run) -> None:
    with pytest.raises(AssertionError, match="waits for the device"), Forbidding():
        run(torch.ones(3))


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("name", list(moe.PRESETS))
def test_observe_and_inject_should_wait_for_nothing(name: str, mask: bool) -> None:
    """Forward, backward and a second forward under every preset."""
    for more in ({"z_loss": 0.1}, {"z_loss": 0.1, "tokens_per_step": 64}):
        balancer = moe.balancer(name, **more)
        balancer.add_layer("gate", n_experts=EXPERTS, top_k=TOP_K)
        logits = torch.randn(64, EXPERTS, generator=torch.Generator().manual_seed(0)).requires_grad_()
        keep = torch.arange(64) % 5 > 0 if mask else None
        with Forbidding() as watch:
            for _ in range(2):
                bias = balancer.bias("gate")
                scores = logits.softmax(-1)
                indices = (scores if bias is None else scores + bias).topk(TOP_K).indices
                aux = balancer.observe("gate", logits, indices=indices, mask=keep)
                balancer.inject(scores.gather(-1, indices), aux).sum().backward()
        assert watch.seen > 10
        balancer.step()
        assert logits.grad is not None


@pytest.mark.parametrize("name", ["phi", "phi_paper", "loss_free", "quantile"])
@pytest.mark.parametrize("routing", ["softmax", "sigmoid"])
def test_our_layer_should_wait_for_nothing_before_its_products(name: str, routing: str) -> None:
    balancer = moe.balancer(name)
    layer = moe.SparseMoE(8, 16, n_experts=EXPERTS, top_k=TOP_K, routing=routing, balancer=balancer)
    x = torch.randn(32, 8, requires_grad=True)
    mask = torch.ones(32, dtype=torch.bool)
    with Forbidding():
        _, scores, _ = layer.route(x, mask)
        scores.sum().backward()
    balancer.step()
    assert balancer.steps == 1


def test_grouped_dispatch_should_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way an accelerator takes: sorting, offsets and grouped products, forward and backward."""
    x = torch.randn(32, 16, requires_grad=True)
    indices = torch.randn(32, EXPERTS).topk(TOP_K).indices
    experts = moe.Experts(16, 32, n_experts=EXPERTS, dispatch="grouped_mm")
    # Ids are checked on a CPU alone, where nothing is waited for.
    monkeypatch.setattr(experts, "_check", lambda *tensors: None)
    with Forbidding():
        experts(x, indices, torch.ones(32, TOP_K), may_drop=False).sum().backward()
    assert x.grad is not None


def test_an_attached_model_should_wait_for_nothing() -> None:
    """Hooks, masks and injection on a transformers model: no operation of theirs may wait."""
    transformers = pytest.importorskip("transformers")
    del transformers
    from tiny_moe_models import build, tokens

    ids = tokens(batch=4, seed=3)
    seen = []
    for balancer in (None, moe.balancer("phi"), moe.balancer("phi_bias")):
        model = build("mixtral")
        handle = None if balancer is None else moe.attach(model, balancer)
        counter = _Counting()
        with counter:
            model(input_ids=ids, labels=ids).loss.backward()
        seen.append(counter.waits)
        if handle is not None:
            handle.step()
    # The model itself may wait (its causal mask does); hooks add nothing to that.
    assert seen[1] <= seen[0]
    assert seen[2] <= seen[0]


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waits += waits(func, args, {*WAITS, *UPLOADS})
        return func(*args, **(kwargs or {}))
