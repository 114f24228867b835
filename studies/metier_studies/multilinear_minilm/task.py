"""One fine-tuning: MiniLM's last blocks replaced with warm start, learning to name the work of a passage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from metier import moe
from metier.core import Assignment, derive, derive_seed
from metier.core.extras import naming_extras
from metier_studies.lib.one_thread import one_thread
from metier_studies.moe_upcycling.task import (
    Classifier,
    Passages,
    encoder,
    fit,
    logits_of,
    prepared,
    tokenizer,
)

with naming_extras():
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F


CALIBRATION = 48
"""Training passages that the truncation is fitted to."""
BLOCKS = "layers.*.intermediate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all trainings share.

    Args:
        seed: of the run; fixes the held-out documents.
        per_work, length, trained_layers, rows, steps, learning_rate: as in the study `moe-upcycling`.
        n_experts: of multilinear blocks.
        budget: share of a dense block's parameters that the smaller blocks have.
        noise: deviation of experts from the common weights at the start; 0 keeps the function, and the
            random gate lets experts part all the same.
        permutations: of the null of information.
    """

    seed: int
    per_work: int
    length: int
    trained_layers: int
    rows: int
    steps: int
    learning_rate: float
    n_experts: int
    budget: float
    noise: float
    permutations: int


@dataclass(frozen=True, slots=True)
class Arm:
    """What takes the place of a block: `budget` None is the full rank, "small" the setup's share."""

    words: str
    form: str | None = None
    budget: float | str | None = None
    one_expert: bool = False


ARMS = {
    "dense": Arm("dense"),
    "cp-full": Arm("cp at full rank", "cp"),
    "cp-equal": Arm("cp, parameters of the dense block", "cp", 1.0),
    "svd-equal": Arm("truncated SVD, parameters of the dense block", "cp", 1.0, one_expert=True),
    "svd": Arm("truncated SVD, smaller", "cp", "small", one_expert=True),
    "cp": Arm("cp, smaller", "cp", "small"),
    "tr": Arm("tr, smaller", "tr", "small"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fine:
    """One fine-tuning of an arm, on the batches of a replicate."""

    arm: str
    replicate: int
    setup: Setup


def dense_classifier(task: Fine, n_works: int) -> Classifier:
    """The classifier before replacement: the same for all arms of a replicate."""
    s = task.setup
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(s.seed, "multilinear-minilm", "weights", task.replicate))
        layers: Any = encoder().encoder.layer[-s.trained_layers :]  # type: ignore[union-attr,index]
        model = Classifier(nn.ModuleList(layers), n_works, layers[0].output.dense.out_features)
    for layer in layers:
        # Bert's block is output(intermediate(x), x): both products become one module.
        layer.intermediate = nn.Sequential(layer.intermediate.dense, nn.GELU(), layer.output.dense)
        layer.output.dense = nn.Identity()
    return model.eval()


def build(task: Fine, n_works: int, train: Passages) -> tuple[Classifier, moe.Replacement | None]:
    """The classifier of an arm before fine-tuning, and what was replaced."""
    s, arm = task.setup, ARMS[task.arm]
    model = dense_classifier(task, n_works)
    if arm.form is None:
        return model, None
    budget = s.budget if arm.budget == "small" else arm.budget
    assert not isinstance(budget, str)
    # One expert is a low-rank layer: the truncated SVD, of outputs on the calibration passages as for all.
    report = moe.replace(
        model,
        BLOCKS,
        n_experts=1 if arm.one_expert else s.n_experts,
        form=arm.form,
        budget=budget,
        calibration=None if budget is None else [train.states[:: max(1, len(train.states) // CALIBRATION)]],
        noise=0.0 if arm.one_expert else s.noise,
        rng=derive_seed(s.seed, "multilinear-minilm", "gates", task.replicate),
    )
    return model, report


@one_thread()
def fine_tune(task: Fine) -> dict[str, Any]:
    """Replace, fine-tune, and measure on held-out documents."""
    s = task.setup
    works, splits, _ = prepared(s)
    train, val = splits["train"], splits["val"]
    model, report = build(task, len(works), train)
    before = logits_of(model, val)
    reference = logits_of(dense_classifier(task, len(works)), val) if report is not None else before
    fit(model, train, s, rng=derive(s.seed, "multilinear-minilm", "batches", task.replicate))
    model.eval()
    logits = logits_of(model, val)
    losses = F.cross_entropy(logits, val.works, reduction="none").double()
    blocks: list[Any] = [layer.intermediate for layer in model.layers]
    found: dict[str, Any] = {
        "loss": float(losses.mean()),
        "error": float((logits.argmax(1) != val.works).double().mean()),
        "start": float((before - reference).norm() / reference.norm()),
        "parameters": sum(p.numel() for block in blocks for p in block.parameters()),
        "rank": ranks_in_words(report) if report is not None else "",
    }
    if report is not None and not ARMS[task.arm].one_expert:
        found |= looked_into(model, val, works, task)
    return found


def ranks_in_words(report: moe.Replacement) -> str:
    """The ranks of the first block's two products, for example "385 and 384"."""
    return " and ".join("×".join(map(str, ranks)) for ranks in report.layers[0].rank.values())


@torch.no_grad()
def looked_into(model: Classifier, val: Passages, works: tuple[str, ...], task: Fine) -> dict[str, Any]:
    """What experts of the last block tell, their top tokens, and what changes without the heaviest."""
    block: Any = model.layers[-1].intermediate
    seen: list[Tensor] = []
    hook = block.gate.register_forward_hook(lambda module, args, output: seen.append(output[0]))
    with moe.inspect.watch(block, k=8) as watch:
        base = logits_of(model, val)
    hook.remove()
    usage = watch.usage()["layer"]
    per_passage = torch.cat(seen).mean(1)
    told = moe.inspect.class_information(
        per_passage,
        val.works.numpy(),
        groups=val.documents,
        permutations=task.setup.permutations,
        rng=0,
    )
    order = usage.load.argsort(descending=True)
    heaviest = int(order[0])
    with block.ablated(heaviest):
        moved = (logits_of(model, val) - base).norm(dim=1)
    users = per_passage[:, heaviest]
    by_work = [float(moved[val.works == w].mean()) for w in range(len(works))]
    load = Assignment.from_weights(per_passage.double().numpy()).load
    return {
        "information": told.value,
        "null": told.null_mean,
        "p_value": told.p_value,
        "ceiling": told.ceiling,
        "load": load.tolist(),
        "support": usage.support,
        "sheet": sheet(usage, val, order[:6].tolist()),
        "removed": heaviest,
        "moved": float(moved.mean() / base.norm(dim=1).mean()),
        "moved_by_work": by_work,
        "follows_use": float(np.corrcoef(users.numpy(), moved.numpy())[0, 1]),
    }


def sheet(usage: moe.inspect.Usage, val: Passages, experts: list[int]) -> list[list[Any]]:
    """Experts with their load and the tokens that they are used most for."""
    assert val.ids is not None
    ids, words = val.ids.flatten(), tokenizer()
    rows = []
    for n in experts:
        top = [int(r) for r in usage.top_rows[n] if r >= 0]
        tokens = words.convert_ids_to_tokens([int(ids[r]) for r in top])
        rows.append([n, float(usage.load[n]), " ".join(dict.fromkeys(tokens))])
    return rows
