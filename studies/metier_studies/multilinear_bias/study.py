"""Study `multilinear-bias`: does editing experts mend a bias better than its rivals do?"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from metier.runs import (
    BarGroup,
    Bars,
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
    from metier_studies.lib.paired_seeds import Floats, Rows
    from metier_studies.multilinear_bias.task import Setup

TITLE = "Multilinear experts: does editing them mend a planted bias?"
QUESTION = (
    "A bar painted on images tells the class in training, but for a small sub-population. At matched "
    "accuracy, does thresholding by that sub-population's experts leave a smaller opportunity gap than a "
    "threshold for all, or than training with re-weighted images?"
)
ARMS = {
    "none": "as trained",
    "blind": "one threshold for all",
    "weights": "re-weighted training",
    "experts": "expert thresholding",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasConfig:
    """What the study trains.

    Args:
        seeds: replicates: marks, weights and batches anew.
        gap_margin: opportunity gaps this close are equivalent.
        workers: processes that train at the same time.
        images, side, rows, marked_negative, marked_positive, dim, n_experts, rank, batch, steps,
            learning_rate, weight_decay, powers, grid, largest, slack, margin: see `Setup`.
    """

    seeds: int = 12
    gap_margin: float = 0.02
    workers: int = 1
    images: str = "auto"
    side: int = 14
    rows: int = 1800
    marked_negative: float = 0.9
    marked_positive: float = 0.03
    dim: int = 64
    n_experts: int = 32
    rank: int = 16
    batch: int = 64
    steps: int = 150
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    powers: tuple[float, ...] = (0.5, 1.0)
    grid: int = 25
    largest: float = 12.0
    slack: float = 0.01
    margin: float = 0.02

    def setup(self, seed: int) -> Setup:
        """What all replicates share."""
        from metier_studies.multilinear_bias.task import Setup

        names = [field.name for field in fields(Setup) if field.name != "seed"]
        return Setup(seed=seed, **{name: getattr(self, name) for name in names})


def run_study(config: BiasConfig, run: Run, progress: Progress) -> Result:
    """Train every replicate, mend it in three ways, compare."""
    from metier_studies.lib.cells import journaled
    from metier_studies.multilinear_bias.task import Replicate, run_replicate, source

    setup = config.setup(run.seed)

    def facts_of() -> dict[str, Any]:
        found, rows = source(setup)
        counts = {name: len(own) for name, own in rows.items()}
        return {
            "name": found.name,
            "sha256": found.sha256,
            "provenance": found.provenance,
            "images": counts,
        }

    facts = run.cell("images", facts_of)
    progress.stage("every replicate is trained and mended in three ways")
    work = [(f"seed-{r}", Replicate(number=r, setup=setup)) for r in range(config.seeds)]
    found = journaled(run_replicate, work, run, progress, workers=config.workers, words="replicates")
    return findings(config, run, facts, found)


def findings(config: BiasConfig, run: Run, facts: dict[str, Any], found: Rows) -> Result:
    """State what the replicates show."""
    from metier_studies.lib.paired_seeds import decide, mean_of

    by_arm = {arm: [row[arm] for row in found] for arm in ARMS}
    gap = {arm: _of(rows, "gap") for arm, rows in by_arm.items()}
    decision = decide(gap["experts"], gap["blind"], margin=config.gap_margin)
    answer = paid(
        decision,
        text=f"Opportunity gap {gap['experts'].mean():.3f} after expert thresholding, "
        f"{gap['blind'].mean():.3f} after a threshold for all, {gap['weights'].mean():.3f} after "
        f"re-weighting, {gap['none'].mean():.3f} as trained.",
    )
    answer = answer.model_copy(
        update={
            "gain": mean_of(gap["blind"] - gap["experts"]),
            "needed_unit": "" if answer.needed is None else "seeds",
        }
    )
    counts, rare = facts["images"], [row["rare"] for row in found]
    return run.result(
        family="moe",
        title=TITLE,
        question=QUESTION,
        headline=Headline(
            divided=Divided(
                text=f"the head is {config.n_experts} experts; an edit moves one logit of inputs whose "
                "experts are those of the sub-population"
            ),
            specialized=Specialized(text="see the study multilinear-digits for what experts tell"),
            paid=answer,
        ),
        claims=claims(config, by_arm, run.command),
        sections=(
            Section(
                title="Mended at matched accuracy",
                text=f"{facts['name']}: {counts['train']:,} images to train on, of which on average "
                f"{sum(rare) / len(rare):.0f} have the attribute and the mark; {counts['tune']:,} to choose "
                f"each method's strength, {counts['test']:,} to measure, each without and with the mark. "
                "Accuracy is under the training law; a method may lose "
                f"{100 * config.slack:g} points of it on the tuning images, and takes the strength with the "
                "least gap that does not.",
                tables=(_table(by_arm, found),),
                figures=(_figure(gap),),
            ),
        ),
        losses=tuple(
            Losses(
                id=arm,
                description=f"opportunity gap between marked and unmarked images, {ARMS[arm]}",
                unit="seed",
                keys=[f"seed-{r}" for r in range(len(found))],
                values=values,
            )
            for arm, values in gap.items()
        ),
        data=(DataUsed(name=facts["name"], sha256=facts["sha256"], description=facts["provenance"]),),
        notes=(
            "The mark is painted by us: the study shows what edits do to a known bias, not how common it is.",
            "Re-weighting knows the mark of every training image, thresholding only those of the "
            "sub-population; neither sees a mark at test time.",
        ),
    )


def claims(config: BiasConfig, by_arm: dict[str, Any], command: str) -> tuple[Claim, ...]:
    """Every claim of the study."""
    from metier_studies.lib.paired_seeds import lower_claim, within_claim

    gap = {arm: _of(rows, "gap") for arm, rows in by_arm.items()}
    accuracy = {arm: _of(rows, "accuracy") for arm, rows in by_arm.items()}
    worst = {arm: _of(rows, "worst") for arm, rows in by_arm.items()}
    near = f"any gain; gaps within {config.gap_margin:g} are equivalent"
    words: dict[str, Any] = {"command": command}
    paper = "arXiv 2402.12550, section 4.2, for its task"
    return (
        within_claim(
            gap["none"],
            0.1,
            below=False,
            id="bias-planted",
            statement="The model as trained finds the attribute less often in marked images.",
            source="ours",
            minimum_effect="an opportunity gap above 0.1",
            **words,
        ),
        lower_claim(
            gap["experts"],
            gap["blind"],
            margin=config.gap_margin,
            id="experts-or-blind",
            statement="At matched accuracy expert thresholding leaves a smaller opportunity gap than a "
            "threshold for all.",
            source=paper,
            minimum_effect=near,
            **words,
        ),
        lower_claim(
            gap["experts"],
            gap["weights"],
            margin=config.gap_margin,
            id="experts-or-weights",
            statement="At matched accuracy expert thresholding leaves a smaller opportunity gap than "
            "re-weighted training.",
            source=paper,
            minimum_effect=near,
            **words,
        ),
        within_claim(
            accuracy["none"] - accuracy["experts"],
            2 * config.slack,
            below=True,
            id="experts-keep-accuracy",
            statement="Expert thresholding keeps the accuracy on test images.",
            source="ours",
            minimum_effect=f"at most {200 * config.slack:g} points lost",
            **words,
        ),
        lower_claim(
            -worst["experts"],
            -worst["none"],
            id="experts-raise-worst",
            statement="Expert thresholding raises the accuracy of the worst of the four cells of attribute "
            "and mark.",
            source="ours",
            minimum_effect="any gain",
            **words,
        ),
    )


def _of(rows: Rows, figure: str) -> Floats:
    from metier_studies.lib.paired_seeds import of

    return of(rows, figure)


def _table(by_arm: dict[str, Any], found: Rows) -> Table:
    from metier_studies.lib.paired_seeds import mean_of

    rows = []
    for arm, seeds in by_arm.items():
        strength = [row["strength"][arm] for row in found if arm in row["strength"]]
        kept = [row["kept"][arm] for row in found if arm in row["kept"]]
        rows.append(
            (
                ARMS[arm],
                len(seeds),
                mean_of(_of(seeds, "accuracy"), percent=True),
                mean_of(_of(seeds, "gap")),
                float(_of(seeds, "spread").mean()),
                mean_of(_of(seeds, "worst"), percent=True),
                sum(strength) / len(strength) if strength else None,
                sum(kept) / len(kept) if kept else None,
            )
        )
    return Table(
        id="methods",
        title="Three ways to mend the bias",
        columns=(
            Column(name="model"),
            Column(name="seeds", kind="integer"),
            Column(name="accuracy", kind="estimate"),
            Column(name="opportunity gap", kind="estimate"),
            Column(name="accuracy spread", kind="number", digits=3),
            Column(name="worst cell", kind="estimate"),
            Column(name="strength", kind="number", digits=1),
            Column(name="harmless to the others", kind="percent"),
        ),
        rows=tuple(rows),
        caption="Strength: mean shift of the sub-population's logits, or the power of re-weighting. "
        "Harmless: share of seeds in which the others' error on tuning images is non-inferior.",
    )


def _figure(gap: dict[str, Floats]) -> Figure:
    from metier_studies.lib.paired_seeds import mean_of

    told = [mean_of(values) for values in gap.values()]
    return Figure(
        id="gaps",
        title="Opportunity gap",
        caption="Difference of true positive rates between marked and unmarked test images, mean over seeds.",
        alt="Bars of the opportunity gap of the four models with intervals.",
        data=Bars(
            categories=tuple(ARMS[arm] for arm in gap),
            groups=(
                BarGroup(
                    name="gap",
                    values=tuple(m.value for m in told),
                    low=tuple(m.value if m.low is None else m.low for m in told),
                    high=tuple(m.value if m.high is None else m.high for m in told),
                ),
            ),
            value_label="opportunity gap",
        ),
    )


STUDY = Study(
    name="multilinear-bias",
    family="moe",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": BiasConfig(seeds=3, side=8),
        "standard": BiasConfig(),
        "full": BiasConfig(seeds=40, rows=20_000, side=28, steps=2000),
    },
    run=run_study,
    claims=(
        "bias-planted",
        "experts-or-blind",
        "experts-or-weights",
        "experts-keep-accuracy",
        "experts-raise-worst",
    ),
    paired_on=("images", "side", "rows", "marked_negative", "marked_positive", "dim", "steps", "seeds"),
)
