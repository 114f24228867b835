"""Time sparse layers: dispatch beside the loop by `where` and transformers, and what a balancer costs.

    python benchmarks/moe.py dispatch
    python benchmarks/moe.py grid
    python benchmarks/moe.py cost
    python benchmarks/moe.py dispatch --device cuda --dtype bfloat16 --rival scattermoe=PATH.py

All rivals of a table run in turn in this one process. On a CPU with one thread, times are CPU time of the
process, which others on the machine change least; on CUDA or with threads they are wall time.

A rival file defines `experts(gate_up, down)`, which takes the packed matrices (E, 2 hidden, dim) and
(E, dim, hidden) and returns a function of (x, indices, weights). Without one, ScatterMoE and MegaBlocks are
"not measured". Each mode prints a table and writes benchmarks/results/moe-MODE.json (with the device and
dtype in the name, where they are not cpu and float32).
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metier import moe
from metier.moe.sparse.dispatch import make_plan
from metier.moe.sparse.experts import choose_backend, grouped_mm_runs
from record import table, write

STATED = (512, 64, 64, 64, 4)
"""Tokens, dim, hidden, experts, top-k of the target: 4 times the loop that selects by `where`."""
GRID = (
    (16, 64, 64, 64, 4),
    (256, 64, 64, 16, 2),
    (512, 64, 128, 8, 2),
    STATED,
    (512, 62, 66, 16, 2),
    (2048, 64, 128, 16, 2),
    (2048, 128, 128, 32, 2),
    (1024, 256, 128, 64, 4),
)
COST = {"layers": 2, "dim": 512, "hidden": 512, "n_experts": 16, "top_k": 2, "tokens": 2048}
RIVALS = ("scattermoe", "megablocks")
TRANSFORMERS = ("eager", "grouped_mm", "batched_mm", "sonicmoe")

Work = Callable[[], Any]


def where_loop(gate_up: Tensor, down: Tensor) -> Callable[..., Tensor]:
    """The rival of the target: for each expert, its tokens by `where`."""

    def run(x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for expert in range(gate_up.shape[0]):
            tokens, choices = torch.where(indices == expert)
            if tokens.numel():
                gate, up = F.linear(x[tokens], gate_up[expert]).chunk(2, dim=-1)
                y = F.linear(F.silu(gate) * up, down[expert]) * weights[tokens, choices, None]
                out = out.index_add(0, tokens, y)
        return out

    return run


def transformers_experts(gate_up: nn.Parameter, down: nn.Parameter, kind: str) -> Callable[..., Tensor]:
    """Mixtral's experts with one of transformers' backends, on the same parameters."""
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralExperts

    config = MixtralConfig(
        hidden_size=down.shape[1], intermediate_size=down.shape[2], num_local_experts=down.shape[0]
    )
    config._experts_implementation = kind
    experts = MixtralExperts(config).to(down.device)
    experts.gate_up_proj, experts.down_proj = gate_up, down
    return lambda x, indices, weights: experts(x, indices, weights)


def loaded_rival(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("rival", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problem(size: tuple[int, ...], dtype: torch.dtype, device: str, skew: float, seed: int) -> dict[str, Any]:
    """Experts, tokens, choices and gate values; `skew` spoils the balance."""
    n, dim, hidden, n_experts, k = size
    g = torch.Generator().manual_seed(seed)
    experts = moe.Experts(dim, hidden, n_experts=n_experts, device=device, dtype=dtype)
    logits = torch.randn(n, n_experts, generator=g) + skew * torch.randn(n_experts, generator=g)
    values, indices = logits.softmax(-1).topk(k, dim=-1)
    weights = (values / values.sum(-1, keepdim=True)).to(device, dtype).requires_grad_()
    x = torch.randn(n, dim, generator=g).to(device, dtype).requires_grad_()
    return {"experts": experts, "x": x, "indices": indices.to(device), "weights": weights}


def step_of(run: Callable[..., Tensor], p: dict[str, Any]) -> Work:
    """Forward and backward with fresh gradients."""
    grad = torch.randn_like(p["x"])
    leaves = [p["x"], p["weights"], *p["experts"].parameters()]

    def work() -> None:
        run(p["x"], p["indices"], p["weights"]).backward(grad)
        for leaf in leaves:
            leaf.grad = None
        if p["x"].is_cuda:
            torch.cuda.synchronize()

    return work


def ours(p: dict[str, Any], backend: str) -> Work:
    experts = p["experts"]

    def run(x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        experts.dispatch = backend
        return experts(x, indices, weights, may_drop=False)

    return step_of(run, p)


def clock_of(options: argparse.Namespace) -> tuple[str, Callable[[], float]]:
    """CPU time where it is that of the work alone, wall time elsewhere."""
    if options.device == "cpu" and options.threads == 1:
        return "cpu", time.process_time
    return "wall", time.perf_counter


def interleaved(rivals: dict[str, Work], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of every rival in every round; one after another, so that drift hits all alike.

    Every other round goes backwards, so that none always follows the same one.
    """
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for round_ in range(rounds + 2):
        order = list(rivals.items())
        for name, work in order[:: 1 if round_ % 2 else -1]:
            start = clock()
            work()
            if round_ >= 2:
                times[name].append(clock() - start)
    return times


