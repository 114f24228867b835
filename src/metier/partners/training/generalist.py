"""A generalist: one recurrent policy that learns to cooperate with every partner of a population."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from jax import Array

from metier.core import InputError
from metier.partners.games.game import Game
from metier.partners.policies import Pure
from metier.partners.samplers import PartnerSampler, UniformSampler

from .actors import Actor, ActorPolicy
from .generalist_training import GeneralistTraining
from .loop import OnProgress, train
from .mates import fingerprint, stacked_mates
from .population import Population
from .ppo import (
    PPO,
    ppo_or,
)
from .progress import Progress


@dataclass(frozen=True, slots=True)
class Generalist(Pure):
    """A trained generalist: a `Policy` and a `PurePolicy` that can be saved.

    Args:
        game: Name of the game it was trained for.
        actor: Its shape.
        params: Its parameters.
        progress: What was reported while it was trained.
    """

    game: str
    actor: Actor
    params: Any
    progress: Progress = field(default_factory=Progress)

    def initial_state(self) -> Any:
        """Return the memory at the start of an episode."""
        return self.policy.initial_state()

    def pure_act(self, observation: Array, state: Any, key: Array) -> tuple[Array, Any]:
        """Draw an action."""
        return self.policy.pure_act(observation, state, key)

    @property
    def policy(self) -> ActorPolicy:
        """The bare policy."""
        return ActorPolicy(self.params, self.actor)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as one safetensors file; `Generalist.load` reads it."""
        params = jax.tree.map(lambda leaf: leaf[None], self.params)
        Population(self.game, self.actor, params, ("generalist",), self.progress).save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], game: Game | None = None) -> Generalist:
        """Read a generalist; with `game`, refuse one of another game.

        Raises:
            InputError: A missing or damaged file, one of another game, or one that holds several policies.
        """
        population = Population.load(path, game)
        if len(population) != 1:
            raise InputError(
                "the file holds one generalist",
                expected="1 policy",
                got=f"a population of {len(population)} in {path}",
                next_step="Read it with Population.load.",
            )
        return cls(population.game, population.actor, population[0].params, population.progress)


# The progress is for people; under `jit` only the parameters and the shape matter.
jax.tree_util.register_pytree_node(
    Generalist,
    lambda g: ((g.params,), (g.game, g.actor)),
    lambda kept, leaves: Generalist(kept[0], kept[1], leaves[0]),
)


def train_generalist(
    population: Any,
    game: Game,
    *,
    steps: int,
    rng: int = 0,
    gru_units: int = 64,
    hidden: tuple[int, ...] = (64,),
    sampler: PartnerSampler | None = None,
    ppo: PPO | None = None,
    folder: str | Path | None = None,
    on_progress: OnProgress | None = None,
    reports: int = 10,
) -> Generalist:
    r"""Train one policy with memory to cooperate with every partner, in either seat.

    max_G sum_B w_B (J(G, B) + J(B, G)) / 2: the generalist G -> the result, the frozen partners B ->
    `population`, the draw weights w -> `sampler`. Every partner plays equally many steps in either seat; the
    weights weigh its part of the loss, which is drawing partners by them with less noise.

    Args:
        population: A `Population`, or a list of JAX policies of one class, such as scripted specialists
            (the generalist is then an oracle).
        game: The game they play.
        steps: Environment steps in all, of both seatings with all partners.
        rng: Seed.
        gru_units: Units of its memory; 0 for none.
        hidden: Sizes of its dense layers.
        sampler: `UniformSampler()` (the paper's, the default), `BanditSampler()`, `CapacitySampler(...)`.
        ppo: Settings of the learning; `n_envs` counts per partner and seating. None is 16 environments.
        folder: Where a checkpoint is kept and looked for.
        on_progress: Called with each report: "partner_return", "worst_partner_return", "partner_success".
        reports: Reports spread over the training.

    Returns:
        The generalist, a policy.

    Raises:
        InputError: No partners, partners of another game or that are no JAX policies, settings out of range,
            or a checkpoint of another training.

    Example:
        >>> from metier.partners.games import LeverGame
        >>> from metier.partners.policies import ConstantPolicy
        >>> quick = {"ppo": PPO(n_envs=8, n_steps=4, epochs=1, minibatches=2), "hidden": (8,), "reports": 1}
        >>> specialists = [ConstantPolicy(0), ConstantPolicy(1)]
        >>> game = LeverGame(n_levers=2, n_stages=2)
        >>> generalist = train_generalist(specialists, game, steps=128, **quick)
        >>> generalist.game
        'lever'

    Source: Charakorn et al., NeurIPS 2024, after RL^2. Ours: one GRU layer on the observation alone (theirs:
        two, with the previous reward and action), and a critic per partner and seating.
    """
    mate, mates, n_partners = stacked_mates(population, game)
    if sampler is not None and (isinstance(sampler, type) or not isinstance(sampler, PartnerSampler)):
        raise InputError(
            "sampler says how much each partner counts",
            expected="UniformSampler(), BanditSampler(), CapacitySampler(...) or one of your own",
            got=repr(sampler),
            next_step="Leave it out for equal weights.",
        )
    trainer = GeneralistTraining(
        game,
        Actor.for_game(game, hidden=hidden, gru_units=gru_units),
        ppo_or(ppo, PPO(n_envs=16)),
        mate,
        mates,
        n_partners,
        sampler or UniformSampler(),
    )
    trained = train(
        trainer,
        steps=steps,
        rng=rng,
        folder=folder,
        on_progress=on_progress,
        reports=reports,
        settings={"partners": fingerprint(mates), "sampler": repr(trainer.sampler)},
    ).population
    return Generalist(game.name, trainer.actor, trained[0].params, trained.progress)
