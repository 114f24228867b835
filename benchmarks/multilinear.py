"""Time multilinear experts: the gate beside the entmax package and softmax, layers, hierarchies, memory.

    python benchmarks/multilinear.py entmax
    python benchmarks/multilinear.py layer
    python benchmarks/multilinear.py hierarchy
    python benchmarks/multilinear.py memory
    python benchmarks/multilinear.py all --device cuda

All rivals of a table run in turn in this one process with the same number of threads. Each mode prints a
table and writes benchmarks/results/multilinear-MODE.json (-cuda on a GPU, with its name in the result).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import entmax as package
import torch
from torch import Tensor, nn

from metier import moe
from multilinear_rivals import SortedCP, entmax15_by_sorting
from record import in_turn, ratio, table, write

ROWS = 2048
"""Tokens of a batch; long enough that calls are not overhead, short enough for a laptop's memory."""


def synchronized(fn: Callable[[], Any], device: str) -> Callable[[], Any]:
    """Wait for the GPU before the clock stops."""
    if device == "cpu":
        return fn

    def run() -> None:
        fn()
        torch.cuda.synchronize()

    return run


def forward_and_backward(fn: Callable[[Tensor], Tensor], x: Tensor, device: str) -> Callable[[], Any]:
    with torch.no_grad():
        grad = torch.randn_like(fn(x))

    def run() -> None:
        v = x.detach().requires_grad_()
        fn(v).backward(grad)

    return synchronized(run, device)


def forward_only(fn: Callable[[Tensor], Tensor], x: Tensor, device: str) -> Callable[[], Any]:
    def run() -> None:
        with torch.no_grad():
            fn(x)

    return synchronized(run, device)


