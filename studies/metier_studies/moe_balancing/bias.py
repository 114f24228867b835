"""At fixed weights: how far the expected balancing gradient of a batch is from that of all tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import derive
from metier.core.extras import naming_extras
from metier_studies.lib.one_thread import one_thread
from metier_studies.moe_balancing.arms import sparse_layers
from metier_studies.moe_balancing.train import Setup, Training, fit, held_out

with naming_extras():
    import torch


Floats = NDArray[np.float64]
WEIGHT_NEW = 0.05
WARM_UP = 60
KINDS = ("minibatch", "paper", "lagged", "switch")
"""Entropy price of the batch itself; of a memory with this batch; of a memory before it; Switch's loads."""


def bias_curves(
    setup: Setup, *, steps: int, sizes: tuple[int, ...], n_batches: int
) -> dict[str, dict[str, list[float]]]:
    """Relative bias by stream ("mixed" or "pure" batches), estimator and batch size.

    One model is trained without a balancer; the router of its middle layer and the held-out tokens that reach
    it are then fixed. Mixed batches draw tokens from all domains; pure ones a stretch of one domain's.

    Args:
        setup: of the study.
        steps: of the training.
        sizes: tokens per batch.
        n_batches: batches that each expectation averages over.
    """
    task = Training(arm="none", strength=None, replicate=0, pure=False, steps=steps, split="val", setup=setup)
    with one_thread():
        x, p, domains = _routed(task)
    found: dict[str, dict[str, list[float]]] = {}
    for stream in ("mixed", "pure"):
        found[stream] = {kind: [] for kind in KINDS}
        for size in sizes:
            rng = derive(setup.seed, "moe-balancing", "bias", stream, size)
            errors = _biases(x, p, setup.top_k, _drawn(stream, domains, size, n_batches, rng))
            for kind in KINDS:
                found[stream][kind].append(errors[kind])
    return found


def _routed(task: Training) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Inputs and gate values of the middle router on held-out tokens, and their domains."""
    model, _ = fit(task)
    model.eval()
    windows = held_out(task.setup, task.split)
    router = list(sparse_layers(model))[task.setup.layers // 2].router
    seen: list[Any] = []
    hook = router.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output[0])))
    with torch.no_grad():
        model(torch.from_numpy(windows.tokens[:, :-1]))
    hook.remove()
    x, logits = seen[0]
    domains = np.repeat(windows.domains, task.setup.length)
    return x.double().numpy(), logits.double().softmax(-1).numpy(), domains


def _drawn(
    stream: str, domains: NDArray[np.int64], size: int, n_batches: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    places = [np.flatnonzero(domains == d) for d in range(int(domains.max()) + 1)]
    for _ in range(n_batches + WARM_UP):
        if stream == "mixed":
            yield rng.integers(domains.size, size=size)
        else:
            own = places[int(rng.integers(len(places)))]
            start = int(rng.integers(own.size))
            yield own[(start + np.arange(size)) % own.size]


def _biases(x: Floats, p: Floats, top_k: int, batches: Iterator[NDArray[np.int64]]) -> dict[str, float]:
    hard = np.zeros_like(p)
    np.put_along_axis(hard, np.argsort(-p, axis=1)[:, :top_k], 1.0 / top_k, axis=1)
    n_experts = p.shape[1]
    price: dict[str, Callable[[Floats], Floats]] = {
        "entropy": lambda m: np.log(np.maximum(n_experts * m, 1e-6)),
        "switch": lambda f: n_experts * f,
    }
    sums = {kind: np.zeros((n_experts, x.shape[1])) for kind in KINDS}
    entropy, switch = price["entropy"](p.mean(axis=0)), price["switch"](hard.mean(axis=0))
    memory, used = p.mean(axis=0), 0
    for step, batch in enumerate(batches):
        mean = p[batch].mean(axis=0)
        after = (1 - WEIGHT_NEW) * memory + WEIGHT_NEW * mean
        if step >= WARM_UP:
            used += 1
            # The true price gives the true gradient on average: its noise is subtracted.
            prices = {
                "minibatch": price["entropy"](mean) - entropy,
                "paper": price["entropy"](after) - entropy,
                "lagged": price["entropy"](memory) - entropy,
                "switch": price["switch"](hard[batch].mean(axis=0)) - switch,
            }
            for kind, q in prices.items():
                sums[kind] += _gradient(q, x[batch], p[batch])
        memory = after
    true = {"entropy": _gradient(entropy, x, p), "switch": _gradient(switch, x, p)}
    return {
        kind: _relative(sums[kind] / used, true["switch" if kind == "switch" else "entropy"])
        for kind in KINDS
    }


def _gradient(price: Floats, x: Floats, p: Floats) -> Floats:
    """The gradient of sum_e q_e mean_n p_ne with respect to the router's weight, (E, D)."""
    slope = p * (price - (p @ price)[:, None])
    result: Floats = slope.T @ x / x.shape[0]
    return result


def _relative(difference: Floats, true: Floats) -> float:
    return float(np.linalg.norm(difference) / np.linalg.norm(true))
