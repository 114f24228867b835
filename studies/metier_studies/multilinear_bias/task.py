"""One replicate: images with a planted shortcut, a multilinear head, and three ways to mend its bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier import data, moe
from metier.core import derive, derive_seed, specialize_or_fall_back
from metier.core.extras import naming_extras
from metier_studies.lib.one_thread import one_thread

with naming_extras():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F


SHARES = {"test": 0.3, "tune": 0.2}
"""Held-out shares of the images; the rest is trained on."""
TARGET = 0
"""The attribute that the mark is tied to."""
ATTRIBUTES: tuple[tuple[str, Callable[[NDArray[np.int64], int], NDArray[np.bool_]]], ...] = (
    ("class in the upper half", lambda c, n: c >= n / 2),
    ("class of an even number", lambda c, n: c % 2 == 0),
    ("class number divisible by three", lambda c, n: c % 3 == 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all replicates share.

    Args:
        seed: of the run; fixes the held-out images.
        images, side, rows: source, largest height and width, and number of images.
        marked_negative, marked_positive: share of training images with the mark among those without and with
            the target attribute; few of the second are the sub-population.
        dim: width of the features that the head sees.
        n_experts, rank: of the head.
        batch, steps, learning_rate, weight_decay: of training.
        powers: of re-weighting; cells of attribute and mark count frequency ** -power.
        grid: number of amounts that both thresholdings choose from.
        largest: the largest amount, in logits.
        slack: accuracy that a mended model may lose on the tuning images.
        margin: error rate that the others may lose before an edit is taken back.
    """

    seed: int
    images: str
    side: int
    rows: int
    marked_negative: float
    marked_positive: float
    dim: int
    n_experts: int
    rank: int
    batch: int
    steps: int
    learning_rate: float
    weight_decay: float
    powers: tuple[float, ...]
    grid: int
    largest: float
    slack: float
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """One replicate: its marks, weights and batches."""

    number: int
    setup: Setup


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Images (n, I), attributes (n, K), marks (n,), and the weight of each row under the training law."""

    x: Tensor
    y: Tensor
    marked: Tensor
    weight: NDArray[np.float64]


@lru_cache(maxsize=2)
def source(setup: Setup) -> tuple[data.ImageData, dict[str, NDArray[np.int64]]]:
    """The images and their parts."""
    found = data.load_images(setup.images, side=setup.side)
    rng = derive(setup.seed, "multilinear-bias", "split")
    found = found.take(rng.permutation(len(found.labels))[: setup.rows])
    rows, parts = np.arange(len(found.labels)), {}
    for name, share in SHARES.items():
        count = int(share * len(found.labels))
        parts[name], rows = rows[:count], rows[count:]
    return found, {**parts, "train": rows}


def marked_images(images: NDArray[np.float32], marked: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Paint a bright bar at the left edge of the marked images: an eighth of their width."""
    painted = images.copy()
    painted[marked, :, : max(1, images.shape[2] // 8)] = 1.0
    return painted


def dealt(task: Replicate) -> dict[str, Part]:
    """Training images with marks by the biased law; held-out images each without and with the mark."""
    s = task.setup
    found, rows = source(s)
    rng = derive(s.seed, "multilinear-bias", "marks", task.number)
    scale = found.images[rows["train"]]
    mean, sd = float(scale.mean()), float(scale.std())
    parts = {}
    for name, own in rows.items():
        labels = found.labels[own]
        y = np.stack([rule(labels, len(found.classes)) for _, rule in ATTRIBUTES], axis=1)
        share = np.where(y[:, TARGET], s.marked_positive, s.marked_negative)
        if name == "train":
            marked, images = rng.random(len(own)) < share, found.images[own]
            weight = np.full(len(own), 1.0 / len(own))
        else:
            marked = np.repeat([False, True], len(own))
            images, y = np.concatenate([found.images[own]] * 2), np.concatenate([y, y])
            weight = np.concatenate([1 - share, share]) / len(own)
        x = (marked_images(images, marked).reshape(len(marked), -1) - mean) / sd
        parts[name] = Part(
            torch.from_numpy(x).float(), torch.from_numpy(y).float(), torch.from_numpy(marked), weight
        )
    return parts


def network(task: Replicate, features: int) -> nn.Sequential:
    """A hidden layer and a multilinear head with one logit per attribute."""
    s = task.setup
    seed = derive_seed(s.seed, "multilinear-bias", "weights", task.number)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = nn.Sequential(nn.Linear(features, s.dim), nn.GELU(), nn.LayerNorm(s.dim))
    head = moe.MultilinearMoE(s.dim, len(ATTRIBUTES), n_experts=s.n_experts, rank=s.rank, rng=seed)
    return nn.Sequential(trunk, head)


def fit(task: Replicate, part: Part, *, power: float) -> nn.Sequential:
    """Train; with power 0 all images count the same, with 1 all four cells of attribute and mark do."""
    s = task.setup
    model = network(task, part.x.shape[1])
    cell = (2 * part.y[:, TARGET] + part.marked).long()
    counts = torch.bincount(cell, minlength=4).clamp_min(1).float()
    weight = counts[cell] ** -power
    weight = weight / weight.mean()
    optimizer = torch.optim.AdamW(moe.decay_groups(model, weight_decay=s.weight_decay), lr=s.learning_rate)
    rng = derive(s.seed, "multilinear-bias", "batches", task.number)
    for step in range(s.steps):
        rows = torch.from_numpy(rng.integers(len(part.y), size=s.batch))
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * (1.0 - step / s.steps)
        losses = F.binary_cross_entropy_with_logits(model(part.x[rows]), part.y[rows], reduction="none")
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward((weight[rows] * losses.sum(1)).mean())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def judged(logits: Tensor, part: Part) -> dict[str, float]:
    """Accuracy under the training law, and fairness between marked and unmarked images.

    Every held-out image is there with and without the mark, so that the groups differ in nothing else.
    """
    truth = part.y[:, TARGET].numpy() > 0.5
    guess = logits[:, TARGET].numpy() > 0
    marked = part.marked.numpy()
    by_mark = moe.group_fairness(truth, guess, marked, positive=True)
    cells = moe.group_fairness(truth, guess, 2 * truth + marked, positive=True)
    return {
        "accuracy": float(((truth == guess) * part.weight).sum() / part.weight.sum()),
        "gap": by_mark.opportunity_gap,
        "spread": cells.accuracy_spread,
        "worst": cells.worst_accuracy,
    }


@torch.no_grad()
def shifted(model: nn.Sequential, part: Part, profile: Tensor, amount: float) -> Tensor:
    """Logits with the target's thresholded by the profile; a profile of ones is the blind threshold."""
    with moe.thresholded(model[1], profile, output=TARGET, amount=amount):  # type: ignore[arg-type]
        logits: Tensor = model(part.x)
    return logits


def chosen(trials: list[dict[str, float]], *, least: float) -> int:
    """The trial with the least gap among those that are accurate enough; the first is the model as it was.

    Example:
        >>> trials = [{"accuracy": a, "gap": g} for a, g in ((0.9, 0.4), (0.9, 0.2), (0.8, 0.0))]
        >>> chosen(trials, least=0.89)
        1
    """
    allowed = [i for i, trial in enumerate(trials) if i == 0 or trial["accuracy"] >= least]
    return min(allowed, key=lambda i: trials[i]["gap"])


@torch.no_grad()
def _logits(model: nn.Sequential, part: Part) -> Tensor:
    found: Tensor = model(part.x)
    return found


@one_thread()
def run_replicate(task: Replicate) -> dict[str, Any]:
    """Train, mend in three ways at matched accuracy, and measure on the test images."""
    s = task.setup
    parts = dealt(task)
    train, tune, test = parts["train"], parts["tune"], parts["test"]
    model = fit(task, train, power=0.0)
    before = judged(_logits(model, tune), tune)
    least = before["accuracy"] - s.slack
    rare = (train.y[:, TARGET] > 0.5) & train.marked
    found: dict[str, Any] = {
        "none": judged(_logits(model, test), test),
        "rare": int(rare.sum()),
        "strength": {},
        "kept": {},
    }
    for name, profile in profiles(model, train, rare).items():
        # An amount is what the rare images' logits move by on average, for both thresholds.
        unit = float(_gain(model, train.x[rare], profile))
        amounts = [s.largest * i / (s.grid - 1) for i in range(s.grid)]
        trials = [judged(shifted(model, tune, profile, amount / unit), tune) for amount in amounts]
        best = chosen(trials, least=least)
        found["strength"][name] = amounts[best]
        found["kept"][name] = harmless(model, tune, profile, amounts[best] / unit, margin=s.margin)
        found[name] = judged(shifted(model, test, profile, amounts[best] / unit), test)
    models = [model, *(fit(task, train, power=power) for power in s.powers)]
    best = chosen([judged(_logits(m, tune), tune) for m in models], least=least)
    found["strength"]["weights"] = (0.0, *s.powers)[best]
    found["weights"] = judged(_logits(models[best], test), test)
    return found


def profiles(model: nn.Sequential, train: Part, rare: Tensor) -> dict[str, Tensor]:
    """What thresholds look at: the mean coefficients of the sub-population, and the blind one's ones."""
    with torch.no_grad():
        seen = model[0](train.x[rare])
    profile = moe.expert_profile(model[1], seen)  # type: ignore[arg-type]
    return {"experts": profile, "blind": torch.ones_like(profile)}


@torch.no_grad()
def _gain(model: nn.Sequential, x: Tensor, profile: Tensor) -> Tensor:
    values: Tensor = model[1].gate_values(model[0](x))  # type: ignore[operator]
    return (values @ profile).mean()


def harmless(model: nn.Sequential, part: Part, profile: Tensor, amount: float, *, margin: float) -> bool:
    """Whether the others, all but marked images with the attribute, do not err more than the margin."""
    truth = part.y[:, TARGET] > 0.5
    others = ~(truth & part.marked)
    images = torch.arange(len(truth)) % (len(truth) // 2)
    wrong = [
        ((logits[:, TARGET] > 0) != truth)[others].double().numpy()
        for logits in (shifted(model, part, profile, amount), _logits(model, part))
    ]
    decision = specialize_or_fall_back(wrong[0], wrong[1], dependence=images[others].numpy(), margin=margin)
    return bool(decision.non_inferior)
