"""Study `moe-balancing`: does the balancer matter to a sparse language model of several domains?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metier.core import InputError
from metier.runs import Progress, Result, Run, Study

if TYPE_CHECKING:
    from metier_studies.moe_balancing.train import Setup, Training

TITLE = "Mixtures of experts: does the balancer matter?"
QUESTION = (
    "On real text of several domains, at equal tuning: which balancer keeps the experts even, at what loss, "
    "how much do the experts tell about the domain beyond the byte, and what do single-domain batches change?"
)
EXTENSIONS = 2
"""Points a grid may grow by while the best strength is at its edge."""
TUNING_REPLICATE = 1_000_000
"""Seeds of tuning are not those of the comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancingConfig:
    """What the study trains.

    Args:
        arms: names of `ARMS`; the first is what every other is compared with.
        headline: arms that are trained `headline_seeds` times; the others `seeds` times.
        pure_arms: arms that are also trained on single-domain batches, `pure_seeds` times.
        grid: strengths that are tried per arm; 1 takes the default untuned.
        tuning_steps: of each trial; the comparison itself takes `steps`.
        slack: nats per byte; among strengths within it of the best, the most even one is taken.
        margin: nats per byte; two balancers this close are equivalent.
        workers: processes that train at the same time.
        domains, characters, dim, heads, layers, hidden, n_experts, top_k, length, buckets, rows,
            learning_rate, weight_decay, windows, permutations: of the model and its data, see `Setup`.
        bias_sizes, bias_batches: of the curve of gradient bias against batch size.
    """

    arms: tuple[str, ...] = (
        "phi",
        "none",
        "phi_paper",
        "phi_bias",
        "switch",
        "global_switch",
        "loss_free",
        "quantile",
        "simbal",
        "sinkhorn",
    )
    headline: tuple[str, ...] = ("phi", "none", "switch", "quantile")
    headline_seeds: int = 10
    seeds: int = 5
    pure_arms: tuple[str, ...] = ("phi", "switch", "global_switch", "quantile")
    pure_seeds: int = 5
    grid: int = 5
    tuning_steps: int = 250
    steps: int = 700
    slack: float = 0.005
    margin: float = 0.01
    workers: int = 2
    domains: tuple[str, ...] = ("plays", "novels", "python", "reference")
    characters: int = 150_000
    dim: int = 64
    heads: int = 4
    layers: int = 4
    hidden: int = 64
    n_experts: int = 16
    top_k: int = 2
    length: int = 128
    buckets: int = 8192
    rows: int = 8
    learning_rate: float = 4e-3
    weight_decay: float = 0.1
    windows: int = 60
    permutations: int = 39
    bias_sizes: tuple[int, ...] = (16, 64, 256, 1024)
    bias_batches: int = 2000

    def setup(self, seed: int) -> Setup:
        """What all trainings share."""
        from metier_studies.moe_balancing.train import Setup

        kept = set(Setup.__slots__) - {"seed"}
        return Setup(seed=seed, **{name: getattr(self, name) for name in kept})


def run_study(config: BalancingConfig, run: Run, progress: Progress) -> Result:
    """Tune every arm alike, train every arm on the same seeds, measure, compare."""
    from metier_studies.moe_balancing.arms import ARMS
    from metier_studies.moe_balancing.bias import bias_curves
    from metier_studies.moe_balancing.findings import findings

    unknown = [arm for arm in (*config.arms, *config.headline, *config.pure_arms) if arm not in ARMS]
    if unknown or config.arms[:1] != ("phi",):
        raise InputError(
            "arms name balancers, phi first",
            expected="phi, and others of " + ", ".join(ARMS),
            got=", ".join(unknown or config.arms),
            next_step="Correct --set arms=...",
        )
    setup = config.setup(run.seed)
    facts = run.cell("corpus", lambda: corpus_facts(setup))
    tuned = tune(config, setup, run, progress)
    progress.stage("every balancer on the same seeds, batches of all domains")
    mixed = compare(config, setup, run, progress, tuned, pure=False)
    progress.stage("batches of a single domain")
    pure = compare(config, setup, run, progress, tuned, pure=True)
    progress.stage("gradient bias against batch size, at fixed weights")
    curves = run.cell(
        "bias",
        lambda: bias_curves(
            setup, steps=config.tuning_steps, sizes=config.bias_sizes, n_batches=config.bias_batches
        ),
    )
    return findings(config, run, facts=facts, tuned=tuned, mixed=mixed, pure=pure, curves=curves)


def corpus_facts(setup: Setup) -> dict[str, Any]:
    """What the text is, and the loss of the tuned n-gram on it."""
    from metier_studies.moe_balancing.ngram import tuned_ngram
    from metier_studies.moe_balancing.train import corpus_of, held_out

    corpus = corpus_of(setup.seed, setup.domains, setup.characters)
    tune, val = held_out(setup, "tune"), held_out(setup, "val")
    return {
        "domains": list(corpus.domains),
        "sha256": list(corpus.sha256),
        "provenance": list(corpus.provenance),
        "bytes": {name: [int(row.size) for row in split.tokens] for name, split in corpus.splits.items()},
        "val_documents": len(set(val.documents.tolist())),
        "val_windows": len(val.tokens),
        "ngram": tuned_ngram(corpus.splits["train"].tokens, tune.tokens, val.tokens),
    }


