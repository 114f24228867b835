"""Study `moe-upcycling`: do experts copied from a trained network learn more than the network itself?"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from metier.runs import (
    Claim,
    Column,
    DataUsed,
    Divided,
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
    from metier_studies.moe_upcycling.task import Setup

TITLE = "Mixtures of experts: does upcycling a trained encoder pay?"
QUESTION = (
    "MiniLM's last feed-forward blocks become experts, and all arms learn to name the work a passage is "
    "from: is the sparse encoder better than the dense one on held-out scenes and chapters, and does "
    "balancing matter?"
)
ARMS = {"dense": "dense", "upcycled": "upcycled, no balancer", "balanced": "upcycled, phi"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpcyclingConfig:
    """What the study trains.

    Args:
        seeds: replicates of every arm, paired.
        margin: nats per passage; two arms this close are equivalent.
        workers: processes that train at the same time.
        per_work, length, trained_layers, n_experts, top_k, noise, strength, rows, steps, learning_rate: see
            `Setup`.
    """

    seeds: int = 6
    margin: float = 0.02
    workers: int = 2
    per_work: int = 150
    length: int = 64
    trained_layers: int = 2
    n_experts: int = 4
    top_k: int = 2
    noise: float = 0.05
    strength: float = 0.03
    rows: int = 16
    steps: int = 150
    learning_rate: float = 1e-4

    def setup(self, seed: int) -> Setup:
        """What all trainings share."""
        from metier_studies.moe_upcycling.task import Setup

        names = [field.name for field in fields(Setup) if field.name != "seed"]
        return Setup(seed=seed, **{name: getattr(self, name) for name in names})


def run_study(config: UpcyclingConfig, run: Run, progress: Progress) -> Result:
    """Fine-tune every arm on the same seeds and compare them on held-out documents."""
    from metier_studies.lib.cells import journaled
    from metier_studies.moe_upcycling.task import Fine, fine_tune, prepared

    setup = config.setup(run.seed)
    progress.stage("MiniLM's fixed layers read every passage once")

    def facts_of() -> dict[str, Any]:
        works, splits, digest = prepared(setup)
        sizes = {name: len(passages.works) for name, passages in splits.items()}
        held = len(set(splits["val"].documents.tolist()))
        return {"works": list(works), "passages": sizes, "val_documents": held, "sha256": digest}

    facts = run.cell("passages", facts_of)
    progress.stage("dense, upcycled and balanced encoders learn to name the work")
    work = [
        (f"{arm}/seed-{replicate}", Fine(arm=arm, replicate=replicate, setup=setup))
        for replicate in range(config.seeds)
        for arm in ARMS
    ]
    journaled(fine_tune, work, run, progress, workers=config.workers, words="fine-tuning")
    found = {arm: [run.cell(f"{arm}/seed-{r}", dict) for r in range(config.seeds)] for arm in ARMS}
    return findings(config, run, facts, found)


def findings(
    config: UpcyclingConfig, run: Run, facts: dict[str, Any], found: dict[str, list[dict[str, Any]]]
) -> Result:
    """State what the trainings show."""
    from metier_studies.lib.gains_figure import gains_figure
    from metier_studies.lib.paired_seeds import decide, lower_claim, mean_of, of

    loss = {arm: of(rows, "loss") for arm, rows in found.items()}
    words: dict[str, Any] = {"source": "ours", "command": run.command}
    claims: tuple[Claim, ...] = (
        lower_claim(
            loss["balanced"],
            loss["dense"],
            margin=config.margin,
            id="upcycling-pays",
            statement="Upcycled and balanced experts name the work of a held-out passage better than "
            "the dense "
            "encoder.",
            minimum_effect=f"any gain; within {config.margin:g} nats per passage they are equivalent",
            **words,
        ),
        lower_claim(
            of(found["balanced"], "max_vio"),
            of(found["upcycled"], "max_vio"),
            id="upcycling-evenness",
            statement="The balancer evens the experts of an upcycled encoder while it is fine-tuned.",
            minimum_effect="any difference of MaxVio on held-out passages",
            **words,
        ),
    )
    decision = decide(loss["balanced"], loss["dense"], margin=config.margin)
    gain = mean_of(loss["dense"] - loss["balanced"])
    answer = paid(decision)
    rows = tuple(
        (
            ARMS[arm],
            len(seeds),
            mean_of(of(seeds, "loss")),
            100 * float(of(seeds, "error").mean()),
            float(of(seeds, "max_vio").mean()) if arm != "dense" else None,
            float(of(seeds, "dead").mean()) if arm != "dense" else None,
        )
        for arm, seeds in found.items()
    )
    table = Table(
        id="upcycling",
        title="Fine-tuned encoders",
        columns=(
            Column(name="encoder"),
            Column(name="seeds", kind="integer"),
            Column(name="loss", unit="nats per passage", kind="estimate"),
            Column(name="wrong", unit="%", kind="number", digits=1),
            Column(name="MaxVio", kind="number", digits=2),
            Column(name="dead experts per layer", kind="number", digits=1),
        ),
        rows=rows,
    )
    return run.result(
        family="moe",
        title=TITLE,
        question=QUESTION,
        headline=Headline(
            divided=Divided(
                text=f"the feed-forward blocks of the last {config.trained_layers} layers became "
                f"{config.n_experts} experts each, {config.top_k} per token"
            ),
            specialized=Specialized(text="see the study moe-balancing for what experts tell"),
            paid=answer.model_copy(
                update={"gain": gain, "needed_unit": "" if answer.needed is None else "seeds"}
            ),
        ),
        claims=claims,
        sections=(
            Section(
                title="Whose passage is it?",
                text=f"Passages of {config.length} tokens from {len(facts['works'])} works "
                f"({', '.join(facts['works'])}): {facts['passages']['train']} to learn from, "
                f"{facts['passages']['val']} of {facts['val_documents']} held-out scenes and chapters "
                "to measure. "
                "The layers before are fixed. All arms of a seed begin as the same function, but for "
                "the small noise "
                "that lets experts part.",
                tables=(table,),
                figures=(
                    gains_figure(
                        {ARMS[arm]: loss["dense"] - loss[arm] for arm in ARMS if arm != "dense"},
                        title="Experts in place of dense blocks",
                        caption="Loss of the dense encoder minus the loss of the upcycled one: mean over "
                        "paired seeds with its 95 % interval. Right of zero is better than dense.",
                        alt="Gain in loss of the upcycled encoders over the dense one, with intervals.",
                        x_label="gain over the dense encoder, nats per passage",
                    ),
                ),
            ),
        ),
        losses=tuple(
            Losses(
                id=arm,
                description=f"loss on held-out passages, {ARMS[arm]}",
                unit="seed",
                keys=[f"seed-{r}" for r in range(config.seeds)],
                values=values,
            )
            for arm, values in loss.items()
        ),
        data=(DataUsed(name="plays and novels", sha256=facts["sha256"], description="bundled texts"),),
        notes=("The arms differ in size: experts multiply the parameters of the blocks that they replace.",),
    )


STUDY = Study(
    name="moe-upcycling",
    family="moe",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": UpcyclingConfig(seeds=2, per_work=16, steps=15, rows=8, length=48),
        "standard": UpcyclingConfig(),
        "full": UpcyclingConfig(seeds=20, per_work=600, steps=1500),
    },
    run=run_study,
    claims=("upcycling-pays", "upcycling-evenness"),
    paired_on=("seeds", "per_work", "length", "trained_layers", "rows", "steps", "learning_rate"),
)
