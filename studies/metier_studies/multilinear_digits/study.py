"""Study `multilinear-digits`: do many small experts pay at a dense layer's price, and do they specialize?"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from metier.core import InputError
from metier.runs import Progress, Result, Run, Study

if TYPE_CHECKING:
    from metier_studies.multilinear_digits.task import Setup

TITLE = "Multilinear experts: do many small ones pay at the price of a dense layer?"
QUESTION = (
    "Images are classified by a network with one feed-forward block, equally tuned: at the parameters and at "
    "the multiplies, of a dense block, is a block of 4 to 1,024 multilinear experts more accurate than the "
    "dense, low-rank and sparse ones, and what do its experts tell about the class?"
)
TUNING_REPLICATE = 1_000_000
"""Seeds of tuning are not those of the comparison."""
MULTILINEAR = (
    *(f"cp-{n}" for n in (4, 16, 64, 256, 1024)),
    *(f"{form}-{n}" for form in ("tr", "mxd") for n in (4, 64, 1024)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DigitsConfig:
    """What the study trains.

    Args:
        images: "auto" (Fashion-MNIST where its files are present, digits otherwise), "digits",
            "fashion-mnist", or a folder, as in `data.load_images`.
        arms: names of blocks, "dense" and "cp-64" among them; one that fits no budget is reported with
            the reason.
        budgets: "parameters" and "multiplies" of the dense block.
        rates: learning rates that are tried for every block.
        tuning_seeds: trainings per learning rate.
        seeds: replicates of every block, paired.
        margin: difference of error rates within which two blocks are equivalent.
        workers: processes that train at the same time.
        side, rows, dim, hidden, batch, steps, weight_decay, permutations: see `Setup`.
    """

    images: str = "auto"
    arms: tuple[str, ...] = ("dense", "low_rank", "sparse", *MULTILINEAR, "cp-1024-flat")
    budgets: tuple[str, ...] = ("parameters", "multiplies")
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    tuning_seeds: int = 1
    seeds: int = 10
    margin: float = 0.01
    workers: int = 1
    side: int = 14
    rows: int = 1800
    dim: int = 64
    hidden: int = 128
    batch: int = 64
    steps: int = 150
    weight_decay: float = 0.1
    permutations: int = 39

    def setup(self, seed: int) -> Setup:
        """What all trainings share."""
        from metier_studies.multilinear_digits.task import Setup

        names = [field.name for field in fields(Setup) if field.name != "seed"]
        return Setup(seed=seed, **{name: getattr(self, name) for name in names})


def run_study(config: DigitsConfig, run: Run, progress: Progress) -> Result:
    """Find every block's size, tune all alike, train all on the same seeds, compare."""
    from metier_studies.multilinear_digits.arms import ARMS, BUDGETS
    from metier_studies.multilinear_digits.findings import findings

    unknown = [arm for arm in config.arms if arm not in ARMS]
    if unknown or not {"dense", "cp-64"} <= set(config.arms) or not set(config.budgets) <= set(BUDGETS):
        raise InputError(
            "arms name blocks, dense and cp-64 among them; budgets are parameters or multiplies",
            expected=", ".join(ARMS),
            got=", ".join(unknown or (*config.arms, *config.budgets)),
            next_step="Correct --set arms=... or --set budgets=...",
        )
    setup = config.setup(run.seed)
    facts = run.cell("sizes", lambda: facts_of(config, setup))
    tuned = tune(config, setup, run, progress, facts)
    found = compare(config, setup, run, progress, facts, tuned)
    return findings(config, run, facts=facts, tuned=tuned, found=found)


def facts_of(config: DigitsConfig, setup: Setup) -> dict[str, Any]:
    """What the images are, every block's size and cost per budget, and why some do not fit."""
    from metier.core import InputError
    from metier_studies.multilinear_digits.arms import ARMS, cost, size_for
    from metier_studies.multilinear_digits.task import prepared

    splits, images = prepared(setup)
    sizes: dict[str, dict[str, Any]] = {budget: {} for budget in config.budgets}
    refused: dict[str, str] = {}
    shape = {"dim": setup.dim, "hidden": setup.hidden}
    for budget in config.budgets:
        for arm in config.arms:
            try:
                size = size_for(ARMS[arm], budget=budget, **shape)
            except InputError as error:
                refused.setdefault(arm, str(error))
                continue
            sizes[budget][arm] = {"size": size, **cost(ARMS[arm], size=size, **shape)}
    return {
        "name": images.name,
        "sha256": images.sha256,
        "provenance": images.provenance,
        "classes": list(images.classes),
        "pixels": int(splits["train"].x.shape[1]),
        "images": {name: len(part.y) for name, part in splits.items()},
        "sizes": sizes,
        "refused": refused,
    }


