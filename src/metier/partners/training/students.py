"""A student with its source in the other seat, what is kept of its play, and what it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metier.partners.games.game import N_SEATS

from .actors import Actor, Memory, draw
from .collect import Chunk


class Lesson(NamedTuple):
    """What is kept of a student's seat.

    Attributes:
        actions: The student's, int32, shape (steps, envs).
        log_probs: Of these when they were drawn, likewise.
        labels: The source's probabilities in the student's seat, float32, (steps, envs, n_actions).
        hidden: The student's memory before the first step, shape (envs, gru_units).
        mate_actions: What the source in the other seat did, int32, shape (steps, envs).
    """

    actions: Array
    log_probs: Array
    labels: Array
    hidden: Array
    mate_actions: Array


@dataclass(frozen=True, slots=True)
class StudentTeam:
    """A student in one seat, its source in the other; the source also says what it would do in the first.

    `params` is (student's, source's). Where the source has a latent z, both its sitting self and the labeller
    draw one per seat and episode; the student has none.

    Args:
        student: The student's actor.
        source: The source's.
        seat: The student's seat.
    """

    student: Actor
    source: Actor
    seat: int

    def start(self, n_envs: int) -> tuple[Memory, Memory, Memory]:
        """Return the memories of student, mate and labeller."""
        return self.student.start(n_envs), self.source.start(n_envs), self.source.start(n_envs)

    def play(
        self,
        params: tuple[Any, Any],
        observations: Array,
        memories: tuple[Memory, Memory, Memory],
        starts: Array,
        times: Array,
        uniforms: Array,
    ) -> tuple[Array, Any, Any]:
        """Let the student and its source act, and the labeller watch the student's seat."""
        own, other = self.seat, 1 - self.seat
        learner, source = params
        student, mate, labeller = memories
        # A student has no z, so that its seat's draw is free for the labeller's.
        student = self.student.begin(student, starts, uniforms[:, 2 + own])
        labeller = self.source.begin(labeller, starts, uniforms[:, 2 + own])
        mate = self.source.begin(mate, starts, uniforms[:, 2 + other])
        seen = observations[:, own]
        action, logs, student = self.student.act(learner, seen, jnp.array(own), student, uniforms[:, own])
        theirs, _, mate = self.source.act(
            source, observations[:, other], jnp.array(other), mate, uniforms[:, other]
        )
        inputs = self.source.inputs(seen, jnp.array(own), labeller.latent)
        logits, hidden = self.source.network.step(source, inputs, labeller.hidden)
        labeller = Memory(hidden, labeller.latent)
        pair = [action, theirs] if own == 0 else [theirs, action]
        record = (action, logs, jax.nn.softmax(logits), theirs)
        return jnp.stack(pair, axis=1), (student, mate, labeller), record

    def record(self, recorded: Any, memories: tuple[Memory, Memory, Memory]) -> Lesson:
        """Return the student's record."""
        actions, logs, labels, theirs = recorded
        return Lesson(actions, logs, labels, memories[0].hidden, theirs)


def student_batch(
    chunks: tuple[Chunk, Chunk], advantage: Array, key: Array, labels: str
) -> tuple[Any, Array]:
    """Return what `descend` takes: leaves (steps, envs, 2, ...), where [..., s] is the student in seat s."""
    lessons: list[Lesson] = [chunk.seats for chunk in chunks]
    observations = jnp.stack([chunk.observations[:, :, seat] for seat, chunk in enumerate(chunks)], axis=2)
    p = jnp.stack([lesson.labels for lesson in lessons], axis=2)
    if labels == "sampled":
        drawn = draw(jnp.log(p + 1e-30), jax.random.uniform(key, p.shape[:-1]))
        p = (drawn[..., None] == jnp.arange(p.shape[-1])).astype(p.dtype)
    sequences = (
        observations,
        jnp.stack([lesson.actions for lesson in lessons], axis=2),
        jnp.stack([lesson.log_probs for lesson in lessons], axis=2),
        jnp.stack([chunk.starts for chunk in chunks], axis=2),
        jnp.moveaxis(advantage, 0, 2),
        p,
    )
    return sequences, jnp.stack([lesson.hidden for lesson in lessons], axis=1)


def student_logits(actor: Actor, params: Any, observations: Array, starts: Array, hidden: Array) -> Array:
    """Return the logits in both seats, shape (steps, envs, 2, n_actions), as when they were played."""
    none = jnp.zeros(starts.shape, jnp.int32)
    return actor.unroll(params, observations, jnp.arange(N_SEATS), none, hidden, starts)


def cross_entropy(labels: Array, logits: Array) -> Array:
    """Return the mean of -sum_a p(a) log pi(a): the imitation loss, with one-hot p that of sampled labels."""
    return -(labels * jax.nn.log_softmax(logits)).sum(axis=-1).mean()
