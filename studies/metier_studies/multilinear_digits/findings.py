"""What the trainings show: headline, claims, tables and figures of the study `multilinear-digits`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from metier.runs import (
    Claim,
    Column,
    DataUsed,
    Divided,
    Figure,
    Headline,
    Lines,
    Losses,
    Reference,
    Result,
    Run,
    Section,
    Specialized,
    Table,
    paid,
)
from metier_studies.lib.gains_figure import gains_figure
from metier_studies.lib.paired_seeds import Rows, band, decide, lower_claim, mean_of, of, within_claim
from metier_studies.multilinear_digits.arms import ARMS, FORMS, MODES

if TYPE_CHECKING:
    from metier_studies.multilinear_digits.study import DigitsConfig

Found = Mapping[str, Rows]
OURS = "cp-64"
"""The block that the claims are about, chosen before anything was trained."""


class Runs:
    """The trainings by budget and arm."""

    def __init__(self, facts: Mapping[str, Any], found: Found) -> None:
        self.sizes, self._found = facts["sizes"], found

    def has(self, budget: str, *arms: str) -> bool:
        """Whether the arms were trained at the budget."""
        return budget in self.sizes and all(arm in self.sizes[budget] for arm in arms)

    def rows(self, budget: str, arm: str) -> Rows:
        """The replicates of an arm."""
        return self._found[self.key(budget, arm)]

    def key(self, budget: str, arm: str) -> str:
        """The block's name in the journal."""
        return f"{arm}-of-{self.sizes[budget][arm]['size']}"

    def error(self, budget: str, arm: str) -> Any:
        """Error rate by replicate."""
        return of(self.rows(budget, arm), "error")


def findings(
    config: DigitsConfig, run: Run, *, facts: dict[str, Any], tuned: dict[str, Any], found: Found
) -> Result:
    """State everything; no number here is new."""
    from metier_studies.multilinear_digits.study import STUDY

    runs, budget = Runs(facts, found), config.budgets[0]
    return run.result(
        family="moe",
        title=STUDY.title,
        question=STUDY.question,
        headline=headline(config, facts, runs, budget),
        claims=claims(config, runs, run.command),
        sections=(
            Section(
                title="Blocks at equal cost",
                text=_setting(config, facts),
                tables=tuple(accuracy_table(b, runs, tuned) for b in config.budgets),
                figures=(error_figure(runs, budget), experts_figure(runs, budget)),
            ),
            Section(
                title="What experts tell about the class",
                text="The information between classes and expert weights on held-out images, above the mean "
                "of its null of permuted classes. Experts are also removed in groups of equal load: the "
                "polysemanticity of the classes that a removal changes says something only beside the "
                "same number of flips on random images, and with at least five flips per group.",
                tables=(specialization_table(runs, budget),),
            ),
        ),
        losses=tuple(
            Losses(
                id=arm.replace("_", "-"),
                description=f"error rate on held-out images at equal {budget}, {ARMS[arm].words}",
                unit="seed",
                keys=[f"seed-{r}" for r in range(config.seeds)],
                values=runs.error(budget, arm),
            )
            for arm in runs.sizes[budget]
        ),
        data=(DataUsed(name=facts["name"], sha256=facts["sha256"], description=facts["provenance"]),),
        notes=(
            "Intervals are over trainings on one split of the images: they hold for these images.",
            *(f"{ARMS[arm].words}: {reason}" for arm, reason in facts["refused"].items()),
        ),
    )


def _setting(config: DigitsConfig, facts: Mapping[str, Any]) -> str:
    counts = facts["images"]
    return (
        f"{facts['name']}: {counts['train']:,} images to learn from, {counts['tune']:,} to choose the "
        f"learning rate, {counts['test']:,} to measure, {facts['pixels']} pixels. The classifier is a linear "
        f"stem, one residual block of width {config.dim} and a linear head. Every block has the rank, or the "
        f"width, that spends what a dense block with {config.hidden} hidden units has; gates count. "
        + (
            f"All blocks have the same {len(config.rates)} learning rates to choose from."
            if len(config.rates) > 1
            else "All blocks train with one learning rate."
        )
    )


