"""SpecTRL and DAgger: who sits where, whose label it is, what a latent does, and that nothing else moves."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metier.core import InputError
from metier.partners import PPO, Population, distill
from metier.partners.games import LeverGame, reset_pool
from metier.partners.training.actors import Actor, log_prob
from metier.partners.training.distill import Distillation
from metier.partners.training.loop import fresh_state
from metier.partners.training.students import cross_entropy, student_batch, student_logits

GAME = LeverGame(n_levers=3, n_stages=4)
QUICK = PPO(n_envs=16, n_steps=8, epochs=1, minibatches=2, learning_rate=1e-2)
STRONG = 40.0


def sources(gru_units=0):
    """Three members with a latent of three values; the same shapes everywhere, so that they compile once."""
    actor = Actor.for_game(GAME, hidden=(8,), gru_units=gru_units, n_latents=3)
    return Population.fresh(GAME, n_members=3, rng=3, actor=actor)


def blank():
    """Members whose logits are all 0."""
    population = sources()
    return population, jax.tree.map(jnp.zeros_like, population.params)


def stubborn():
    """Member k always pulls lever k."""
    population, params = blank()
    params["head"]["b"] = STRONG * jnp.eye(3)
    return Population(population.game, population.actor, params)


def following_inputs(first_input, n_levers=3):
    """Three members that pull lever k < n_levers where input `first_input` + k is 1."""
    population, params = blank()
    for k in range(n_levers):
        params["dense0"]["w"] = params["dense0"]["w"].at[:, first_input + k, k].set(1.0)
        params["head"]["w"] = params["head"]["w"].at[:, k, k].set(STRONG)
    return Population(population.game, population.actor, params)


def trainer_of(population, **options):
    units = population.actor.network.gru_units
    student = Actor.for_game(GAME, hidden=(8,), gru_units=units)
    return Distillation(
        GAME, student, QUICK, len(population), population.actor, population.params, 0.1, **options
    )


def lessons(trainer, seed=0):
    """One iteration's chunks of every student, both seatings: leaves (members, steps, envs, ...)."""

    state = fresh_state(trainer, jax.random.key(seed))
    return state, played(trainer, state)[1]


@functools.partial(jax.jit, static_argnums=0)
def played(trainer, state):
    """Compiled once for trainers of one shape; the sources are in the state."""
    pool = reset_pool(GAME, jax.random.key(5), 8)
    return jax.vmap(lambda s: trainer.collect(s, pool, jax.random.wrap_key_data(s.keys)))(state)


def test_students_should_meet_only_their_own_source_in_both_seats():
    """No other pairing; equally many steps and environments in either seat."""
    _, chunks = lessons(trainer_of(stubborn()))
    assert len(chunks) == 2
    for seat, chunk in enumerate(chunks):
        assert chunk.seats.mate_actions.shape == (3, QUICK.n_steps, QUICK.n_envs)
        for member in range(3):
            assert (chunk.seats.mate_actions[member] == member).all()
        # The game saw exactly these two: the next observation shows the last levers of own seat and mate.
        goes_on = ~np.asarray(chunk.done)[:, :-1]
        seen = np.asarray(chunk.observations)[:, 1:, :, seat]
        own, mate = seen[..., :4].argmax(-1), seen[..., 4:8].argmax(-1)
        np.testing.assert_array_equal(own[goes_on], np.asarray(chunk.seats.actions)[:, :-1][goes_on])
        np.testing.assert_array_equal(mate[goes_on], np.asarray(chunk.seats.mate_actions)[:, :-1][goes_on])


def test_labels_should_come_from_the_students_own_seat():
    """The source's choice in the seat that the student has, not in its own."""
    by_seat = following_inputs(GAME.observation_size, 2)  # lever 0 in seat 0, lever 1 in seat 1
    _, chunks = lessons(trainer_of(by_seat))
    for seat, chunk in enumerate(chunks):
        assert (chunk.seats.labels.argmax(-1) == seat).all()
        assert (chunk.seats.mate_actions == 1 - seat).all()


def test_latents_should_be_drawn_per_seat_and_kept_through_an_episode():
    """the sitting source and the labeller have a z each; the student has none."""
    by_latent = following_inputs(GAME.observation_size + 2)
    trainer = trainer_of(by_latent)
    assert trainer.actor.n_latents == 0
    both = {"labels": [], "mates": []}
    for seed in range(6):
        for chunk in lessons(trainer, seed)[1]:
            starts = np.asarray(chunk.starts)[0]
            labels, mates = (
                np.asarray(chunk.seats.labels)[0].argmax(-1),
                np.asarray(chunk.seats.mate_actions)[0],
            )
            for kept in (labels, mates):
                assert (kept[1:] == kept[:-1])[~starts[1:]].all()
            both["labels"].append(labels[starts])
            both["mates"].append(mates[starts])
    z, other = (np.concatenate(both[name]) for name in ("labels", "mates"))
    n = len(z)
    # Two-sided at 4 standard errors: a fair die fails once in 15,000 runs, for each of the counts.
    bound = 4 * np.sqrt(n * (1 / 3) * (2 / 3))
    for k in range(3):
        assert abs((z == k).sum() - n / 3) <= bound
        assert abs((other == k).sum() - n / 3) <= bound
    assert abs((z == other).sum() - n / 3) <= bound


