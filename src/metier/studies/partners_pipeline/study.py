"""Study `partners`: does a generalist that trained with specialists cooperate better with strangers?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from metier.runs import Result, Run
from metier.studies.base import Progress, Study, input_error

TITLE = "Partners: does a generalist profit from specialist partners?"
QUESTION = (
    "Partners are trained by self-play, made different by cross-play minimization, and freed of handshakes "
    "by distillation. How much does each population do, how decided and how overfit is it, and does a "
    "generalist that learns with it cooperate better with specialists it never met?"
)
BASELINE = "self-play"
SOURCES = {
    "self-play": None,
    "xp-min": None,
    "xp-min+mi": None,
    "xp-min+mp": None,
    "xp-min+spectrl": "xp-min",
    "xp-min+dagger": "xp-min",
    "xp-min+mi+spectrl": "xp-min+mi",
    "xp-min+mi+dagger": "xp-min+mi",
}
"""Every arm, and the arm whose members it distils."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnersConfig:
    """What the study trains and how it looks at it. Steps are environment steps of a whole population.

    Args:
        game: "lever" (exact, small) or "cooking" (the paper's kitchen).
        n_members: partners in each population.
        n_seeds: whole pipelines, each with its own seed.
        arms: populations; a distilled one after its source.
        self_play_steps: of the self-play population.
        generation_steps: of each population with cross-play minimization.
        distill_steps: of each distillation.
        generalist_steps: of each generalist.
        oracle_steps: of the oracle generalist, which trains with scripted specialists.
        n_envs: environments per member, pair and seating.
        generalist_envs: environments per partner and seating of a generalist.
        n_steps: steps per environment and iteration.
        epochs: passes over the data of an iteration.
        minibatches: per pass.
        learning_rate: of Adam.
        entropy_weight: of the policies' entropy.
        hidden: the partners' dense layers.
        generalist_units: of the generalist's GRU.
        xp_weight: lambda_X.
        mi_weight: lambda_MI of the arms with "mi".
        mixed_play_weight: lambda_MP of the arm with "mp".
        dagger_weight: lambda_D.
        noise: share of random actions of the held-out scripted cooks.
        episodes: per partner, half in either seat.
    """

    game: Literal["lever", "cooking"] = "cooking"
    n_members: int = 4
    n_seeds: int = 3
    arms: tuple[str, ...] = ("self-play", "xp-min", "xp-min+dagger")
    self_play_steps: int = 8_000_000
    generation_steps: int = 16_000_000
    distill_steps: int = 8_000_000
    generalist_steps: int = 4_000_000
    oracle_steps: int = 4_000_000
    n_envs: int = 64
    generalist_envs: int = 16
    n_steps: int = 128
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 5e-4
    entropy_weight: float = 0.03
    hidden: tuple[int, ...] = (64, 64)
    generalist_units: int = 64
    xp_weight: float = 0.3
    mi_weight: float = 0.5
    mixed_play_weight: float = 0.1
    dagger_weight: float = 0.1
    noise: float = 0.0
    episodes: int = 200


def check_config(config: PartnersConfig) -> None:
    """Refuse arms that are unknown, twice there, or before their source; too few members; odd episodes."""
    for place, arm in enumerate(config.arms):
        if arm not in SOURCES:
            raise input_error(
                "arms are known populations",
                expected=" | ".join(SOURCES),
                got=repr(arm),
                next_step="Correct --set arms=...",
            )
        source = SOURCES[arm]
        if arm in config.arms[:place] or (source is not None and source not in config.arms[:place]):
            raise input_error(
                "each arm comes once, and after the arm it distils",
                expected=f"{source or 'no second'} before {arm}" if source else f"{arm} once",
                got=", ".join(config.arms),
                next_step="Correct --set arms=...",
            )
    if BASELINE not in config.arms or len(config.arms) < 2:
        raise input_error(
            "specialists are compared with self-play",
            expected=f"{BASELINE!r} and at least one other arm",
            got=", ".join(config.arms),
            next_step=f"Put {BASELINE} first.",
        )
    if config.n_members < 2 or config.n_seeds < 1 or config.episodes < 4 or config.episodes % 2:
        raise input_error(
            "members, seeds and episodes are enough to measure",
            expected="2 members, 1 seed and an even number of at least 4 episodes, or more",
            got=f"n_members={config.n_members}, n_seeds={config.n_seeds}, episodes={config.episodes}",
            next_step="Raise the one that is too small.",
        )


def run_study(config: PartnersConfig, run: Run, progress: Progress) -> Result:
    """Run every seed's pipeline, arm by arm; every training keeps its own checkpoint in the run folder."""
    check_config(config)
    from metier.partners import dispatch_in_turn

    dispatch_in_turn()

    from .findings import findings
    from .pipeline import Pipeline

    cells: dict[str, list[dict[str, Any]]] = {arm: [] for arm in config.arms}
    oracles: list[dict[str, Any]] = []
    for seed in progress.track(range(config.n_seeds), "pipelines", total=config.n_seeds):
        pipeline = Pipeline(config, run.folder / "populations", run.seed, seed)
        progress.stage(f"seed {seed}: an oracle generalist, trained with scripted specialists")
        oracles.append(run.cell(f"seed-{seed}/oracle", pipeline.oracle_facts))
        for arm in config.arms:
            progress.stage(f"seed {seed}: {arm}, its partners and the generalist that trains with them")
            cells[arm].append(run.cell(f"seed-{seed}/{arm}", partial(pipeline.facts, arm)))
    return findings(config, cells, oracles, run)


STUDY = Study(
    name="partners",
    family="partners",
    title=TITLE,
    question=QUESTION,
    sizes={
        "tour": PartnersConfig(
            game="lever",
            n_members=8,
            n_seeds=2,
            self_play_steps=400_000,
            generation_steps=1_600_000,
            distill_steps=400_000,
            generalist_steps=400_000,
            oracle_steps=400_000,
            n_envs=32,
            generalist_envs=16,
            n_steps=16,
            epochs=2,
            minibatches=2,
            learning_rate=3e-3,
            entropy_weight=0.01,
            hidden=(32,),
            generalist_units=32,
            xp_weight=0.5,
            episodes=100,
        ),
        "standard": PartnersConfig(),
        "full": PartnersConfig(
            n_members=8,
            n_seeds=3,
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
            generation_steps=80_000_000,
            distill_steps=40_000_000,
            generalist_steps=20_000_000,
            oracle_steps=20_000_000,
        ),
    },
    run=run_study,
    claims=(
        "specialists-count",
        "more-information",
        "less-overfit",
        "keeps-information",
        "specialists-pay",
    ),
    paired_on=("game", "n_members", "n_seeds", "episodes", "noise"),
)
