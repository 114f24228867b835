"""Train one small language model under one balancer, and measure it on held-out documents."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from metier import moe
from metier.core import derive, information
from metier.core.extras import naming_extras
from metier_studies.lib.one_thread import one_thread
from metier_studies.moe_balancing.arms import extra_loss, make_balancer, prepare, sparse_layers
from metier_studies.moe_balancing.corpus import Corpus, Windows, batches, evaluation_windows, load_corpus
from metier_studies.moe_balancing.model import SparseLanguageModel

with naming_extras():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F


EVALUATION_ROWS = 48
TAIL = 0.2
"""Share of the steps, the last ones, over which the batch load is averaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all trainings of a run share.

    Args:
        seed: of the run; fixes which documents are held out.
        domains, characters: of the corpus, per domain.
        dim, heads, layers, hidden, n_experts, top_k, length, buckets: of the model.
        rows: windows of a batch.
        learning_rate, weight_decay: of AdamW; the embedding tables are not decayed.
        windows: held-out windows per domain.
        permutations: of the information's null.
    """

    seed: int
    domains: tuple[str, ...]
    characters: int
    dim: int
    heads: int
    layers: int
    hidden: int
    n_experts: int
    top_k: int
    length: int
    buckets: int
    rows: int
    learning_rate: float
    weight_decay: float
    windows: int
    permutations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training: who balances how strongly, on which stream, for how long.

    Args:
        arm, strength: of `ARMS`.
        replicate: seed of initialization and batches; the same for all arms, so that they are paired.
        pure: whether every batch comes from one domain.
        steps: optimizer steps.
        split: held-out documents that are measured, "tune" or "val".
        setup: what all share.
    """

    arm: str
    strength: float | None
    replicate: int
    pure: bool
    steps: int
    split: str
    setup: Setup


@one_thread()
def train(task: Training) -> dict[str, Any]:
    """Train and measure; the same task gives the same numbers."""
    model, tail = fit(task)
    return {**measure(model, held_out(task.setup, task.split), task.setup), "batch_max_vio": tail}


@lru_cache(maxsize=2)
def corpus_of(seed: int, domains: tuple[str, ...], characters: int) -> Corpus:
    """The corpus of a run; its division depends on the run's seed alone."""
    return load_corpus(domains, characters=characters, rng=derive(seed, "moe-balancing", "documents"))


def held_out(setup: Setup, split: str) -> Windows:
    """Windows of the documents of a split."""
    corpus = corpus_of(setup.seed, setup.domains, setup.characters)
    return evaluation_windows(corpus.splits[split], length=setup.length, per_domain=setup.windows)


def build(task: Training) -> tuple[SparseLanguageModel, moe.Balancer | None]:
    """The untrained model of a task; all arms of a replicate start alike."""
    s = task.setup
    balancer = make_balancer(task.arm, task.strength)
    seed = int(derive(s.seed, "moe-balancing", "weights", task.replicate).integers(2**31))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SparseLanguageModel(
            dim=s.dim,
            heads=s.heads,
            layers=s.layers,
            hidden=s.hidden,
            n_experts=s.n_experts,
            top_k=s.top_k,
            length=s.length,
            buckets=s.buckets,
            balancer=balancer,
        )
        prepare(model, task.arm, task.strength)
    return model, balancer


def fit(task: Training) -> tuple[SparseLanguageModel, float]:
    """Train; return the model and the mean MaxVio of the last batches."""
    s = task.setup
    model, balancer = build(task)
    optimizer = optimizer_of(model, s)
    corpus = corpus_of(s.seed, s.domains, s.characters)
    rng = derive(s.seed, "moe-balancing", "batches", task.replicate)
    stream = batches(
        corpus.splits["train"], rows=s.rows, length=s.length, steps=task.steps, pure=task.pure, rng=rng
    )
    uneven = []
    with counting(model) as loads:
        for step, (windows, _) in enumerate(stream):
            rate = s.learning_rate * schedule(step, task.steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = byte_losses(model, torch.from_numpy(windows)).mean()
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss + extra_loss(model, task.arm, task.strength))
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if balancer is not None:
                balancer.step()
            if step >= min((1 - TAIL) * task.steps, task.steps - 1):
                uneven.append(moe.routing_metrics(loads.take()).mean["max_vio"])
            else:
                loads.take()
    return model, float(np.mean(uneven))