@pytest.mark.slow
def test_ratio_should_be_one_for_students_with_memory_across_episode_ends():
    """The second chunk begins in the middle of episodes, in both seats."""
    trainer = trainer_of(sources(gru_units=5))
    state = fresh_state(trainer, jax.random.key(0))
    state = state._replace(params=jax.tree.map(lambda leaf: 3.0 * leaf + 0.1, state.params))
    running, _ = played(trainer, state)
    keys = jax.random.key_data(jax.random.split(jax.random.key(1), 3))
    _, chunks = played(trainer, state._replace(running=running, keys=keys))

    @jax.jit
    def ratios(params, chunks):
        gain = jnp.zeros((2, QUICK.n_steps, QUICK.n_envs))
        (seen, actions, old, starts, _, _), hidden = student_batch(chunks, gain, jax.random.key(0), "full")
        logits = student_logits(trainer.actor, params, seen, starts, hidden)
        return jnp.exp(log_prob(logits, actions) - old)

    for chunk in chunks:
        assert chunk.starts[:, 1:].any()
        assert not chunk.starts[:, 0].all()
        assert float(jnp.abs(chunk.seats.hidden).max()) > 0.01
    np.testing.assert_allclose(jax.vmap(ratios)(state.params, chunks), 1.0, atol=1e-5)
    wrong = [chunk._replace(starts=jnp.roll(chunk.starts, 1, axis=1)) for chunk in chunks]
    assert float(jnp.abs(jax.vmap(ratios)(state.params, tuple(wrong)) - 1.0).max()) > 1e-3


def test_imitation_should_leave_a_perfect_student_alone():
    """Gradient 0 when student = source, not 0 elsewhere; sampled labels agree on average."""
    source = sources()
    params = jax.tree.map(lambda leaf: 4.0 * leaf, source.params)
    # The source does not look at its latent, so that a student without one can be the same.
    params["dense0"]["w"] = params["dense0"]["w"].at[:, -3:].set(0.0)
    source = Population(source.game, source.actor, params)
    trainer = trainer_of(source)
    state, chunks = lessons(trainer)
    chunks = jax.tree.map(lambda leaf: leaf[0], chunks)
    advantage = jnp.zeros((2, QUICK.n_steps, QUICK.n_envs))

    @functools.partial(jax.jit, static_argnums=1)
    def gradient(params, labels, seed=0):
        (seen, _, _, starts, _, p), hidden = student_batch(chunks, advantage, jax.random.key(seed), labels)
        fn = jax.grad(lambda q: cross_entropy(p, student_logits(trainer.actor, q, seen, starts, hidden)))
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(fn(params))])

    same = jax.tree.map(lambda leaf: leaf[0], source.params)
    same["dense0"]["w"] = same["dense0"]["w"][:-3]
    fresh = jax.tree.map(lambda leaf: leaf[0], state.params)
    assert float(jnp.abs(gradient(same, "full")).max()) <= 1e-6
    full = gradient(fresh, "full")
    assert float(jnp.abs(full).max()) > 1e-3
    draws = np.stack([np.asarray(gradient(fresh, "sampled", seed)) for seed in range(40)])
    assert draws.std(axis=0).max() > 1e-4
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    # 4.5 standard errors at each of some 200 coordinates: a false alarm in about 1 of 700 seeds.
    assert (np.abs(draws.mean(axis=0) - full) <= 4.5 * error + 1e-6).all()


@pytest.mark.slow
def test_no_imitation_should_be_spectrl_and_sources_should_stay_as_they_were():
    """Weight 0 equals SpecTRL bit for bit. Sources stay bit-identical. And students learn."""
    taught = stubborn()
    before = jax.tree.map(lambda leaf: np.array(leaf), taught.params)
    steps = 60 * 3 * 2 * QUICK.n_envs * QUICK.n_steps
    options = {"steps": steps, "ppo": QUICK, "reports": 1}
    plain = distill(taught, GAME, method="spectrl", **options)
    zero = distill(taught, GAME, method="spectrl_dagger", dagger_weight=0.0, **options)
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(zero.params), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(taught.params), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b)
    assert plain.names == taught.names
    assert plain.progress.rows[-1]["return_with_source"] > 0.9
    # Each student cooks its own source's dish at once: the first choice, alone with itself.
    start = GAME.observe(GAME.reset(None))[0]
    for member, policy in enumerate(plain):
        inputs = plain.actor.inputs(start, jnp.array(0), jnp.array(0))
        logits, _ = plain.actor.network.step(policy.params, inputs, jnp.zeros(0))
        assert float(jax.nn.softmax(logits)[member]) > 0.8


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: distill([], GAME, steps=10), "distill takes a trained population.*got list"),
        (lambda: distill(stubborn(), LeverGame(n_levers=4), steps=10), "plays the game it was trained for"),
        (lambda: distill(stubborn(), GAME, method="dagger", steps=10), "method is one of.*'spectrl_dagger'"),
        (lambda: distill(stubborn(), GAME, labels="soft", steps=10), "labels is one of"),
        (lambda: distill(stubborn(), GAME, dagger_weight=-0.1, steps=10), "dagger_weight"),
        (lambda: distill(stubborn(), GAME, steps=0), "steps is a whole number"),
    ],
)
def test_bad_settings_of_distillation_should_be_refused(call, match):
    with pytest.raises(InputError, match=match):
        call()