def median_ms(times: list[float]) -> float:
    return 1e3 * statistics.median(times)


def paired_ratio(slow: list[float], fast: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def backends_for(p: dict[str, Any]) -> list[str]:
    experts, x = p["experts"], p["x"]
    fits = grouped_mm_runs(x.dtype, x.device, dim=experts.dim, hidden_dim=experts.hidden_dim)
    return [*(["grouped_mm"] if fits else []), "padded", "loop"]


def dispatch(options: argparse.Namespace) -> dict[str, Any]:
    """Ours, the loop by `where`, transformers' backends and named rivals at one size."""
    dtype = getattr(torch, options.dtype)
    p = problem(STATED, dtype, options.device, 0.0, options.seed)
    matrices = p["experts"].gate_up_proj, p["experts"].down_proj
    works = {f"metier {b}": ours(p, b) for b in ("auto", *backends_for(p))}
    works["where loop"] = step_of(where_loop(*matrices), p)
    absent = dict.fromkeys(RIVALS, "not measured: name it with --rival")
    for kind in TRANSFORMERS:
        try:
            work = step_of(transformers_experts(*matrices, kind), p)
            work()
            works[f"transformers {kind}"] = work
        except (ImportError, NotImplementedError, RuntimeError, ValueError) as error:
            absent[f"transformers {kind}"] = f"not measured: {str(error).splitlines()[0][:90]}"
    for entry in options.rival:
        name, path = entry.split("=", 1)
        works[name] = step_of(loaded_rival(path).experts(*matrices), p)
        absent.pop(name, None)
    kind, clock = clock_of(options)
    times = interleaved(works, options.repeats, clock)
    own = times["metier auto"]
    rows = [("", "ms", "times metier auto")]
    rows += [(name, f"{median_ms(t):.2f}", f"{paired_ratio(t, own):.2f}") for name, t in times.items()]
    print("forward and backward, (tokens, dim, hidden, experts, k) =", STATED, options.dtype, options.device)
    print(table(rows + [(name, "-", why) for name, why in absent.items()]))
    return {
        "size": STATED,
        "clock": kind,
        "threads": torch.get_num_threads(),
        "median_ms": {name: median_ms(t) for name, t in times.items()},
        "min_ms": {name: 1e3 * min(t) for name, t in times.items()},
        "times_metier_auto": {name: paired_ratio(t, own) for name, t in times.items()},
        "target_where_loop": 4.0,
        "absent": absent,
    }


def grid(options: argparse.Namespace) -> dict[str, Any]:
    """The automatic choice against the best backend, over sizes, dtypes and balance."""
    cells, rows = [], [("size", "dtype", "balance", "auto took", "best", "taken / best", "auto / best")]
    kind, clock = clock_of(options)
    dtypes = options.dtypes.split(",")
    for name in dtypes:
        for size in GRID[: options.sizes]:
            for balance, skew in (("even", 0.0), ("skewed", 1.5)):
                p = problem(size, getattr(torch, name), options.device, skew, options.seed)
                works = {b: ours(p, b) for b in ("auto", *backends_for(p))}
                times = interleaved(works, options.repeats, clock)
                low = {b: statistics.median(t) for b, t in times.items() if b != "auto"}
                best = min(low, key=lambda b: low[b])
                sizes = {"dim": size[1], "hidden_dim": size[2]}
                took = choose_backend(make_plan(p["indices"], size[3]), p["x"].dtype, **sizes)
                # The same code runs under both names: compare the backend that auto took, not its jitter.
                cell = {
                    "size": size,
                    "dtype": name,
                    "balance": balance,
                    "took": took,
                    "best": best,
                    "took_over_best": paired_ratio(times[took], times[best]),
                    "auto_over_best": paired_ratio(times["auto"], times[best]),
                    "median_ms": {b: median_ms(t) for b, t in times.items()},
                }
                cells.append(cell)
                rows.append(
                    (
                        str(size),
                        name,
                        balance,
                        took,
                        best,
                        f"{cell['took_over_best']:.2f}",
                        f"{cell['auto_over_best']:.2f}",
                    )
                )
                print(*rows[-1], *(f"{b} {t:.2f} ms" for b, t in cell["median_ms"].items()), flush=True)
    print(table(rows))
    within = sum(cell["took_over_best"] <= 1.1 for cell in cells)
    print(f"the backend taken is within 10 % of the best in {within} of {len(cells)} cells")
    return {
        "clock": kind,
        "threads": torch.get_num_threads(),
        "cells": cells,
        "within_10_percent": within,
        "n_cells": len(cells),
        "worst": max(cell["took_over_best"] for cell in cells),
    }


class Stack(nn.Module):
    """Sparse layers between residuals; what surrounds them in a transformer would only dilute the cost."""

    def __init__(self, balancer: moe.Balancer | None, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        c = COST
        self.layers = nn.ModuleList(
            moe.SparseMoE(
                c["dim"],
                c["hidden"],
                n_experts=c["n_experts"],
                top_k=c["top_k"],
                balancer=balancer,
                device=device,
                dtype=dtype,
            )
            for _ in range(c["layers"])
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(F.layer_norm(x, x.shape[-1:]))
        return x


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """A training step of sparse layers alone, without a balancer and with each."""
    dtype = getattr(torch, options.dtype)
    x = torch.randn(COST["tokens"], COST["dim"], device=options.device, dtype=dtype)
    torch.manual_seed(options.seed)
    plain = Stack(None, options.device, dtype)
    kind, clock = clock_of(options)
    parts: dict[str, list[float]] = {}
    works: dict[str, Work] = {"no balancer": training_step(plain, None, x)}
    for name in moe.PRESETS:
        balancer = moe.balancer(name)
        model = Stack(balancer, options.device, dtype)
        model.load_state_dict(plain.state_dict())
        works[name] = training_step(model, balancer, x)
        parts[name] = [balancer_only(model, balancer, x, clock) for _ in range(options.repeats + 2)][2:]
    times = interleaved(works, options.repeats, clock)
    base = times["no balancer"]
    share = {name: statistics.median(t) / statistics.median(base) for name, t in parts.items()}
    rows = [("", "step ms", "paired ratio", "balancer's own ms", "share of the step")]
    rows.append(("no balancer", f"{median_ms(base):.2f}", "1", "-", "-"))
    rows += [
        (
            name,
            f"{median_ms(times[name]):.2f}",
            f"{paired_ratio(times[name], base):.4f}",
            f"{median_ms(parts[name]):.3f}",
            f"{100 * share[name]:.2f} %",
        )
        for name in parts
    ]
    print(COST, options.dtype, options.device)
    print(table(rows))
    return {
        **COST,
        "clock": kind,
        "threads": torch.get_num_threads(),
        "step_ms": {name: median_ms(t) for name, t in times.items()},
        "paired_ratio": {name: paired_ratio(t, base) for name, t in times.items()},
        "balancer_ms": {name: median_ms(t) for name, t in parts.items()},
        "balancer_share": share,
        "target_share": 0.02,
    }


def training_step(model: nn.Module, balancer: moe.Balancer | None, x: Tensor) -> Work:
    def work() -> None:
        model.zero_grad(set_to_none=True)
        model(x).square().mean().backward()
        if balancer is not None:
            balancer.step()
        if x.is_cuda:
            torch.cuda.synchronize()

    return work


def balancer_only(model: Stack, balancer: moe.Balancer, x: Tensor, clock: Callable[[], float]) -> float:
    """Seconds of the balancer's own work in a step: bias, observe, inject, their backward, and the update."""
    routed = []
    for layer in model.layers:
        with torch.no_grad():
            logits, scores, indices = layer.router(x)
        routed.append((layer, logits.requires_grad_(), scores.requires_grad_(), indices))
    start = clock()
    outputs = []
    for layer, logits, scores, indices in routed:
        balancer.bias(layer.layer_name)
        aux = balancer.observe(
            layer.layer_name,
            logits,
            indices=indices,
            scores=layer.router.selection_scores(logits.detach()),
        )
        outputs.append(balancer.inject(scores, aux))
    torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
    balancer.step()
    if x.is_cuda:
        torch.cuda.synchronize()
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=("dispatch", "grid", "cost"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16", "float64"))
    parser.add_argument("--dtypes", default="float32,bfloat16,float64", help="of the grid")
    parser.add_argument("--rival", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--sizes", type=int, default=len(GRID), help="of the grid, the first ones")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {"dispatch": dispatch, "grid": grid, "cost": cost}[options.mode](options)
    name = f"moe-{options.mode}"
    if options.device != "cpu":
        name += f"-{options.device}"
    if options.mode != "grid" and options.dtype != "float32":
        name += f"-{options.dtype}"
    print("wrote", write(name, result, seed=options.seed).name)


if __name__ == "__main__":
    main()