def tune(config: BalancingConfig, setup: Setup, run: Run, progress: Progress) -> dict[str, Any]:
    """Try the same number of strengths for every arm; grow the grid where the best is at its edge."""
    from metier_studies.moe_balancing.arms import ARMS
    from metier_studies.moe_balancing.train import Training

    tried: dict[str, dict[float, dict[str, Any]]] = {arm: {} for arm in config.arms}
    if config.grid > 1:
        progress.stage(f"{config.grid} strengths of every balancer, {config.tuning_steps} steps each")
    wanted = {arm: [s for s in ARMS[arm].grid(config.grid) if s is not None] for arm in config.arms}
    for _ in range(1 + EXTENSIONS if config.grid > 1 else 0):
        tasks = [
            (arm, strength)
            for arm, strengths in wanted.items()
            for strength in strengths
            if strength not in tried[arm]
        ]
        work = [
            (
                f"tune/{arm}/{strength:.6g}",
                Training(
                    arm=arm,
                    strength=strength,
                    replicate=TUNING_REPLICATE,
                    pure=False,
                    steps=config.tuning_steps,
                    split="tune",
                    setup=setup,
                ),
            )
            for arm, strength in tasks
        ]
        for (arm, strength), found in zip(tasks, trained(config, run, progress, work, "tuning"), strict=True):
            tried[arm][strength] = found
        wanted = {arm: _beyond_edge(trials, ARMS[arm].ratio, config.slack) for arm, trials in tried.items()}
    return {
        arm: {
            "strength": chosen(trials, config.slack) if trials else ARMS[arm].strength,
            "trials": [[s, t["loss"], t["max_vio"]] for s, t in sorted(trials.items())],
        }
        for arm, trials in tried.items()
    }


def chosen(trials: dict[float, dict[str, Any]], slack: float) -> float:
    """Among the strengths within `slack` of the least loss, the one with the most even experts.

    Example:
        >>> chosen({0.1: {"loss": 2.0, "max_vio": 3.0}, 0.2: {"loss": 2.001, "max_vio": 1.0}}, 0.01)
        0.2
    """
    best = min(t["loss"] for t in trials.values())
    near = [s for s, t in trials.items() if t["loss"] <= best + slack]
    return min(near, key=lambda s: trials[s]["max_vio"])


def _beyond_edge(trials: dict[float, dict[str, Any]], ratio: float, slack: float) -> list[float]:
    if not trials:
        return []
    best, known = chosen(trials, slack), sorted(trials)
    if best == known[0]:
        return [best / ratio]
    return [best * ratio] if best == known[-1] else []


def compare(
    config: BalancingConfig,
    setup: Setup,
    run: Run,
    progress: Progress,
    tuned: dict[str, Any],
    *,
    pure: bool,
) -> dict[str, list[dict[str, Any]]]:
    """Train the arms at their strengths; replicate r is the same weights and batches for all of them."""
    from metier_studies.moe_balancing.train import Training

    arms = [arm for arm in config.arms if not pure or arm in config.pure_arms]
    n_seeds = {
        arm: config.pure_seeds if pure else config.headline_seeds if arm in config.headline else config.seeds
        for arm in arms
    }
    tasks = [(r, arm) for r in range(max(n_seeds.values(), default=0)) for arm in arms if r < n_seeds[arm]]
    work = [
        (
            f"{'pure' if pure else 'mixed'}/{arm}/seed-{replicate}",
            Training(
                arm=arm,
                strength=tuned[arm]["strength"],
                replicate=replicate,
                pure=pure,
                steps=config.steps,
                split="val",
                setup=setup,
            ),
        )
        for replicate, arm in tasks
    ]
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    done = trained(config, run, progress, work, "pure batches" if pure else "mixed batches")
    for (_, arm), result in zip(tasks, done, strict=True):
        found[arm].append(result)
    return found


def trained(
    config: BalancingConfig, run: Run, progress: Progress, work: Sequence[tuple[str, Training]], words: str
) -> list[dict[str, Any]]:
    """Train what the journal lacks, `workers` at a time, each a cell of its own."""
    from metier_studies.lib.cells import journaled
    from metier_studies.moe_balancing.train import train

    return journaled(train, work, run, progress, workers=config.workers, words=words)


STUDY = Study(
    name="moe-balancing",
    family="moe",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": BalancingConfig(
            arms=("phi", "none", "switch", "quantile"),
            headline_seeds=3,
            pure_arms=("phi", "switch"),
            pure_seeds=2,
            grid=1,
            tuning_steps=100,
            steps=120,
            layers=2,
            length=64,
            characters=100_000,
            buckets=4096,
            windows=24,
            permutations=19,
            bias_sizes=(16, 64, 256),
            bias_batches=1000,
        ),
        "standard": BalancingConfig(),
        "full": BalancingConfig(
            headline_seeds=20, seeds=20, pure_seeds=20, steps=3000, tuning_steps=1000, dim=96
        ),
    },
    run=run_study,
    claims=(
        "below-ngram",
        "evenness",
        "cost-of-balance",
        "phi-or-switch",
        "phi-or-quantile",
        "phi-or-quantile-evenness",
        "domain-information",
        "pure-information",
        "bias-lagged",
        "bias-lagged-pure",
    ),
    paired_on=(
        "domains",
        "characters",
        "dim",
        "heads",
        "layers",
        "hidden",
        "n_experts",
        "top_k",
        "length",
        "buckets",
        "rows",
        "steps",
        "windows",
        "headline_seeds",
        "learning_rate",
        "weight_decay",
    ),
)