def headline(config: DigitsConfig, facts: Mapping[str, Any], runs: Runs, budget: str) -> Headline:
    """Who does the work, what that tells, and whether it paid."""
    ours = runs.rows(budget, OURS)
    mean_load = np.sort(np.mean([row["load"] for row in ours], axis=0))[::-1]
    told = {name: float(of(ours, name).mean()) for name in ("information", "null", "ceiling")}
    error, dense = runs.error(budget, OURS), runs.error(budget, "dense")
    decision = decide(error, dense, margin=config.margin)
    answer = paid(
        decision,
        text=f"{ARMS[OURS].words}: {100 * error.mean():.2f} % of held-out images are wrong, "
        f"{100 * dense.mean():.2f} % with the dense block of as many {budget}.",
    )
    answer = answer.model_copy(
        update={
            "gain": mean_of(dense - error, percent=True),
            "needed_unit": "" if answer.needed is None else "seeds",
        }
    )
    return Headline(
        divided=Divided(
            text=f"{facts['name']} among {ARMS[OURS].n_experts} experts, "
            f"{of(ours, 'support').mean():.1f} of them per image; a dozen carry "
            f"{100 * mean_load[:12].sum():.0f} % of the work",
            load=tuple(mean_load.tolist()),
            names=tuple(f"rank {i + 1}" for i in range(mean_load.size)),
        ),
        specialized=Specialized(
            text="what the experts' weights tell about the class of a held-out image",
            information=told["information"],
            null_mean=told["null"],
            p_value=float(of(ours, "p_value").max()),
            ceiling=told["ceiling"],
        ),
        paid=answer,
    )


def claims(config: DigitsConfig, runs: Runs, command: str) -> tuple[Claim, ...]:
    """Every claim that the trained blocks can decide."""
    found: list[Claim] = []
    points = f"{100 * config.margin:g} points"
    words = {
        "dense": "a dense block",
        "low_rank": "a low-rank dense block",
        "sparse": "a sparse mixture of experts",
    }
    ids = {"dense": "multilinear-or-dense", "low_rank": "multilinear-or-low-rank"}
    ids["sparse"] = "multilinear-or-sparse"
    for budget in config.budgets:
        for rival, claim_id in ids.items():
            at_multiplies = budget == "multiplies"
            if not runs.has(budget, OURS, rival) or (at_multiplies and rival == "low_rank"):
                continue
            found.append(
                lower_claim(
                    runs.error(budget, OURS),
                    runs.error(budget, rival),
                    margin=config.margin,
                    id=claim_id + ("-multiplies" if at_multiplies else ""),
                    statement=f"64 CP experts err less often on held-out images than {words[rival]} of as "
                    f"many {budget}, equally tuned.",
                    source="ours" if rival == "sparse" else "arXiv 2402.12550, section 4.3, for its tasks",
                    minimum_effect=f"any gain; within {points} they are equivalent",
                    command=command,
                )
            )
    budget = config.budgets[0]
    if runs.has(budget, "cp-4", "cp-1024"):
        found.append(
            lower_claim(
                runs.error(budget, "cp-1024"),
                runs.error(budget, "cp-4"),
                margin=config.margin,
                id="many-experts",
                statement=f"At equal {budget}, 1,024 CP experts err less often than 4.",
                source="ours",
                minimum_effect=f"any gain; within {points} they are equivalent",
                command=command,
            )
        )
    ours = runs.rows(budget, OURS)
    found.append(
        within_claim(
            of(ours, "information") - of(ours, "null"),
            0.0,
            below=False,
            id="experts-specialize",
            statement="Which of the 64 CP experts compute an image tells about its class.",
            source="ours",
            minimum_effect="information above its null of permuted classes, nats",
            command=command,
        )
    )
    return tuple(found)


