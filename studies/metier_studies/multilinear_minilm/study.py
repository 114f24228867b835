"""Study `multilinear-minilm`: MiniLM's blocks become experts with the function kept; does that pay?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from metier.runs import (
    Claim,
    Column,
    DataUsed,
    Divided,
    Figure,
    Headline,
    Losses,
    Progress,
    Result,
    Run,
    Section,
    Specialized,
    Study,
    Table,
    paid,
)

if TYPE_CHECKING:
    from metier_studies.lib.paired_seeds import Rows
    from metier_studies.multilinear_minilm.task import Setup

TITLE = "Multilinear experts: a trained encoder, taken apart and put together"
QUESTION = (
    "MiniLM's last feed-forward blocks become multilinear experts that start as the trained blocks, and "
    "learn to name the work a passage is from: are they better than the dense blocks, and than a truncated "
    "SVD of as many parameters? What do the experts look at, and what changes when one is switched off?"
)
KEPT = 1e-3
"""Relative change of outputs below which the function counts as kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinilmConfig:
    """What the study trains.

    Args:
        arms: names of `ARMS`, "dense" and "cp-full" among them.
        seeds: replicates of every arm, paired.
        margin: nats per passage; two arms this close are equivalent.
        workers: processes that train at the same time.
        per_work, length, trained_layers, rows, steps, learning_rate, n_experts, budget, noise,
            permutations: see `Setup`.
    """

    arms: tuple[str, ...] = ("dense", "cp-full", "cp-equal", "svd-equal", "svd", "cp", "tr")
    seeds: int = 5
    margin: float = 0.02
    workers: int = 1
    per_work: int = 60
    length: int = 48
    trained_layers: int = 1
    rows: int = 8
    steps: int = 60
    learning_rate: float = 3e-4
    n_experts: int = 32
    budget: float = 0.3
    noise: float = 0.0
    permutations: int = 99

    def setup(self, seed: int) -> Setup:
        """What all trainings share."""
        from metier_studies.multilinear_minilm.task import Setup

        names = [field.name for field in fields(Setup) if field.name != "seed"]
        return Setup(seed=seed, **{name: getattr(self, name) for name in names})


def run_study(config: MinilmConfig, run: Run, progress: Progress) -> Result:
    """Replace and fine-tune every arm on the same seeds, compare them, and look into the experts."""
    from metier.core import InputError
    from metier_studies.lib.cells import journaled
    from metier_studies.moe_upcycling.task import prepared
    from metier_studies.multilinear_minilm.task import ARMS, Fine, fine_tune

    if not {"dense", "cp-full"} <= set(config.arms) <= set(ARMS):
        raise InputError(
            "arms name blocks, dense and cp-full among them",
            expected=", ".join(ARMS),
            got=", ".join(config.arms),
            next_step="Correct --set arms=...",
        )
    setup = config.setup(run.seed)
    progress.stage("MiniLM's fixed layers read every passage once")

    def facts_of() -> dict[str, Any]:
        works, splits, digest = prepared(setup)
        sizes = {name: len(passages.works) for name, passages in splits.items()}
        held = len(set(splits["val"].documents.tolist()))
        return {"works": list(works), "passages": sizes, "val_documents": held, "sha256": digest}

    facts = run.cell("passages", facts_of)
    progress.stage("blocks are replaced, the function kept, and fine-tuned")
    keys = [(arm, r) for r in range(config.seeds) for arm in config.arms]
    work = [(f"{arm}/seed-{r}", Fine(arm=arm, replicate=r, setup=setup)) for arm, r in keys]
    done = journaled(fine_tune, work, run, progress, workers=config.workers, words="fine-tuning")
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in config.arms}
    for (arm, _), result in zip(keys, done, strict=True):
        found[arm].append(result)
    return findings(config, run, facts, found)


