"""Distillation of partners: students who learn with their source in the other seat, and from its choices."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metier.core import InputError, non_negative, one_of
from metier.partners.games.game import N_SEATS, Game, reset_pool

from .actors import Actor, entropy, log_prob
from .collect import Chunk, Running, begin
from .loop import OnProgress, train
from .mates import fingerprint
from .members import over_members
from .population import Population
from .ppo import (
    PPO,
    advantages,
    critic_network,
    descend,
    fit_critic,
    minibatch_order,
    normalized,
    play,
    policy_loss,
    ppo_or,
)
from .students import StudentTeam, cross_entropy, student_batch, student_logits

METHODS = ("spectrl_dagger", "spectrl")
LABELS = ("full", "sampled")


class DistillState(NamedTuple):
    """Everything of a distillation; leading axes are students, then seatings where there are two.

    Attributes:
        params: Of the students.
        sources: Of the sources, never changed.
        optimizer: Of the students.
        critic: One critic per student and seating.
        critic_optimizer: Theirs.
        running: The environments of both seatings, a tuple.
        keys: Raw random keys.
    """

    params: Any
    sources: Any
    optimizer: Any
    critic: Any
    critic_optimizer: Any
    running: tuple[Running, Running]
    keys: Array


@dataclass(frozen=True, slots=True)
class Distillation:
    """The trainer of one student per source; see `loop.Trainer`.

    The sources' parameters go into the state, so that trainers are equal, and compiled once, for all.
    """

    game: Game
    actor: Actor
    ppo: PPO
    n_members: int
    source: Actor
    sources: Any = field(compare=False)
    dagger_weight: float
    labels: str = "full"
    members: str = "auto"

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration: both seatings of every student."""
        return self.n_members * N_SEATS * self.ppo.n_envs * self.ppo.n_steps

    def team(self, seat: int) -> StudentTeam:
        """Return who plays where the student has `seat`."""
        return StudentTeam(self.actor, self.source, seat)

    def init(self, key: Array) -> DistillState:
        """Return fresh students."""
        pool = reset_pool(self.game, jax.random.fold_in(key, 1), self.ppo.n_envs)
        critic = critic_network(self.game.observation_size)

        def member(source: Any, key: Array) -> DistillState:
            actor_key, critic_key, start, keep = jax.random.split(key, 4)
            params = self.actor.init(actor_key)
            value = jax.vmap(critic.init)(jax.random.split(critic_key, N_SEATS))
            optimizer = self.ppo.optimizer()
            running = tuple(
                begin(self.game, self.team(seat), pool, jax.random.fold_in(start, seat), self.ppo.n_envs)
                for seat in range(N_SEATS)
            )
            critic_state = jax.vmap(optimizer.init)(value)
            return DistillState(
                params,
                source,
                optimizer.init(params),
                value,
                critic_state,
                running,  # type: ignore[arg-type]
                jax.random.key_data(keep),
            )

        sources = jax.tree.map(jnp.asarray, self.sources)
        return jax.vmap(member)(sources, jax.random.split(key, self.n_members))

    def with_frozen(self, state: DistillState) -> DistillState:
        """Return the state with these sources: `init` is compiled once for all."""
        return state._replace(sources=jax.tree.map(jnp.asarray, self.sources))

    def iterate(self, state: DistillState, pool: Any) -> tuple[DistillState, dict[str, Array]]:
        """Let all students play with their sources and learn once."""
        return over_members(lambda s: self.iteration(s, pool), self.members)(state)  # type: ignore[no-any-return]

    def iteration(self, state: DistillState, pool: Any) -> tuple[DistillState, dict[str, Array]]:
        """Let one student play with its source in both seatings, and learn once."""
        ppo, critic = self.ppo, critic_network(self.game.observation_size)
        key, draws, order_key, label_key = jax.random.split(jax.random.wrap_key_data(state.keys), 4)
        running, chunks = self.collect(state, pool, draws)
        stacked: Chunk = jax.tree.map(lambda *leaves: jnp.stack(leaves), *chunks)
        advantage, old = jax.vmap(lambda params, chunk: advantages(critic, params, chunk, ppo))(
            state.critic, stacked
        )
        order = minibatch_order(order_key, ppo)
        batch = student_batch(chunks, normalized(advantage), label_key, self.labels)
        params, optimizer, reports = descend(self.loss, state.params, state.optimizer, batch, order, ppo)
        value, critic_optimizer, more = jax.vmap(
            lambda params, opt, chunk, old, target: fit_critic(
                critic, params, opt, chunk, old, target, order, ppo
            )
        )(state.critic, state.critic_optimizer, stacked, old, advantage + old)
        reports["value_loss"] = more["value_loss"].mean()
        ended = sum(chunk.done.sum() for chunk in chunks)
        earned = sum(chunk.returns.sum() for chunk in chunks)
        reports["return_with_source"] = earned / jnp.maximum(ended, 1)
        after = DistillState(
            params, state.sources, optimizer, value, critic_optimizer, running, jax.random.key_data(key)
        )
        return after, reports

    def collect(
        self, state: DistillState, pool: Any, key: Array
    ) -> tuple[tuple[Running, Running], tuple[Chunk, Chunk]]:
        """Play one iteration's steps with the student left, then right."""
        played = [
            play(
                self.game,
                self.team(seat),
                (state.params, state.sources),
                state.running[seat],
                pool,
                jax.random.fold_in(key, seat),
                self.ppo,
            )
            for seat in range(N_SEATS)
        ]
        return (played[0][0], played[1][0]), (played[0][1], played[1][1])

    def loss(self, params: Any, part: Any) -> tuple[Array, dict[str, Array]]:
        """Return Lp(task) + dagger_weight NLL - entropy_weight entropy of a minibatch, and its parts."""
        (_, actions, old, starts, advantage, labels), hidden = part
        logits = student_logits(self.actor, params, part[0][0], starts, hidden)
        ratio = jnp.exp(log_prob(logits, actions) - old)
        surrogate = policy_loss(ratio, advantage, self.ppo.clip)
        disorder = entropy(logits).mean()
        gap = cross_entropy(labels, logits)
        total = surrogate - self.ppo.entropy_weight * disorder
        if self.dagger_weight:
            total = total + self.dagger_weight * gap
        return total, {"policy_loss": surrogate, "entropy": disorder, "cross_entropy": gap}


