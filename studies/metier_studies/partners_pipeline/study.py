"""Study `partners`: does a generalist that trained with specialists cooperate better with strangers?"""

from __future__ import annotations

from typing import Any

from metier.runs import Progress, Result, Run, Study

from .settings import PartnersConfig, check_config

TITLE = "Partners: does a generalist profit from specialist partners?"
QUESTION = (
    "Partners are trained by self-play, made different by cross-play minimization, and freed of handshakes "
    "by distillation. How much does each population do, how decided and how overfit is it, and does a "
    "generalist that learns with it cooperate better with specialists it never met?"
)
ORACLE = "oracle"
QUICK_FLAGS = ("--xla_backend_optimization_level=1", "--xla_llvm_disable_expensive_passes=true")


def run_study(config: PartnersConfig, run: Run, progress: Progress) -> Result:
    """Train every seed's chains, measure every population, and say what it comes to.

    A chain is a cell of the run; within it every training keeps its own checkpoint in the run folder, so that
    a killed run goes on in the middle of a training.
    """
    check_config(config)
    if config.compile_quickly:
        _compile_quickly()
    from metier_studies.lib.cells import journaled

    from .work import Task, measure, roots, train_chain

    folder = run.folder / "populations"

    def task(seed: int, name: str) -> Task:
        return Task(config, folder, run.seed, seed, name)

    seeds = range(config.n_seeds)
    progress.stage("populations, those that distil them, and a generalist with each, by chains")
    # Chains of one kind side by side: they take equally long.
    chains = [(seed, root) for root in roots(config) for seed in seeds]
    trained = journaled(
        train_chain,
        [(f"seed-{seed}/train/{root}", task(seed, root)) for seed, root in chains],
        run,
        progress,
        workers=config.workers,
        words="chains of trainings",
    )
    progress.stage("D, S, I, cross-play, overfitness and robustness of every population")
    measured = [(seed, name) for seed in seeds for name in (ORACLE, *config.arms)]
    found = journaled(
        measure,
        [(f"seed-{seed}/measure/{name}", task(seed, name)) for seed, name in measured],
        run,
        progress,
        workers=config.workers,
        words="populations measured",
    )
    facts: dict[str, list[dict[str, Any]]] = {name: [] for name in (ORACLE, *config.arms)}
    for (_, name), cell in zip(measured, found, strict=True):
        facts[name].append(cell)
    curves: list[dict[str, Any]] = [{} for _ in seeds]
    for (seed, _), cell in zip(chains, trained, strict=True):
        curves[seed] |= cell
    return _findings(config, run, facts, curves, task)


def _compile_quickly() -> None:
    """Let XLA leave out expensive passes in this process, if it has not begun to compile yet.

    It reads its flags once; the environment is then as it was.
    """
    import os

    import jax

    from metier.partners import dispatch_in_turn

    dispatch_in_turn()
    before = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = " ".join(filter(None, (before, *QUICK_FLAGS)))
    try:
        jax.jit(lambda x: x + 1)(0)
    finally:
        if before is None:
            del os.environ["XLA_FLAGS"]
        else:
            os.environ["XLA_FLAGS"] = before


def _findings(
    config: PartnersConfig,
    run: Run,
    facts: dict[str, list[dict[str, Any]]],
    curves: list[dict[str, Any]],
    task: Any,
) -> Result:
    from .findings import findings
    from .work import film

    episode = None
    if config.game == "cooking":
        episode = run.cell("episode", lambda: film(task(0, config.arms[-1])))
    oracles = facts.pop(ORACLE)
    return findings(config, facts, oracles, run, curves=curves, episode=episode)


STUDY = Study(
    name="partners",
    family="partners",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": PartnersConfig(
            game="lever",
            payoffs=(1.0, 0.9, 0.8, 0.7, 0.6),
            n_members=5,
            self_play_steps=60_000,
            generation_steps=600_000,
            distill_steps=200_000,
            generalist_steps=250_000,
            n_pairs=None,
            n_envs=16,
            generalist_envs=16,
            n_steps=16,
            epochs=2,
            minibatches=2,
            learning_rate=3e-3,
            hidden=(32,),
            generalist_units=32,
            xp_weight=0.75,
            xp_wait=0.0,
            episodes=100,
            reports=4,
            compile_quickly=True,
            workers=1,
        ),
        "standard": PartnersConfig(),
        "full": PartnersConfig(
            n_members=8,
            arms=(
                "self-play",
                "xp-min",
                "xp-min+mp",
                "xp-min+mi",
                "xp-min+spectrl",
                "xp-min+dagger",
                "xp-min+mi+spectrl",
                "xp-min+mi+dagger",
            ),
            self_play_steps=24_000_000,
            generation_steps=160_000_000,
            distill_steps=40_000_000,
            generalist_steps=20_000_000,
            oracle_steps=20_000_000,
            checkpoints=(0.25, 0.5, 0.75),
            n_pairs=12,
        ),
    },
    run=run_study,
    claims=(
        "specialists-count",
        "more-information",
        "more-overfit",
        "less-overfit",
        "keeps-information",
        "cross-play-pays",
        "distillation-pays",
        "mi-widens",
        "mi-blurs",
        "dagger-or-spectrl",
        "mixed-play-costs",
        "specialists-pay",
    ),
    paired_on=("game", "layout", "payoffs", "n_members", "n_seeds", "episodes", "noise"),
)