def findings(config: MinilmConfig, run: Run, facts: dict[str, Any], found: Mapping[str, Rows]) -> Result:
    """State what the trainings show."""
    from metier_studies.lib.paired_seeds import decide, mean_of, of
    from metier_studies.multilinear_minilm.task import ARMS

    ours = "cp-equal" if "cp-equal" in found else "cp-full"
    loss = {arm: of(rows, "loss") for arm, rows in found.items()}
    # What makes a block smaller is a rival too: experts must beat it, not the dense blocks alone.
    rival = "svd-equal" if ours == "cp-equal" and "svd-equal" in found else "dense"
    answer = paid(
        decide(loss[ours], loss[rival], margin=config.margin),
        text=f"{ARMS[ours].words}: {loss[ours].mean():.3f} nats per held-out passage; "
        f"{ARMS[rival].words}: {loss[rival].mean():.3f}.",
    )
    answer = answer.model_copy(
        update={
            "gain": mean_of(loss[rival] - loss[ours]),
            "needed_unit": "" if answer.needed is None else "seeds",
        }
    )
    experts, example = found[ours], found[ours][0]
    load = np.sort(example["load"])[::-1]
    return run.result(
        family="moe",
        title=TITLE,
        question=QUESTION,
        headline=Headline(
            divided=Divided(
                text=f"the feed-forward blocks trained ({config.trained_layers} at the encoder's end) became "
                f"{config.n_experts} experts each, {example['support']:.1f} of them per token",
                load=tuple(load.tolist()),
                names=tuple(f"rank {i + 1}" for i in range(load.size)),
            ),
            specialized=Specialized(
                text="what a passage's mean weights of experts tell about its work",
                information=float(of(experts, "information").mean()),
                null_mean=float(of(experts, "null").mean()),
                p_value=float(of(experts, "p_value").max()),
                ceiling=float(of(experts, "ceiling").mean()),
            ),
            paid=answer,
        ),
        claims=claims(config, found, ours, run.command),
        sections=(
            Section(
                title="Whose passage is it?",
                text=f"Passages of {config.length} tokens from {len(facts['works'])} works "
                f"({', '.join(facts['works'])}): {facts['passages']['train']} to learn from, "
                f"{facts['passages']['val']} of {facts['val_documents']} held-out scenes and chapters to "
                "measure. The layers before are fixed. Truncations have the least error of outputs on "
                f"training passages; the smaller blocks have {100 * config.budget:g} % of the parameters.",
                tables=(_table(found),),
                figures=(_gains(found, ours),),
            ),
            Section(
                title="Read an expert, switch it off",
                text=f"The last block of {ARMS[ours].words}, first seed. Without expert "
                f"{example['removed']}, the heaviest, the logits of held-out passages move by "
                f"{100 * example['moved']:.1f} % of their size; how much a passage moves correlates "
                f"{example['follows_use']:.2f} with how much it used the expert.",
                tables=(_sheet(example), _moved(example, facts["works"])),
            ),
        ),
        losses=tuple(
            Losses(
                id=arm,
                description=f"loss on held-out passages, {ARMS[arm].words}",
                unit="seed",
                keys=[f"seed-{r}" for r in range(config.seeds)],
                values=values,
            )
            for arm, values in loss.items()
        ),
        data=(DataUsed(name="plays and novels", sha256=facts["sha256"], description="bundled texts"),),
        notes=("Intervals are over trainings on one set of held-out documents.",),
    )


def claims(config: MinilmConfig, found: Mapping[str, Rows], ours: str, command: str) -> tuple[Claim, ...]:
    """Every claim that the trained arms can decide."""
    from metier_studies.lib.paired_seeds import lower_claim, of, within_claim

    loss = {arm: of(rows, "loss") for arm, rows in found.items()}
    near = f"any gain; within {config.margin:g} nats per passage they are equivalent"
    made = [
        within_claim(
            of(found["cp-full"], "start"),
            KEPT,
            below=True,
            id="function-kept",
            statement="At full rank, an encoder with replaced blocks begins as the trained one.",
            source="ours",
            minimum_effect=f"logits change by at most {KEPT:g} of their size before fine-tuning",
            command=command,
        )
    ]
    pairs = (
        ("cp-equal", "dense", "experts-or-dense", "the dense blocks, at as many parameters"),
        (
            "cp-equal",
            "svd-equal",
            "experts-or-svd-equal",
            "a truncated SVD, both as large as the dense blocks",
        ),
        ("cp", "svd", "experts-or-svd", "a truncated SVD of as many parameters"),
        ("tr", "svd", "ring-or-svd", "a truncated SVD of as many parameters"),
    )
    for arm, rival, claim_id, words in pairs:
        if arm in loss and rival in loss:
            made.append(
                lower_claim(
                    loss[arm],
                    loss[rival],
                    margin=config.margin,
                    id=claim_id,
                    statement=f"Fine-tuned, {'TR' if arm == 'tr' else 'CP'} experts name the work of "
                    f"held-out passages better than {words}.",
                    source="ours",
                    minimum_effect=near,
                    command=command,
                )
            )
    rows = found[ours]
    made.append(
        within_claim(
            of(rows, "information") - of(rows, "null"),
            0.0,
            below=False,
            id="experts-tell-work",
            statement="Which experts compute a passage tells about its work.",
            source="ours",
            minimum_effect="information above its null of permuted documents, nats",
            command=command,
        )
    )
    return tuple(made)