def blocks_of(facts: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Every block that has to be trained, once: the same size may spend both budgets."""
    return {
        f"{arm}-of-{entry['size']}": (arm, entry["size"])
        for sizes in facts["sizes"].values()
        for arm, entry in sizes.items()
    }


def tune(
    config: DigitsConfig, setup: Setup, run: Run, progress: Progress, facts: dict[str, Any]
) -> dict[str, Any]:
    """Try the same learning rates for every block; take the one with the least loss on the tuning images."""
    from metier_studies.lib.cells import journaled
    from metier_studies.multilinear_digits.task import Training, train

    blocks = blocks_of(facts)
    if len(config.rates) == 1:
        return {key: {"rate": config.rates[0], "trials": []} for key in blocks}
    progress.stage(f"{len(config.rates)} learning rates for every block")
    keys = [(key, rate, r) for key in blocks for rate in config.rates for r in range(config.tuning_seeds)]
    work = [
        (
            f"tune/{key}/{rate:g}/{r}",
            Training(
                arm=blocks[key][0],
                size=blocks[key][1],
                replicate=TUNING_REPLICATE + r,
                learning_rate=rate,
                split="tune",
                setup=setup,
            ),
        )
        for key, rate, r in keys
    ]
    done = journaled(train, work, run, progress, workers=config.workers, words="tuning")
    losses: dict[str, dict[float, float]] = {key: dict.fromkeys(config.rates, 0.0) for key in blocks}
    for (key, rate, _), result in zip(keys, done, strict=True):
        losses[key][rate] += result["loss"] / config.tuning_seeds
    return {
        key: {"rate": min(trials, key=lambda rate: trials[rate]), "trials": sorted(trials.items())}
        for key, trials in losses.items()
    }


def compare(
    config: DigitsConfig,
    setup: Setup,
    run: Run,
    progress: Progress,
    facts: dict[str, Any],
    tuned: dict[str, Any],
) -> dict[str, list[dict[str, Any]]]:
    """Train every block at its learning rate; replicate r is the same stem, head and batches for all."""
    from metier_studies.lib.cells import journaled
    from metier_studies.multilinear_digits.task import Training, train

    progress.stage("every block on the same seeds")
    blocks = blocks_of(facts)
    keys = [(key, r) for r in range(config.seeds) for key in blocks]
    work = [
        (
            f"{key}/seed-{r}",
            Training(
                arm=blocks[key][0],
                size=blocks[key][1],
                replicate=r,
                learning_rate=tuned[key]["rate"],
                split="test",
                setup=setup,
            ),
        )
        for key, r in keys
    ]
    done = journaled(train, work, run, progress, workers=config.workers, words="training")
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in blocks}
    for (key, _), result in zip(keys, done, strict=True):
        found[key].append(result)
    return found


STUDY = Study(
    name="multilinear-digits",
    family="moe",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": DigitsConfig(
            arms=("dense", "low_rank", "sparse", "cp-4", "cp-64", "cp-1024"),
            rates=(3e-3,),
            seeds=3,
            side=8,
            permutations=19,
        ),
        "standard": DigitsConfig(),
        "full": DigitsConfig(
            seeds=30, rows=70_000, steps=5000, batch=128, rates=(3e-4, 1e-3, 3e-3, 1e-2), side=28
        ),
    },
    run=run_study,
    claims=(
        "multilinear-or-dense",
        "multilinear-or-dense-multiplies",
        "multilinear-or-low-rank",
        "multilinear-or-sparse",
        "multilinear-or-sparse-multiplies",
        "many-experts",
        "experts-specialize",
    ),
    paired_on=("images", "side", "rows", "dim", "hidden", "batch", "steps", "weight_decay", "seeds"),
)
