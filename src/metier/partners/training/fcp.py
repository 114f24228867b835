"""Fictitious co-play: teams trained by self-play, and their earlier selves as partners of less skill."""

from __future__ import annotations

from pathlib import Path

from metier.core import InputError, open_fraction, positive_int
from metier.partners.games.game import Game

from .actors import Actor
from .loop import OnProgress, train
from .population import Population
from .ppo import PPO, ppo_or
from .self_play import SelfPlay


def train_fcp(
    game: Game,
    *,
    n_members: int,
    steps: int,
    checkpoints: tuple[float, ...] = (0.25, 0.5, 0.75),
    rng: int = 0,
    ppo: PPO | None = None,
    hidden: tuple[int, ...] = (64, 64),
    gru_units: int = 0,
    members: str = "auto",
    folder: str | Path | None = None,
    on_progress: OnProgress | None = None,
    reports: int = 10,
) -> Population:
    """Train teams by self-play and keep their earlier selves as partners of less skill.

    Args:
        game: The game.
        n_members: Teams.
        steps: Environment steps in all.
        checkpoints: Fractions of the training after which every member is kept, each above 0 and below 1.
        rng: Seed.
        ppo: Settings of the learning.
        hidden: Sizes of the actors' dense layers.
        gru_units: Units of the actors' GRU.
        members: "auto", "vmap" or "loop".
        folder: Where a checkpoint is kept and looked for.
        on_progress: Called with each report.
        reports: Reports spread over the training.

    Returns:
        n_members x (1 + checkpoints) partners: first the finished ones, then the earlier ones by fraction.

    Raises:
        InputError: As `train_self_play`, or fractions outside (0, 1) or not increasing.

    Source: Strouse et al., "Collaborating with Humans without Human Data", NeurIPS 2021 (fictitious
        co-play); the fractions are ours.
    """
    for fraction in checkpoints if isinstance(checkpoints, tuple | list) else (None,):
        open_fraction("checkpoints", fraction)
    if list(checkpoints) != sorted(set(checkpoints)):
        raise InputError(
            "checkpoints increase",
            expected="fractions of the training in increasing order",
            got=repr(checkpoints),
            next_step="Pass for example checkpoints=(0.25, 0.5, 0.75).",
        )
    actor = Actor.for_game(game, hidden=hidden, gru_units=gru_units)
    trainer = SelfPlay(game, actor, ppo_or(ppo, PPO()), positive_int("n_members", n_members), members)
    trained = train(
        trainer,
        steps=steps,
        rng=rng,
        folder=folder,
        on_progress=on_progress,
        reports=reports,
        snapshots=checkpoints,
    )
    population = trained.population
    for at, params in trained.snapshots:
        names = tuple(f"{name} at {at:,} steps" for name in population.names[:n_members])
        population = population.joined(Population(game.name, actor, params, names))
    return population
