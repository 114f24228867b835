"""SpecTRL and DAgger: who sits where, whose label it is, what a latent does, and that nothing else moves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metier.core import InputError
from metier.partners import PPO, Population, distill
from metier.partners.games import LeverGame, reset_pool
from metier.partners.training.actors import Actor
from metier.partners.training.distill import Distillation, cross_entropy, student_batch, student_logits

GAME = LeverGame(n_levers=3, n_stages=4)
QUICK = PPO(n_envs=16, n_steps=8, epochs=1, minibatches=2, learning_rate=1e-2)
STRONG = 40.0


def blank(n_members, n_latents=0):
    """Members whose logits are all 0."""
    actor = Actor.for_game(GAME, hidden=(8,), n_latents=n_latents)
    population = Population.fresh(GAME, n_members=n_members, actor=actor)
    return population, jax.tree.map(jnp.zeros_like, population.params)


def stubborn(n_members=3):
    """Member k always pulls lever k."""
    population, params = blank(n_members)
    params["head"]["b"] = STRONG * jnp.eye(3)[:n_members]
    return Population(population.game, population.actor, params)


def following_inputs(first_input, n_latents=0):
    """One member that pulls lever k where input `first_input` + k is 1."""
    population, params = blank(1, n_latents)
    for k in range(3):
        place = first_input + k
        if place < population.actor.network.n_inputs:
            params["dense0"]["w"] = params["dense0"]["w"].at[:, place, k].set(1.0)
        params["head"]["w"] = params["head"]["w"].at[:, k, k].set(STRONG)
    return Population(population.game, population.actor, params)


def trainer_of(population, **options):
    student = Actor.for_game(GAME, hidden=(8,))
    return Distillation(
        GAME, student, QUICK, len(population), population.actor, population.params, 0.1, **options
    )


def lessons(trainer, seed=0):
    """One iteration's chunks of every student, both seatings: leaves (members, steps, envs, ...)."""

    @jax.jit
    def played(key):
        state, pool = trainer.init(key), reset_pool(GAME, key, 8)
        return state, jax.vmap(lambda s: trainer.collect(s, pool, jax.random.wrap_key_data(s.keys))[1])(state)

    return played(jax.random.key(seed))


@pytest.mark.timeout(900)
def test_students_should_meet_only_their_own_source_in_both_seats():
    """Must 16: no other pairing; equally many steps and environments in either seat."""
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


@pytest.mark.timeout(900)
def test_labels_should_come_from_the_students_own_seat():
    """Must 17: the source's choice in the seat that the student has, not in its own."""
    by_seat = following_inputs(GAME.observation_size)  # lever 0 in seat 0, lever 1 in seat 1
    _, chunks = lessons(trainer_of(by_seat))
    for seat, chunk in enumerate(chunks):
        assert (chunk.seats.labels.argmax(-1) == seat).all()
        assert (chunk.seats.mate_actions == 1 - seat).all()


@pytest.mark.timeout(900)
def test_latents_should_be_drawn_per_seat_and_kept_through_an_episode():
    """Must 18 for students: the sitting source and the labeller have a z each; the student has none."""
    by_latent = following_inputs(GAME.observation_size + 2, n_latents=3)
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


@pytest.mark.timeout(900)
def test_imitation_should_leave_a_perfect_student_alone():
    """Must 17: gradient 0 when student = source, not 0 elsewhere; sampled labels agree on average."""
    source = Population.fresh(GAME, n_members=1, rng=3, actor=Actor.for_game(GAME, hidden=(8,)))
    source = Population(source.game, source.actor, jax.tree.map(lambda leaf: 4.0 * leaf, source.params))
    trainer = trainer_of(source)
    state, chunks = lessons(trainer)
    chunks = jax.tree.map(lambda leaf: leaf[0], chunks)
    advantage = jnp.zeros((2, QUICK.n_steps, QUICK.n_envs))

    def gradient(params, labels, seed=0):
        (seen, _, _, starts, _, p), hidden = student_batch(chunks, advantage, jax.random.key(seed), labels)
        fn = jax.grad(lambda q: cross_entropy(p, student_logits(trainer.actor, q, seen, starts, hidden)))
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(fn(params))])

    same = jax.tree.map(lambda leaf: leaf[0], source.params)
    fresh = jax.tree.map(lambda leaf: leaf[0], state.params)
    assert float(jnp.abs(gradient(same, "full")).max()) <= 1e-6
    full = gradient(fresh, "full")
    assert float(jnp.abs(full).max()) > 1e-3
    draws = np.stack([np.asarray(gradient(fresh, "sampled", seed)) for seed in range(40)])
    assert draws.std(axis=0).max() > 1e-4
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    # 4.5 standard errors at each of some 200 coordinates: a false alarm in about 1 of 700 seeds.
    assert (np.abs(draws.mean(axis=0) - full) <= 4.5 * error + 1e-6).all()


@pytest.mark.timeout(900)
def test_no_imitation_should_be_spectrl_and_sources_should_stay_as_they_were():
    """Must 17: weight 0 equals SpecTRL bit for bit. Must 16: sources bit-identical. And students learn."""
    sources = stubborn()
    before = jax.tree.map(lambda leaf: np.array(leaf), sources.params)
    steps = 60 * 3 * 2 * QUICK.n_envs * QUICK.n_steps
    options = {"steps": steps, "ppo": QUICK, "reports": 1}
    plain = distill(sources, GAME, method="spectrl", **options)
    zero = distill(sources, GAME, method="spectrl_dagger", dagger_weight=0.0, **options)
    for a, b in zip(jax.tree.leaves(plain.params), jax.tree.leaves(zero.params), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(jax.tree.leaves(sources.params), jax.tree.leaves(before), strict=True):
        np.testing.assert_array_equal(a, b)
    assert plain.names == sources.names
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
