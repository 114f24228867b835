"""Settings of the study `partners`: which populations, how long they train, how they are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metier.core import InputError

BASELINE = "self-play"
SOURCES: dict[str, str | None] = {
    "self-play": None,
    "xp-min": None,
    "xp-min+mi": None,
    "xp-min+mp": None,
    "xp-min+spectrl": "xp-min",
    "xp-min+dagger": "xp-min",
    "xp-min+mp+dagger": "xp-min+mp",
    "xp-min+mi+spectrl": "xp-min+mi",
    "xp-min+mi+dagger": "xp-min+mi",
}
"""Every arm, and the arm whose members it distils."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnersConfig:
    """What the study trains and how it looks at it. Steps are environment steps of a whole population.

    Args:
        game: "lever" (exact, small) or "cooking" (the paper's kitchen).
        layout: of the kitchen: "full_divider" (the paper's) or "small".
        payoffs: of the levers.
        stages: choices in the lever game; two leave no time to go through the levers one by one.
        n_members: partners in each population.
        n_seeds: whole pipelines, each with its own seed.
        arms: populations; a distilled one after its source.
        self_play_steps: of the self-play population.
        generation_steps: of each population with cross-play minimization.
        distill_steps: of each distillation.
        generalist_steps: of each generalist.
        oracle_steps: of the oracle generalist, which trains with scripted cooks; that of levers is a script.
        checkpoints: fractions of a population's training whose members a generalist meets as well (FCP).
        n_envs: environments per member, pair and seating.
        n_pairs: pairs that play at each iteration; none is all.
        generalist_envs: environments per partner and seating of a generalist.
        n_steps: steps per environment and iteration.
        epochs: passes over the data of an iteration.
        minibatches: per pass.
        learning_rate: of Adam.
        entropy_weight: of the policies' entropy.
        hidden: the partners' dense layers.
        generalist_units: of the generalist's GRU.
        xp_weight: lambda_X.
        xp_wait: success with itself at which a member's lambda_X is whole (ours); 0 is the paper's constant.
        mi_weight: lambda_MI of the arms with "mi".
        mixed_play_weight: lambda_MP of the arms with "mp".
        dagger_weight: lambda_D.
        noise: share of random actions of the held-out scripted cooks.
        episodes: per partner, half in either seat.
        pair_episodes: per seating of a pair in the cross-play matrix.
        prefix_steps: steps that a partner's own mate plays before the oracle takes over, in cooking.
        reports: reports of each training, which make the learning curves.
        compile_quickly: programs run for seconds, so that half the compilation is worth more than speed.
        workers: processes; each trains one chain of populations and generalists.
    """

    game: Literal["lever", "cooking"] = "cooking"
    layout: Literal["full_divider", "small"] = "full_divider"
    payoffs: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
    stages: int = 2
    n_members: int = 4
    n_seeds: int = 3
    arms: tuple[str, ...] = ("self-play", "xp-min", "xp-min+dagger")
    self_play_steps: int = 5_000_000
    generation_steps: int = 48_000_000
    distill_steps: int = 6_000_000
    generalist_steps: int = 2_500_000
    oracle_steps: int = 3_000_000
    checkpoints: tuple[float, ...] = ()
    n_envs: int = 32
    n_pairs: int | None = None
    generalist_envs: int = 8
    n_steps: int = 128
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 1e-3
    entropy_weight: float = 0.03
    hidden: tuple[int, ...] = (64, 64)
    generalist_units: int = 64
    xp_weight: float = 0.4
    xp_wait: float = 0.12
    mi_weight: float = 0.5
    mixed_play_weight: float = 0.1
    dagger_weight: float = 0.1
    noise: float = 0.0
    episodes: int = 200
    pair_episodes: int = 50
    prefix_steps: int = 10
    reports: int = 20
    compile_quickly: bool = False
    workers: int = 2


def check_config(config: PartnersConfig) -> None:
    """Refuse arms that are unknown, twice there, or before their source; too few members; odd episodes."""
    for place, arm in enumerate(config.arms):
        if arm not in SOURCES:
            raise InputError(
                "arms are known populations",
                expected=" | ".join(SOURCES),
                got=repr(arm),
                next_step="Correct --set arms=...",
            )
        source = SOURCES[arm]
        if arm in config.arms[:place] or (source is not None and source not in config.arms[:place]):
            raise InputError(
                "each arm comes once, and after the arm it distils",
                expected=f"{source or 'no second'} before {arm}" if source else f"{arm} once",
                got=", ".join(config.arms),
                next_step="Correct --set arms=...",
            )
    if config.arms[:1] != (BASELINE,) or len(config.arms) < 2:
        raise InputError(
            "the other arms are compared with self-play, the last one in the headline",
            expected=f"{BASELINE!r} first, and at least one other arm",
            got=", ".join(config.arms) or "no arm",
            next_step=f"Put {BASELINE} first, for example --set arms={BASELINE},xp-min.",
        )
    if config.n_members < 2 or config.n_seeds < 1 or config.episodes < 4 or config.episodes % 2:
        raise InputError(
            "members, seeds and episodes are enough to measure",
            expected="2 members, 1 seed and an even number of at least 4 episodes, or more",
            got=f"n_members={config.n_members}, n_seeds={config.n_seeds}, episodes={config.episodes}",
            next_step="Raise the one that is too small.",
        )
    if any(not 0.0 < share < 1.0 for share in config.checkpoints) or list(config.checkpoints) != sorted(
        set(config.checkpoints)
    ):
        raise InputError(
            "checkpoints are increasing fractions of a training",
            expected="numbers above 0 and below 1, in increasing order",
            got=repr(config.checkpoints),
            next_step="Pass for example --set checkpoints=0.25,0.5,0.75.",
        )
