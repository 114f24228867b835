"""Maximum entropy population: members that earn, and that do together what no single one does (MEP)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax import Array

from metier.core import non_negative, positive_int
from metier.partners.games.game import Game

from .actors import Actor
from .collect import Chunk, OneActor, begin
from .diversity import cross_log_probs, mean_policy_bonus, whole_episodes
from .loop import OnProgress, train
from .members import over_members
from .population import Population
from .ppo import PPO, play
from .self_play import SelfPlay, SelfPlayState, learn_from_own_play


@dataclass(frozen=True, slots=True)
class MaximumEntropyPopulation:
    """The trainer of a maximum entropy population; see `loop.Trainer` and `train_mep`."""

    game: Game
    actor: Actor
    ppo: PPO
    n_members: int
    population_entropy_weight: float
    members: str = "auto"

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration."""
        return self.n_members * self.ppo.n_envs * self.ppo.n_steps

    def init(self, key: Array) -> SelfPlayState:
        """Return fresh members; they have no environments, because episodes start anew at each iteration."""
        return SelfPlay(self.game, self.actor, self.ppo, self.n_members).init(key)._replace(running=())

    def iterate(self, state: SelfPlayState, pool: Any) -> tuple[SelfPlayState, dict[str, Array]]:
        """Let all members play, pay them for what others would not do, and let them learn."""
        state, chunk, orders = play_anew(self, state, pool)
        bonus = mean_policy_bonus(cross_log_probs(self.actor, state.params, chunk))
        paid = chunk._replace(rewards=chunk.rewards + self.population_entropy_weight * bonus)

        def member(state: SelfPlayState, chunk: Chunk, key: Array) -> Any:
            return learn_from_own_play(self.game, self.actor, self.ppo, state, chunk, key)

        state, reports = over_members(member, self.members)(state, paid, orders)
        return state, {**reports, "population_entropy": bonus.mean()}


def play_anew(trainer: Any, state: SelfPlayState, pool: Any) -> tuple[SelfPlayState, Chunk, Array]:
    """Return (state with new keys, every member's self-play from new episodes on, keys for learning)."""
    team, ppo = OneActor(trainer.actor), trainer.ppo

    def member(params: Any, key: Array) -> Any:
        key, start, draw, order = jax.random.split(jax.random.wrap_key_data(key), 4)
        running = begin(trainer.game, team, pool, start, ppo.n_envs)
        _, chunk = play(trainer.game, team, params, running, pool, draw, ppo)
        return jax.random.key_data(key), chunk, order

    keys, chunk, orders = over_members(member, trainer.members)(state.params, state.keys)
    return state._replace(keys=keys), chunk, orders


def train_mep(
    game: Game,
    *,
    n_members: int,
    steps: int,
    population_entropy_weight: float = 0.01,
    rng: int = 0,
    ppo: PPO | None = None,
    hidden: tuple[int, ...] = (64, 64),
    gru_units: int = 0,
    members: str = "auto",
    folder: str | Path | None = None,
    on_progress: OnProgress | None = None,
    reports: int = 10,
) -> Population:
    r"""Train a maximum entropy population (MEP): self-play paid for actions that the population rarely takes.

    Every step earns the reward plus population_entropy_weight * -log pibar(a_t | h_t), pibar the mean of all
    members' policies at the member's own history, averaged over the two seats. Averaged over members, the
    addition is the entropy of pibar, which is large where members differ and where each is random.

    Args:
        game: The game.
        n_members: Members, at least 2.
        steps: Environment steps in all.
        population_entropy_weight: alpha.
        rng: Seed; the same seed gives the same bits.
        ppo: Settings of the learning; `n_steps` is at least the game's horizon, as episodes start anew at
            each iteration. None is `PPO()` with as many steps.
        hidden: Sizes of the actors' dense layers.
        gru_units: Units of the actors' GRU; 0 for memoryless partners.
        members: "auto", "vmap" or "loop".
        folder: Where a checkpoint is kept and looked for.
        on_progress: Called with each report; "population_entropy" is H(pibar) in nats, sampled.
        reports: Reports spread over the training.

    Returns:
        The population, with its `progress`.

    Raises:
        InputError: Settings out of range, or a checkpoint of another training in the folder.

    Example:
        >>> from metier.partners.games import LeverGame
        >>> quick = {"ppo": PPO(n_envs=8, n_steps=4, epochs=1, minibatches=2), "hidden": (8,), "reports": 1}
        >>> len(train_mep(LeverGame(n_levers=2, n_stages=2), n_members=2, steps=64, **quick))
        2

    Source: Zhao et al., "Maximum Entropy Population-Based Training for Zero-Shot Human-AI Coordination", AAAI
        2023, first stage; the second, learning with the population, is `train_generalist`. Theirs updates one
        member at a time, ours all; the history of a member with memory is its own.
    """
    trainer = MaximumEntropyPopulation(
        game,
        Actor.for_game(game, hidden=hidden, gru_units=gru_units),
        whole_episodes(game, ppo),
        positive_int("n_members", n_members, minimum=2),
        non_negative("population_entropy_weight", population_entropy_weight),
        members,
    )
    return train(
        trainer,
        steps=steps,
        rng=rng,
        folder=folder,
        on_progress=on_progress,
        reports=reports,
        settings={"population_entropy_weight": trainer.population_entropy_weight},
    ).population