def optimizer_of(model: nn.Module, setup: Setup) -> torch.optim.AdamW:
    """AdamW that decays everything but the embedding tables."""
    tables = [p for name, p in model.named_parameters() if name.startswith("embedding")]
    rest = [p for name, p in model.named_parameters() if not name.startswith("embedding")]
    groups = [
        {"params": rest, "weight_decay": setup.weight_decay},
        {"params": tables, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=setup.learning_rate, betas=(0.9, 0.98))


def schedule(step: int, steps: int) -> float:
    """A short warm-up, then constant, then linear to zero over the second half."""
    warm = min(1.0, (step + 1) / max(1, min(40, steps // 10)))
    return warm * min(1.0, max(0.02, 2.0 * (steps - step) / steps))


def byte_losses(model: nn.Module, windows: Tensor) -> Tensor:
    """(B, T) cross entropy of every byte after the first of (B, T + 1) windows, in nats."""
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none").view(
        windows.shape[0], -1
    )


class counting:  # noqa: N801
    """Watch the routers of a model: counts per layer, and the ids where asked for."""

    def __init__(self, model: nn.Module, *, keep: bool = False) -> None:
        self.layers = list(sparse_layers(model))
        self.keep = keep
        self.counts = [torch.zeros(layer.router.n_experts, dtype=torch.int64) for layer in self.layers]
        self.ids: list[list[Tensor]] = [[] for _ in self.layers]

    def __enter__(self) -> counting:
        self.hooks = [
            layer.router.register_forward_hook(self._hook(i)) for i, layer in enumerate(self.layers)
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _hook(self, i: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: moe.Routing) -> None:
            indices = output[2]
            self.counts[i] += torch.bincount(indices.flatten(), minlength=self.counts[i].numel())
            if self.keep:
                self.ids[i].append(indices)

        return hook

    def take(self) -> np.ndarray:
        """(L, E) counts since the last call."""
        counts = torch.stack(self.counts).numpy()
        for row in self.counts:
            row.zero_()
        return counts


@torch.no_grad()
def measure(model: SparseLanguageModel, windows: Windows, setup: Setup) -> dict[str, Any]:
    """Loss by domain and document, evenness over all windows, information given the byte."""
    model.eval()
    tokens = torch.from_numpy(windows.tokens)
    with counting(model, keep=True) as loads:
        losses = torch.cat([byte_losses(model, part) for part in torch.split(tokens, EVALUATION_ROWS)])
        counts = loads.take()
        ids = [torch.cat(layer) for layer in loads.ids]
    per_window = losses.mean(1).double().numpy()
    figures = moe.routing_metrics(counts)
    return {
        "loss": float(per_window.mean()),
        "domain_loss": [
            float(per_window[windows.domains == d].mean()) for d in range(int(windows.domains.max()) + 1)
        ],
        "max_vio": figures.mean["max_vio"],
        "gini": figures.mean["gini"],
        "dead": float(sum(figures.dead)),
        "counts": counts,
        "by_domain": _composition(ids[len(ids) // 2], windows, setup),
        **_information(ids, windows, setup),
    }


def _composition(ids: Tensor, windows: Windows, setup: Setup) -> np.ndarray:
    """(D, E) share of each expert in each domain's choices."""
    domains = np.repeat(windows.domains, setup.length)
    table = np.zeros((int(domains.max()) + 1, setup.n_experts))
    for choice in ids.numpy().T:
        np.add.at(table, (domains, choice), 1.0)
    shares: np.ndarray = table / table.sum(axis=1, keepdims=True)
    return shares


def _information(ids: list[Tensor], windows: Windows, setup: Setup) -> dict[str, Any]:
    """I(domain; expert | byte) of every layer above its null of permuted documents, averaged."""
    every = np.repeat(windows.domains, setup.length)
    documents = np.repeat(windows.documents, setup.length)
    given = windows.tokens[:, :-1].reshape(-1)
    found = []
    for layer in ids:
        chosen = np.zeros((layer.shape[0], setup.n_experts))
        np.put_along_axis(chosen, layer.numpy(), 1.0 / layer.shape[1], axis=1)
        rng = derive(setup.seed, "moe-balancing", "null")
        found.append(
            information(
                every, chosen, given=given, groups=documents, permutations=setup.permutations, rng=rng
            )
        )
    return {
        "information": float(np.mean([layer.value for layer in found])),
        "null": float(np.mean([layer.null_mean for layer in found])),
        "null_p": float(np.max([layer.p_value for layer in found])),
    }
