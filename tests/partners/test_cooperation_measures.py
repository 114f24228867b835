"""Overfitness, robustness and trajectory information."""

from __future__ import annotations

import itertools
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metier.core import InputError, entropy
from metier.partners import (
    behaviour_information,
    latent_log_prob,
    overfitness,
    success_rates,
    trajectory_information,
)
from metier.partners.games import LeverGame


def test_overfitness_should_be_finite_without_success():
    result = overfitness([0, 0, 0], 200)
    assert 0.99 < result.value < 1.0
    assert np.isfinite(result.stderr)
    assert overfitness([200, 200], 200).value < 0.01
    assert overfitness([0, 200], 200, smoothing=0).value == 1.0


def test_harmonic_mean_should_follow_its_formula_and_error():
    """The delta-method error against 4,000 simulated populations, within 10 %."""
    rates, n = np.array([0.9, 0.5, 0.7]), 200
    rng = np.random.default_rng(0)
    drawn = [success_rates(rng.binomial(n, rates), n) for _ in range(4_000)]
    values = np.array([d.harmonic_mean for d in drawn])
    assert values.mean() == pytest.approx(3 / np.sum(1 / rates), abs=0.005)
    assert np.mean([d.stderr for d in drawn]) == pytest.approx(values.std(), rel=0.1)


def test_floor_should_be_taken_off():
    value, stderr = overfitness([50, 60], 100).above(overfitness([99, 98], 100))
    assert value == pytest.approx(overfitness([50, 60], 100).value - overfitness([99, 98], 100).value)
    assert stderr > overfitness([50, 60], 100).stderr


def test_error_above_the_floor_should_be_that_of_independent_episodes():
    """The mean error against the spread of 2,000 simulated differences (1.6 % known), within 8 %."""
    rng = np.random.default_rng(1)
    drawn = [
        overfitness(rng.binomial(60, [0.5, 0.7]), 60).above(overfitness(rng.binomial(60, [0.6, 0.6]), 60))
        for _ in range(2_000)
    ]
    values, errors = np.array(drawn).T
    # Added instead of in quadrature, two equal errors would be 41 % too large.
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.08)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (([], 10), "an empty population"),
        (([11], 10), "got 11 of 10 for partner 0. Check the order"),
        (([1, 2], [10, 0]), "got 2 of 0 for partner 1"),
        (([1.5], 10), "whole numbers"),
    ],
)
def test_success_rates_should_refuse_impossible_counts(arguments, match):
    with pytest.raises(InputError, match=match):
        success_rates(*arguments)