def _table(found: Mapping[str, Rows]) -> Table:
    from metier_studies.lib.paired_seeds import mean_of, of
    from metier_studies.multilinear_minilm.task import ARMS

    rows = tuple(
        (
            ARMS[arm].words,
            seeds[0]["rank"],
            seeds[0]["parameters"],
            len(seeds),
            float(of(seeds, "start").mean()),
            mean_of(of(seeds, "loss")),
            100 * float(of(seeds, "error").mean()),
        )
        for arm, seeds in found.items()
    )
    return Table(
        id="encoders",
        title="Fine-tuned encoders",
        columns=(
            Column(name="blocks"),
            Column(name="rank"),
            Column(name="parameters of the blocks", kind="integer"),
            Column(name="seeds", kind="integer"),
            Column(name="change at the start", kind="number"),
            Column(name="loss", unit="nats per passage", kind="estimate"),
            Column(name="wrong", unit="%", kind="number", digits=1),
        ),
        rows=rows,
    )


def _gains(found: Mapping[str, Rows], ours: str) -> Figure:
    from metier_studies.lib.gains_figure import gains_figure
    from metier_studies.lib.paired_seeds import of
    from metier_studies.multilinear_minilm.task import ARMS

    dense = of(found["dense"], "loss")
    return gains_figure(
        {ARMS[arm].words: dense - of(rows, "loss") for arm, rows in found.items() if arm != "dense"},
        title="What takes the place of the dense blocks",
        caption="Loss with dense blocks minus the loss with what replaced them: mean over paired seeds with "
        "its 95 % interval. Right of zero is better than dense.",
        alt="Gain in loss of every replacement over dense blocks, with intervals.",
        x_label="gain over dense blocks, nats per passage",
        emphasis=(ARMS[ours].words,),
    )


def _sheet(example: Mapping[str, Any]) -> Table:
    return Table(
        id="sheet",
        title="Experts and the tokens they are used most for",
        columns=(
            Column(name="expert", kind="integer"),
            Column(name="load", kind="percent", digits=1),
            Column(name="tokens"),
        ),
        rows=tuple((n, load, tokens) for n, load, tokens in example["sheet"]),
    )


def _moved(example: Mapping[str, Any], works: list[str]) -> Table:
    order = np.argsort(example["moved_by_work"])[::-1]
    return Table(
        id="switched-off",
        title=f"Without expert {example['removed']}: how far logits move, by work",
        columns=(Column(name="work"), Column(name="change", unit="logits", kind="number", digits=3)),
        rows=tuple((works[i], float(example["moved_by_work"][i])) for i in order),
    )


STUDY = Study(
    name="multilinear-minilm",
    family="moe",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": MinilmConfig(
            arms=("dense", "cp-full", "cp-equal", "svd-equal"),
            seeds=2,
            per_work=10,
            steps=15,
            permutations=19,
        ),
        "standard": MinilmConfig(),
        "full": MinilmConfig(seeds=20, per_work=600, steps=1500, trained_layers=3, rows=16),
    },
    run=run_study,
    claims=(
        "function-kept",
        "experts-or-dense",
        "experts-or-svd-equal",
        "experts-or-svd",
        "ring-or-svd",
        "experts-tell-work",
    ),
    paired_on=("seeds", "per_work", "length", "trained_layers", "rows", "steps", "learning_rate"),
)