def accuracy_table(budget: str, runs: Runs, tuned: Mapping[str, Any]) -> Table:
    """Every block at one budget."""
    rows = []
    for arm, entry in runs.sizes[budget].items():
        error = runs.error(budget, arm)
        rows.append(
            (
                ARMS[arm].words,
                f"{ARMS[arm].knob} {entry['size']}",
                entry["parameters"],
                entry["multiplies"],
                float(tuned[runs.key(budget, arm)]["rate"]),
                len(error),
                mean_of(error, percent=True),
                None
                if arm == "dense" or not runs.has(budget, "dense")
                else mean_of(runs.error(budget, "dense") - error, percent=True),
                float(of(runs.rows(budget, arm), "loss").mean()),
            )
        )
    return Table(
        id=f"equal-{budget}",
        title=f"Blocks with the {budget} of the dense one",
        columns=(
            Column(name="block"),
            Column(name="size"),
            Column(name="parameters", kind="integer"),
            Column(name="multiplies", kind="integer"),
            Column(name="learning rate", kind="number"),
            Column(name="seeds", kind="integer"),
            Column(name="wrong", kind="estimate"),
            Column(name="fewer wrong than dense", kind="estimate"),
            Column(name="loss", unit="nats", kind="number", digits=3),
        ),
        rows=tuple(rows),
        emphasis=tuple(i for i, arm in enumerate(runs.sizes[budget]) if arm == OURS),
    )


def error_figure(runs: Runs, budget: str) -> Figure:
    """Gain of every block over the dense one."""
    dense = runs.error(budget, "dense")
    return gains_figure(
        {
            ARMS[arm].words: 100 * (dense - runs.error(budget, arm))
            for arm in runs.sizes[budget]
            if arm != "dense"
        },
        name="gain-over-dense",
        title="Fewer errors than the dense block",
        caption=f"Percentage points, mean over paired seeds with its 95 % interval, at equal {budget}.",
        alt="Gain in error rate of every block over the dense one, with intervals.",
        x_label="fewer errors, points",
        emphasis=(ARMS[OURS].words,),
    )


def experts_figure(runs: Runs, budget: str) -> Figure:
    """Error against the number of experts, a line per form."""
    series = []
    for form in FORMS:
        known = [n for n in MODES if runs.has(budget, f"{form}-{n}")]
        told = [mean_of(100 * runs.error(budget, f"{form}-{n}")) for n in known]
        if known:
            series.append(band(form, known, told))
    dense = float(100 * runs.error(budget, "dense").mean())
    return Figure(
        id="errors-by-experts",
        title="Errors by number of experts",
        caption=f"Percent of held-out images, at equal {budget}, with 95 % intervals over seeds.",
        alt="Error rate against the number of experts, one line per form, and the dense block's level.",
        data=Lines(
            x_label="experts",
            y_label="wrong, %",
            x_scale="log",
            series=tuple(series),
            references=(Reference(axis="y", value=dense, label="dense"),),
        ),
    )


def specialization_table(runs: Runs, budget: str) -> Table:
    """Information with its null, and what removals do, for every block with experts."""
    rows = []
    for arm in runs.sizes[budget]:
        seeds = runs.rows(budget, arm)
        if "information" not in seeds[0]:
            continue
        removal = [row["removal"] for row in seeds if "removal" in row]
        rows.append(
            (
                ARMS[arm].words,
                ARMS[arm].n_experts,
                float(of(seeds, "support").mean()),
                float(of(seeds, "dead").mean()),
                float(of(seeds, "information").mean()),
                float(of(seeds, "null").mean()),
                float(of(seeds, "ceiling").mean()),
                float(of(seeds, "p_value").max()),
                _mean(removal, "polysemanticity"),
                _mean(removal, "null"),
                _mean(removal, "flips"),
            )
        )
    return Table(
        id="specialization",
        title="Experts and classes",
        columns=(
            Column(name="block"),
            Column(name="experts", kind="integer"),
            Column(name="used per image", kind="number", digits=1),
            Column(name="dead", kind="number", digits=1),
            Column(name="information", unit="nats", kind="number", digits=3),
            Column(name="its null", unit="nats", kind="number", digits=3),
            Column(name="most possible", unit="nats", kind="number", digits=2),
            Column(name="largest p", kind="p_value"),
            Column(name="polysemanticity", kind="number", digits=2),
            Column(name="on random images", kind="number", digits=2),
            Column(name="flips per group", kind="number", digits=1),
        ),
        rows=tuple(rows),
        caption="Means over seeds; removals are of eight groups of equal load.",
    )


def _mean(rows: list[Mapping[str, float]], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None and np.isfinite(row[name])]
    return float(np.mean(values)) if values else None