def times_table(title: str, times: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Print one table and return its numbers."""
    print(f"\n{title}")
    ratios = {name: ratio(times, name) for name in times if name != "metier"}
    lines = [("", "wall ms", "min CPU ms", "times metier", "by CPU minima")]
    for name, t in times.items():
        r = ratios.get(name)
        cells = (f"{r['wall_median']:.2f}", f"{r['cpu_min']:.2f}") if r else ("1", "1")
        lines.append((name, f"{1e3 * t['wall_median']:.2f}", f"{1e3 * t['cpu_min']:.2f}", *cells))
    print(table(lines))
    seconds = {
        name: {key: t[key] for key in ("wall_median", "wall_min", "cpu_median", "cpu_min")}
        for name, t in times.items()
    }
    return {"seconds": seconds, "times_metier": ratios}


def entmax(options: argparse.Namespace) -> dict[str, Any]:
    """Forward and backward of the gate's map on logits of unit variance, as layer norm gives them."""
    result: dict[str, Any] = {"rows": ROWS}
    for n in (256, 512, 1024, 2048):
        x = torch.randn(ROWS, n, generator=torch.Generator().manual_seed(options.seed)).to(options.device)
        exact = entmax15_by_sorting(x.double())
        error = float((moe.entmax15(x) - exact).abs().max() / exact.max())
        assert error <= 1e-6, error
        rivals = {
            "metier": moe.entmax15,
            "entmax package": lambda v: package.entmax15(v, dim=-1),
            "entmax bisection": lambda v: package.entmax_bisect(v, alpha=1.5, dim=-1),
            "softmax": lambda v: torch.softmax(v, dim=-1),
        }
        runs = {name: forward_and_backward(fn, x, options.device) for name, fn in rivals.items()}
        times = in_turn(runs, options.repeats)
        result[str(n)] = times_table(f"entmax-1.5, {ROWS} x {n}, forward + backward", times)
        result[str(n)]["largest_relative_error"] = error
    return result


def sized(n: int) -> tuple[int, int, int]:
    """Return I, O and a CP rank whose factors hold the parameters of the dense layer."""
    return 768, 1000, 768 * 1000 // (768 + 1000 + n)


def layer(options: argparse.Namespace) -> dict[str, Any]:
    """A CP layer beside one that sorts, with the same weights, and beside the dense layer."""
    result: dict[str, Any] = {"rows": ROWS}
    for n in (256, 2048):
        i, o, rank = sized(n)
        ours = moe.MultilinearMoE(i, o, n_experts=n, rank=rank, rng=options.seed).to(options.device)
        theirs, dense = SortedCP(ours).to(options.device), nn.Linear(i, o).to(options.device)
        x = torch.randn(ROWS, i, generator=torch.Generator().manual_seed(1)).to(options.device)
        with torch.no_grad():
            difference = float((ours(x) - theirs(x)).norm() / theirs(x).norm())
        assert difference <= 1e-4, difference
        modules = {"metier": ours, "sorting reference": theirs, "nn.Linear": dense}
        result[str(n)] = {"rank": rank, "relative_difference": difference}
        for kind, run in (("forward", forward_only), ("forward + backward", forward_and_backward)):
            times = in_turn({k: run(m, x, options.device) for k, m in modules.items()}, options.repeats)
            title = f"CP layer {i} -> {o}, N = {n}, R = {rank}, {ROWS} rows, {kind}"
            result[str(n)][kind] = times_table(title, times)
    return result


def hierarchy(options: argparse.Namespace) -> dict[str, Any]:
    """4,096 experts in two modes of 64 beside 64 experts and beside 4,096 in one mode, at one rank."""
    i, o, rank = 768, 768, 368
    x = torch.randn(ROWS, i, generator=torch.Generator().manual_seed(1)).to(options.device)
    make = lambda n: moe.MultilinearMoE(i, o, n_experts=n, rank=rank, rng=0).to(options.device)  # noqa: E731
    modules = {"metier": make((64, 64)), "64 experts": make(64), "4096 in one mode": make(4096)}
    result: dict[str, Any] = {"rows": ROWS, "rank": rank}
    for kind, run in (("forward", forward_only), ("forward + backward", forward_and_backward)):
        times = in_turn({k: run(m, x, options.device) for k, m in modules.items()}, options.repeats)
        result[kind] = times_table(f"64 x 64 experts (metier), CP {i} -> {o}, R = {rank}, {kind}", times)
        result[kind]["times_64"] = 1 / result[kind]["times_metier"]["64 experts"]["wall_median"]
        print(f"64 x 64 experts take {result[kind]['times_64']:.2f} times as long as 64")
    return result


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Bytes kept for the backward pass, inputs and parameters excluded, per row."""
    result: dict[str, Any] = {"rows": ROWS}
    lines = [("", "bytes a row", "times nn.Linear with its output")]
    for n in (64, 256, 2048):
        i, o, rank = sized(n)
        ours = moe.MultilinearMoE(i, o, n_experts=n, rank=rank).to(options.device)
        x = torch.randn(ROWS, i, device=options.device)
        counts = {"metier": moe.activation_bytes(ours, x), "sorting reference": None}
        counts["sorting reference"] = moe.activation_bytes(SortedCP(ours).to(options.device), x)
        assert counts["metier"] == 4 * ROWS * moe.cost_of(ours).saved
        # A dense layer keeps its input and gives its output: what any layer in its place has too.
        dense = 4 * (i + o)
        result[str(n)] = {name: value / ROWS for name, value in counts.items()} | {"dense_in_and_out": dense}
        for name, value in counts.items():
            share = (dense + value / ROWS) / dense
            lines.append((f"{name}, N = {n}", f"{value / ROWS:.0f}", f"{share:.2f}"))
    print(table(lines))
    return result


MODES = {"entmax": entmax, "layer": layer, "hierarchy": hierarchy, "memory": memory}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=[*MODES, "all"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in MODES if options.mode == "all" else [options.mode]:
        result = MODES[name](options)
        where = "CPU" if options.device == "cpu" else torch.cuda.get_device_name()
        suffix = "" if options.device == "cpu" else "-cuda"
        circumstances = {"device": where, "threads": options.threads, "torch": torch.__version__}
        print(
            "written to", write(f"multilinear-{name}{suffix}", {**circumstances, **result}, seed=options.seed)
        )


if __name__ == "__main__":
    main()
