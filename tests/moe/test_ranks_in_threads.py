"""Ranks played by threads of one process: uneven tokens and refusals, without starting processes.

`test_distributed.py` runs the same cases over real process groups, DDP and FSDP among them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from ranks import CASES, SHARES, N, layered, tokens_of
from routers import TinyRouter
from torch import Tensor

from metier import moe
from metier.core.errors import InputError
from metier.moe.balancing import steps


class Ranks:
    """An all-reduce between threads, one per rank."""

    def __init__(self, world: int) -> None:
        self.world, self.mine = world, threading.local()
        self.barrier, self.slots = threading.Barrier(world, timeout=600), [torch.empty(0)] * world

    def all_reduce(self, flat: Tensor, op: Any = None, group: Any = None) -> None:
        self.slots[self.mine.rank] = flat.clone()
        self.barrier.wait()
        table = torch.stack(self.slots)
        self.barrier.wait()
        flat.copy_(table.amax(0) if op == steps.dist.ReduceOp.MAX else table.sum(0))

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        def of(rank: int) -> Any:
            self.mine.rank = rank
            return work(rank)

        with ThreadPoolExecutor(self.world) as pool:
            return list(pool.map(of, range(self.world)))


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Ranks]:
    def make(world: int) -> Ranks:
        found = Ranks(world)
        monkeypatch.setattr(steps, "_resolve_group", lambda group: (None, world))
        monkeypatch.setattr(steps, "_device", lambda blocks, group: torch.device("cpu"))
        monkeypatch.setattr(steps.dist, "all_reduce", found.all_reduce)
        return found

    return make


def train(rank: int, ranks: Ranks, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Three steps on this rank's tokens, gradients summed over ranks."""
    balancer = moe.Balancer(strength=0.5, tokens_per_step=N, **settings)
    model = TinyRouter(balancer)
    for t in range(3):
        model.weight.grad = torch.zeros_like(model.weight)
        for part in tokens_of(rank, ranks.world, t).split(40):
            (model(part) ** 2).sum().div(N).backward()
        gradient = model.weight.grad
        ranks.all_reduce(gradient)
        balancer.step()
        with torch.no_grad():
            model.weight -= 0.1 * gradient
    found = {"gradient": gradient, "m": balancer.loads("gate"), "q": balancer.prices("gate")}
    bias = balancer.bias("gate")
    return found if bias is None else {**found, "b": bias.clone()}


@pytest.mark.parametrize("case", CASES)
def test_uneven_ranks_should_equal_one_rank(ranks, case: str) -> None:
    """Gradient, loads, prices and biases within 1e-6; one of four ranks has no token at all."""
    (expected,) = (one := ranks(1)).run(lambda rank: train(rank, one, CASES[case]))
    assert SHARES[4][1] == 0
    for found in (four := ranks(4)).run(lambda rank: train(rank, four, CASES[case])):
        assert (found["gradient"] - expected["gradient"]).norm() <= 1e-6 * expected["gradient"].norm()
        for key in set(expected) - {"gradient"}:
            assert (found[key] - expected[key]).abs().max() <= 1e-6, key
    assert (expected["m"] - 1 / expected["m"].numel()).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((["a", "b"], ["a"]), "on this rank, 1 to 2 on the ranks"),
        ((["a", "b"], ["b", "a"]), "2 on every rank, with other names"),
    ],
)
def test_ranks_with_other_layers_should_all_be_refused(ranks, names, text: str) -> None:
    def refusal(rank: int) -> str:
        with pytest.raises(InputError, match="the ranks' balancers have the same layers") as info:
            layered(names[rank]).step()
        return str(info.value)

    assert all(text in found for found in ranks(2).run(refusal))


def test_ranks_with_other_settings_should_be_refused(ranks) -> None:
    def refusal(rank: int) -> str:
        with pytest.raises(InputError, match="the ranks' balancers are alike") as info:
            layered(["a"], "phi" if rank else "phi_paper").step()
        return str(info.value)

    assert len(ranks(2).run(refusal)) == 2
