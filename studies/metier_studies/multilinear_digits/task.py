"""One training of the study: images, a residual classifier around a block, and what its experts know."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier import data, moe
from metier.core import Assignment, derive, derive_seed
from metier.core.extras import naming_extras
from metier_studies.lib.one_thread import one_thread
from metier_studies.moe_balancing.train import schedule
from metier_studies.multilinear_digits.arms import ARMS, build, reproducible

with naming_extras():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F


SHARES = {"test": 0.3, "tune": 0.15}
"""Held-out shares of the images; the rest is trained on."""
GROUPS = 8
"""Experts are removed in this many groups of equal load, so that layers of any number of experts compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all trainings share.

    Args:
        seed: of the run; fixes the held-out images.
        images: source, as in `data.load_images`.
        side: larger images are shrunk to this height and width.
        rows: images that are used, at most.
        dim, hidden: of the dense block that sets the budget.
        batch, steps, weight_decay: of training.
        permutations: of the null of information.
    """

    seed: int
    images: str
    side: int
    rows: int
    dim: int
    hidden: int
    batch: int
    steps: int
    weight_decay: float
    permutations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training of the block `arm` at `size`, judged on the images of `split`."""

    arm: str
    size: int
    replicate: int
    learning_rate: float
    split: str
    setup: Setup


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Pixels (n, I), standardized by the training part, and classes (n,)."""

    x: Tensor
    y: Tensor


@lru_cache(maxsize=2)
def prepared(setup: Setup) -> tuple[dict[str, Split], data.ImageData]:
    """The images, dealt into "train", "tune" and "test"."""
    found = data.load_images(setup.images, side=setup.side)
    rng = derive(setup.seed, "multilinear-digits", "split")
    order = rng.permutation(len(found.labels))[: setup.rows]
    found = found.take(order)
    pixels = found.images.reshape(len(order), -1)
    parts, start = {}, 0
    for name, share in SHARES.items():
        stop = start + int(share * len(order))
        parts[name], start = np.arange(start, stop), stop
    parts["train"] = np.arange(start, len(order))
    mean, sd = pixels[parts["train"]].mean(0), pixels[parts["train"]].std()
    splits = {
        name: Split(
            torch.from_numpy((pixels[rows] - mean) / sd).float(), torch.from_numpy(found.labels[rows])
        )
        for name, rows in parts.items()
    }
    return splits, found


class Classifier(nn.Module):
    """logits = head(h + block(norm(h))), h = stem(x): all arms differ in the block alone."""

    def __init__(self, features: int, dim: int, n_classes: int, block: nn.Module) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(features, dim), nn.LayerNorm(dim)
        self.block, self.head = block, nn.Linear(dim, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features) pixels -> (B, classes) logits."""
        h = self.stem(x)
        logits: Tensor = self.head(h + self.block(self.norm(h)))
        return logits

    def seen(self, x: Tensor) -> Tensor:
        """What the block sees of the images."""
        normed: Tensor = self.norm(self.stem(x))
        return normed


def classifier(task: Training, features: int, n_classes: int) -> Classifier:
    """The untrained classifier; stem and head of a replicate are the same for all arms."""
    s = task.setup
    seed = derive_seed(s.seed, "multilinear-digits", "weights", task.replicate)
    block = reproducible(
        seed, lambda: build(ARMS[task.arm], dim=s.dim, hidden=s.hidden, size=task.size, rng=seed)
    )
    made = reproducible(seed + 1, lambda: Classifier(features, s.dim, n_classes, block))
    assert isinstance(made, Classifier)
    return made


@one_thread()
def train(task: Training) -> dict[str, Any]:
    """Train one block and measure it on held-out images."""
    return measure(fit(task), task)


def fit(task: Training) -> Classifier:
    """Train; batches of a replicate are the same for all arms."""
    s = task.setup
    splits, found = prepared(s)
    part = splits["train"]
    model = classifier(task, part.x.shape[1], len(found.classes))
    balancer = model.block.balancer if isinstance(model.block, moe.SparseMoE) else None
    groups = moe.decay_groups(model, weight_decay=s.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=task.learning_rate)
    rng = derive(s.seed, "multilinear-digits", "batches", task.replicate)
    for step in range(s.steps):
        rows = torch.from_numpy(rng.integers(len(part.y), size=s.batch))
        for group in optimizer.param_groups:
            group["lr"] = task.learning_rate * schedule(step, s.steps)
        loss = F.cross_entropy(model(part.x[rows]), part.y[rows])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if balancer is not None:
            balancer.step()
    return model.eval()


@torch.no_grad()
def measure(model: Classifier, task: Training) -> dict[str, Any]:
    """Loss and error on the split, and what experts tell about the class."""
    splits, _ = prepared(task.setup)
    part = splits[task.split]
    logits = model(part.x)
    figures: dict[str, Any] = {
        "loss": float(F.cross_entropy(logits, part.y)),
        "error": float((logits.argmax(1) != part.y).double().mean()),
    }
    if task.split == "test" and task.arm not in ("dense", "low_rank"):
        figures |= specialization(model, part, task)
    return figures


def gate_weights(model: Classifier, x: Tensor) -> NDArray[np.float64]:
    """(n, N) weights of the experts for images, rows summing to 1."""
    seen = model.seen(x)
    if isinstance(model.block, moe.SparseMoE):
        _, scores, indices = model.block.router(seen)
        dense = scores.new_zeros(len(x), model.block.experts.n_experts).scatter(1, indices, scores)
    else:
        dense = model.block.gate_values(seen)  # type: ignore[operator]
    weights: NDArray[np.float64] = dense.detach().double().numpy()
    weights /= weights.sum(1, keepdims=True)
    return weights


def specialization(model: Classifier, part: Split, task: Training) -> dict[str, Any]:
    """Who does the work, and what that tells about the class, beside its null."""
    weights = gate_weights(model, part.x)
    work = Assignment.from_weights(weights)
    classes = part.y.numpy()
    told = moe.inspect.class_information(weights, classes, permutations=task.setup.permutations, rng=0)
    figures: dict[str, Any] = {
        "information": told.value,
        "null": told.null_mean,
        "p_value": told.p_value,
        "ceiling": told.ceiling,
        "breadth": work.breadth,
        "indecision": work.indecision,
        "dead": int((weights.max(0) <= 1e-6).sum()),
        "support": float((weights > 0).sum(1).mean()),
        "load": work.load.tolist() if work.load.size <= 64 else [],
    }
    if isinstance(model.block, moe.MultilinearMLP):
        figures["removal"] = _removal(model, part, work.load)
    return figures


def _removal(model: Classifier, part: Split, load: NDArray[np.float64]) -> dict[str, float]:
    groups = moe.inspect.mass_matched_groups(load, min(GROUPS, load.size))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the median expert flips")  # the table has the flips
        report = moe.inspect.polysemanticity(
            model.block,  # type: ignore[arg-type]
            lambda: model(part.x).log_softmax(1),
            part.y.numpy(),
            experts=groups,
            samples=50,
        )
    return {
        "polysemanticity": report.mean,
        "null": report.null_mean,
        "flips": report.median_flips,
        "affected": float(report.affected),
    }