def distill(
    population: Population,
    game: Game,
    *,
    method: str = "spectrl_dagger",
    dagger_weight: float = 0.1,
    labels: str = "full",
    steps: int,
    rng: int = 0,
    ppo: PPO | None = None,
    members: str = "auto",
    folder: str | Path | None = None,
    on_progress: OnProgress | None = None,
    reports: int = 10,
) -> Population:
    r"""Train one student per member: it learns the task with its source in the other seat (SpecTRL).

    max_{A'} sum_i J(A'^i, A^{-i}) - dagger_weight E[-log A'^i(a | tau)], a ~ A^i(. | tau): the source A ->
    `population`, the student A' -> the result, i the student's seat. Sabotage earns nothing here, so that a
    student keeps its source's preference and loses its handshakes. The second term ("spectrl_dagger")
    imitates, in states that the student reaches, what the source would do in the student's own seat.

    Args:
        population: The sources; they are not changed.
        game: The game they play.
        method: "spectrl_dagger", or "spectrl" for the first term alone.
        dagger_weight: Weight of the imitation; the paper's best is 0.1.
        labels: "full": the cross-entropy with the source's probabilities; "sampled": with one action drawn
            from them (the same gradient on average, with more noise).
        steps: Environment steps in all, of both seatings of all students.
        rng: Seed.
        ppo: Settings of the learning; `n_envs` counts per student and seating.
        members: "auto", "vmap" or "loop".
        folder: Where a checkpoint is kept and looked for.
        on_progress: Called with each report.
        reports: Reports spread over the training.

    Returns:
        The students, in the order and with the names of their sources, without a latent.

    Raises:
        InputError: A population of another game, settings out of range, a checkpoint of another training.

    Example:
        >>> from metier.partners.games import LeverGame
        >>> game = LeverGame(n_levers=2, n_stages=2)
        >>> quick = PPO(n_envs=8, n_steps=4, epochs=1, minibatches=2)
        >>> sources = Population.fresh(game, n_members=2, actor=Actor.for_game(game, hidden=(8,)))
        >>> len(distill(sources, game, steps=128, ppo=quick, reports=1))
        2

    Source: Charakorn et al., NeurIPS 2024, SpecTRL and SpecTRL DAgger. The full cross-entropy, both seatings
        with equally many environments, and one z per seat and episode for sources with a latent are ours.
    """
    one_of("method", method, METHODS)
    one_of("labels", labels, LABELS)
    non_negative("dagger_weight", dagger_weight)
    population = checked_population(population, game, what="distill")
    student = Actor(
        replace(
            population.actor.network, n_inputs=population.actor.network.n_inputs - population.actor.n_latents
        )
    )
    weight = float(dagger_weight) if method == "spectrl_dagger" else 0.0
    trainer = Distillation(
        game,
        student,
        ppo_or(ppo, PPO()),
        len(population),
        population.actor,
        population.params,
        weight,
        labels,
        members,
    )
    trained = train(
        trainer,
        steps=steps,
        rng=rng,
        folder=folder,
        on_progress=on_progress,
        reports=reports,
        settings={"sources": fingerprint(population.params), "dagger_weight": weight, "labels": labels},
    ).population
    return replace(trained, names=population.names)


def checked_population(population: Any, game: Game, *, what: str) -> Population:
    """Return the population if it is one for this game.

    Raises:
        InputError: Something else, or a population of another game.
    """
    if not isinstance(population, Population):
        raise InputError(
            f"{what} takes a trained population",
            expected="a metier.partners.Population",
            got=type(population).__name__,
            next_step="Train one with train_xp_min or train_self_play, or load one with Population.load.",
        )
    population.check_game(game)
    return population
