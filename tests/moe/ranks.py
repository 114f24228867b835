"""What a rank does in the tests of data parallelism: every check of one group of processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from routers import EXPERTS, TOP_K, TinyRouter, domain_tokens
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from metier import moe
from metier.core.errors import InputError

N = 120
SHARES = {1: [120], 2: [31, 89], 4: [50, 0, 63, 7]}
CASES: dict[str, dict[str, Any]] = {
    "soft": {"track": "soft"},
    "hard, both": {"track": "hard", "sink": "both", "half_life_tokens": 300.0},
    "tsallis, sign": {"potential": "tsallis", "sink": "both", "bias_rule": "sign"},
    "quantile": {"sink": "both", "bias_rule": "quantile"},
    "running": {"running": True, "z_loss": 0.1},
}


def tokens_of(rank: int, world: int, step: int, shares: list[int] | None = None) -> Tensor:
    return domain_tokens(N, seed=step).split(shares or SHARES[world])[rank]


def train(rank: int, world: int, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Three steps by hand: gradients summed over ranks."""
    balancer = moe.Balancer(strength=0.5, tokens_per_step=N, **settings)
    model = TinyRouter(balancer)
    for t in range(3):
        model.weight.grad = None
        for part in tokens_of(rank, world, t).split(20):
            (model(part) ** 2).sum().div(N).backward()
        gradient = torch.zeros_like(model.weight) if model.weight.grad is None else model.weight.grad
        if world > 1:
            dist.all_reduce(gradient)
        balancer.step()
        with torch.no_grad():
            model.weight -= 0.1 * gradient
    bias = balancer.bias("gate")
    found = {"gradient": gradient, "m": balancer.loads("gate"), "q": balancer.prices("gate")}
    return found if bias is None else {**found, "b": bias.clone()}


def train_ddp(rank: int, world: int) -> dict[str, Tensor]:
    """DDP averages over ranks, so the loss and the injected gradient are multiplied by their number."""
    balancer = moe.Balancer(strength=0.5, tokens_per_step=N, loss_scale=float(world))
    inner = TinyRouter(balancer)
    model = DistributedDataParallel(inner)
    for t in range(3):
        model.zero_grad()
        (model(tokens_of(rank, world, t, [N // world] * world)) ** 2).sum().mul(world / N).backward()
        balancer.step()
        with torch.no_grad():
            inner.weight -= 0.1 * inner.weight.grad
    return {"gradient": inner.weight.grad, "m": balancer.loads("gate")}


class Wrapped(nn.Module):
    """A model with a layer before the router, so that FSDP2 has parameters to shard."""

    def __init__(self, balancer: moe.Balancer) -> None:
        super().__init__()
        self.router = TinyRouter(balancer)

    def forward(self, x: Tensor) -> Tensor:
        return self.router(x)


def train_fsdp(rank: int, world: int) -> dict[str, Tensor]:
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (world,))
    balancer = moe.Balancer(strength=0.5, tokens_per_step=N, loss_scale=float(world))
    model = Wrapped(balancer)
    fully_shard(model.router, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for t in range(3):
        optimizer.zero_grad()
        (model(tokens_of(rank, world, t, [N // world] * world)) ** 2).sum().mul(world / N).backward()
        optimizer.step()
        balancer.step(mesh)
    gradient = next(model.parameters()).grad.full_tensor()
    return {"gradient": gradient, "m": balancer.loads("gate")}


def count_reductions() -> list[int]:
    """Return the number of all-reduce calls of each of three steps with three layers of two shapes."""
    balancer = moe.balancer("phi_bias")
    calls, genuine = [], dist.all_reduce

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return genuine(*args, **kwargs)

    for i, n_experts in enumerate((4, 8, 4)):
        balancer.add_layer(f"l{i}", n_experts=n_experts, top_k=1)
    numbers = []
    dist.all_reduce = counted
    try:
        for _ in range(3):
            for i, n_experts in enumerate((4, 8, 4)):
                balancer.observe(f"l{i}", torch.zeros(3, n_experts), indices=torch.zeros(3, 1).long())
            calls.clear()
            balancer.step()
            numbers.append(len(calls))
    finally:
        dist.all_reduce = genuine
    return numbers


def layered(names: list[str], preset: str = "phi") -> moe.Balancer:
    """Return a balancer whose layers of these names were called."""
    balancer = moe.balancer(preset)
    for name in names:
        balancer.add_layer(name, n_experts=4, top_k=1)
        balancer.observe(name, torch.zeros(3, 4), indices=torch.zeros(3, 1).long())
    return balancer


def errors(rank: int, world: int) -> dict[str, str]:
    """Return the texts of what is refused on this rank."""
    texts = {}

    def attempt(name: str, run: Any) -> None:
        try:
            run()
        except InputError as error:
            texts[name] = str(error)

    def fresh(strength: float = 0.1, *, call: bool = True) -> moe.Balancer:
        balancer = moe.balancer("phi", strength=strength)
        balancer.add_layer("gate", n_experts=EXPERTS, top_k=TOP_K)
        if call:
            logits = torch.full((2, EXPERTS), torch.nan if call == "nan" and rank == 0 else 0.0)
            balancer.observe("gate", logits, indices=torch.zeros(2, TOP_K).long())
        return balancer

    attempt("settings", lambda: fresh(0.1 + rank).step())
    attempt("silent", lambda: fresh(call=False).step())
    attempt("one rank silent", lambda: fresh(call=rank > 0).step())
    attempt("nan on rank 0", lambda: fresh(call="nan").step())
    attempt("layers", lambda: layered(["a", "b"] if rank == 0 else ["a"]).step())
    attempt("no layers on rank 0", lambda: layered([] if rank == 0 else ["a"]).step())
    attempt("names", lambda: layered(["a", "b"] if rank == 0 else ["b", "a"]).step())
    attempt("rules", lambda: layered(["a"], "quantile" if rank == 0 else "phi_bias").step())
    grown = layered(["a"])
    grown.step()
    for name in ("b",) if rank == 0 else ("b", "c"):
        grown.add_layer(name, n_experts=4, top_k=1)
        grown.observe(name, torch.zeros(3, 4), indices=torch.zeros(3, 1).long())
    attempt("layers added later", lambda: grown.step())
    only_first = dist.new_group([0])
    attempt("group", lambda: fresh().step(only_first))
    attempt("no reduction", lambda: fresh().step(False))
    return texts


def rank_main(rank: int, world: int, folder: str) -> None:
    """Run every check of this rank and write what was found."""
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / f"store-{world}"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=300))
    found: dict[str, Any] = {name: train(rank, world, case) for name, case in CASES.items()}
    found["ddp"] = train_ddp(rank, world)
    found["fsdp"] = train_fsdp(rank, world)
    found["reductions"] = count_reductions()
    found["errors"] = errors(rank, world)
    torch.save(found, Path(folder) / f"world-{world}-rank-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def launch(folder: str) -> None:
    """Fork the ranks of every group from here: torch is imported once, and no thread runs yet."""
    import torch.distributed.fsdp  # noqa: F401, here once and not in every rank

    context = multiprocessing.get_context("fork")
    for world in SHARES:
        ranks = [
            context.Process(target=rank_main, args=(r, world, folder), daemon=True) for r in range(world)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(400)
        codes = [process.exitcode for process in ranks]
        if any(codes) or None in codes:
            sys.exit(f"ranks of a group of {world} ended with {codes}")


if __name__ == "__main__":
    warnings.simplefilter("error", category=UserWarning)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    launch(sys.argv[1])