class TestTrajectories:
    """Against enumeration of every trajectory of a small lever game."""

    game = LeverGame(n_levers=2, n_stages=3)

    def tables(self, n=3):
        rng = np.random.default_rng(1)
        return [rng.dirichlet([0.6, 0.6], size=(3, 3, 3)) for _ in range(n)]

    def log_prob(self, table, actions):
        """Summed log-probability of one joint trajectory, both seats by the same table."""
        own, other, total = 2, 2, 0.0
        for stage, (a, b) in enumerate(actions):
            total += np.log(table[stage, own, other, a]) + np.log(table[stage, other, own, b])
            own, other = a, b
        return total

    def trajectories(self):
        """Every way an episode can go: it ends at the first match."""
        for length in range(1, 4):
            for pairs in itertools.product(itertools.product(range(2), repeat=2), repeat=length):
                early = any(a == b for a, b in pairs[:-1])
                if not early and (length == 3 or pairs[-1][0] == pairs[-1][1]):
                    yield pairs

    def test_information_should_match_enumeration(self):
        tables, ways = self.tables(), list(self.trajectories())
        logs = np.array([[self.log_prob(table, way) for table in tables] for way in ways])
        probabilities = np.exp(logs)
        np.testing.assert_allclose(probabilities.sum(axis=0), 1.0, atol=1e-12)
        w = np.array([0.5, 0.3, 0.2])
        mixture = probabilities @ w
        exact = sum(w[i] * probabilities[:, i] @ (logs[:, i] - np.log(mixture)) for i in range(3))
        rng = np.random.default_rng(2)
        drawn = np.stack([logs[rng.choice(len(ways), size=4_000, p=probabilities[:, i])] for i in range(3)])
        estimate = trajectory_information(drawn, weights=w)
        assert abs(estimate.value - exact) <= 3 * estimate.stderr
        assert estimate.stderr < 0.02

        behaviours = np.array([way[-1][0] if way[-1][0] == way[-1][1] else 2 for way in ways])
        p = np.array([[probabilities[behaviours == x, i].sum() for x in range(3)] for i in range(3)])
        assert behaviour_information(p, weights=w).information <= exact <= entropy(w)

    def test_classifier_bound_should_stay_below(self):
        tables, ways = self.tables(), list(self.trajectories())
        logs = np.array([[self.log_prob(table, way) for table in tables] for way in ways])
        rng = np.random.default_rng(3)
        train, held_out = (
            [rng.choice(len(ways), size=3_000, p=np.exp(logs[:, i])) for i in range(3)] for _ in range(2)
        )
        seen = np.array([np.bincount(draws, minlength=len(ways)) + 0.5 for draws in train])
        q = seen / seen.sum(axis=0)
        bound = np.log(3) + np.mean([np.log(q[i, draws]).mean() for i, draws in enumerate(held_out)])
        estimate = trajectory_information(np.stack([logs[draws] for draws in held_out]))
        assert bound <= estimate.value + 3 * estimate.stderr


@pytest.mark.parametrize("n", [2, 3])
def test_error_of_information_should_be_the_samples_own_spread(n):
    """Few episodes, one number at a time: each partner's log posterior, its variance with n - 1."""
    logs = np.log(np.random.default_rng(7).uniform(0.05, 1.0, size=(2, n, 2)))
    w = [0.7, 0.3]
    variance = 0.0
    for i in range(2):
        told = [
            logs[i, e, i] - math.log(sum(w[j] * math.exp(logs[i, e, j]) for j in range(2))) for e in range(n)
        ]
        variance += w[i] ** 2 * statistics.variance(told) / n
    assert trajectory_information(logs, weights=w).stderr == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_impossible_trajectories_should_stay_finite():
    logs = np.full((2, 3, 2), -np.inf)
    logs[0, :, 0] = logs[1, :, 1] = -1.0
    assert trajectory_information(logs).value == pytest.approx(np.log(2))


def test_latents_should_be_summed_out_before_seats():
    assert float(latent_log_prob(np.log([0.2, 0.4]), prior=[0.5, 0.5])) == pytest.approx(np.log(0.3))
    assert float(latent_log_prob([-np.inf, -np.inf])) == -np.inf


@pytest.mark.parametrize(
    ("logs", "match"),
    [
        (np.zeros((2, 3)), r"shape \(partners, episodes, partners\), got shape \(2, 3\)"),
        (np.full((1, 1, 1), np.nan), "got nan for episode 0 of partner 0"),
        (np.full((1, 2, 1), -np.inf), "-inf for episode 0 of partner 0 under itself"),
    ],
)
def test_trajectory_information_should_refuse_what_is_no_log_probability(logs, match):
    with pytest.raises(InputError, match=match):
        trajectory_information(logs)


def test_lever_tables_should_be_what_a_network_gives():
    """all_observations and exact fit together: a policy that always pulls lever 1 meets itself there."""
    game = LeverGame(n_levers=3, n_stages=2)
    table = jax.nn.one_hot(jnp.ones(game.all_observations().shape[:-1], jnp.int32), 3)
    np.testing.assert_allclose(game.exact(table, table).behaviours, [0, 1, 0])


def test_episodes_that_numpy_cannot_convert_should_be_refused():
    with pytest.raises(InputError, match="episodes is an array"):
        overfitness(successes=[3, 4], episodes=["", b"\x80"])
