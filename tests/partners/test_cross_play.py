"""Cross-play, evaluation, handshakes and sabotage with policies of every make."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from metier.core import InputError
from metier.partners import (
    ConstantPolicy,
    Policy,
    Population,
    PurePolicy,
    UniformPolicy,
    cross_play,
    evaluate,
    handshake_split,
    sabotage_gap,
)
from metier.partners.games import Cooking, LeverGame, MatrixGame, specialists
from metier.partners.rollout import play


class Called:
    """A pure policy as a stranger would bring it: nothing but `act`."""

    def __init__(self, policy):
        self.policy = policy

    def act(self, observation, state, rng):
        return self.policy.act(observation, state, rng)


class Script:
    def __init__(self, choose):
        self.choose = choose

    def act(self, observation, state, rng):
        return self.choose(observation, rng), None


def test_provided_policies_should_keep_both_contracts():
    for policy in (UniformPolicy(3), ConstantPolicy(1), *specialists(Cooking(layout="small"))):
        assert isinstance(policy, Policy)
        assert isinstance(policy, PurePolicy)


def test_returns_should_be_the_mean_of_both_seatings():
    """Symmetric, and half of the paper's sum."""
    game = LeverGame(n_levers=2, n_stages=1)
    by_seat = Script(lambda seen, rng: int(seen[-1] > 0.5))  # lever 0 in seat 0, lever 1 in seat 1
    pairs = cross_play([by_seat, ConstantPolicy(0), ConstantPolicy(1)], game, episodes=3)
    np.testing.assert_array_equal(pairs.seated_returns, [[0, 1, 0], [0, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(pairs.returns, pairs.returns.T)


def test_seating_should_matter_only_before_the_mean():
    game = LeverGame(n_levers=3, n_stages=1)
    left_zero = Script(lambda seen, rng: 0 if seen[-2] > 0.5 else 2)
    pairs = cross_play([left_zero, ConstantPolicy(0)], game, episodes=2)
    np.testing.assert_array_equal(pairs.seated_returns, [[0, 1], [0, 1]])
    np.testing.assert_array_equal(pairs.returns, [[0, 0.5], [0.5, 1]])


def test_called_and_pure_policies_should_be_played_alike():
    """The fast path under one `jit` and the plain calls of `act` agree with the exact value."""
    game = LeverGame(n_levers=3, n_stages=3, discount=0.9)
    coin = jnp.full((3, 4, 4, 3), 1 / 3)
    exact = game.exact(coin, coin)
    pure, called = UniformPolicy(3), Called(UniformPolicy(3))
    for first, second, episodes in ((pure, pure, 20_000), (called, pure, 400), (called, called, 400)):
        played = play(first, second, game, episodes=episodes, rng=np.random.default_rng(0))
        error = 4 * played.returns.std() / np.sqrt(episodes)
        assert abs(played.returns.mean() - float(exact.expected_return)) <= error
        assert abs(played.successes / episodes - (1 - float(exact.failure))) <= 4 * np.sqrt(0.25 / episodes)
        assert played.lengths.max() == 3
        assert played.counts(3).sum() == played.successes


@pytest.mark.slow
def test_deterministic_play_should_not_depend_on_the_path():
    game = Cooking(layout="small")
    partner = specialists(game)[2]
    fast = play(partner, partner, game, episodes=10, rng=np.random.default_rng(1))
    slow = play(Called(partner), partner, game, episodes=10, rng=np.random.default_rng(1))
    np.testing.assert_array_equal(fast.behaviours, slow.behaviours)
    assert set(fast.behaviours) == {2}
    assert abs(fast.lengths.mean() - slow.lengths.mean()) < 15


def test_same_seed_should_give_the_same_bits():
    game = LeverGame(n_levers=2, n_stages=1)
    policies = [UniformPolicy(2), Called(UniformPolicy(2))]
    one, two = (cross_play(policies, game, episodes=3, rng=7) for _ in range(2))
    assert one.seated_returns.std() > 0
    np.testing.assert_array_equal(one.seated_returns, two.seated_returns)


@pytest.mark.slow
def test_specialists_should_cook_their_recipe_and_nothing_else():
    """No handshake, S = 0: each of six recipes, 50 episodes, without and with 10 % random actions."""
    game = Cooking()
    for noise in (0.0, 0.1):
        for recipe, partner in enumerate(specialists(game, noise=noise)):
            played = play(partner, partner, game, episodes=50, rng=np.random.default_rng(2))
            assert played.counts(6)[recipe] == played.successes
            assert played.successes == 50
    pairs = cross_play(specialists(game)[:3], game, episodes=50)
    told = pairs.self_play.information(correction="none")
    assert told.information == pytest.approx(np.log(3))
    assert told.specialization == 0.0


class Secretive:
    """Opens with lever 1 or 2 by seat and expects its mate to do so too; then lever 3, or sabotage."""

    def act(self, observation, state, rng):
        seat, other, stage = (
            int(observation[-1] > 0.5),
            observation[5:10].argmax(),
            observation[10:14].argmax(),
        )
        if stage == 0:
            return 1 + seat, False
        fooled = other != 2 - seat if stage == 1 else state
        return (int((other + 1 + rng.integers(2)) % 4) if fooled else 3), fooled


class Frank:
    """Opens as the secretive one does, and then means lever 3 whoever it meets."""

    def act(self, observation, state, rng):
        return (1 + int(observation[-1] > 0.5) if observation[10] > 0.5 else 3), None


class Uninitiated:
    """Knows that lever 3 is meant, not how to open."""

    def act(self, observation, state, rng):
        return (0 if observation[9] > 0.5 else 3), None


class Plain:
    """Stays with lever 3 whoever it meets."""

    def act(self, observation, state, rng):
        return 3, None


def test_handshake_index_should_find_secret_first_moves():
    """Above .9 for a secret opening, below .1 for partners without one."""
    game = LeverGame(n_levers=4, n_stages=4)
    secret = handshake_split(Uninitiated(), Secretive(), game, prefix_steps=1, episodes=200)
    assert secret.from_start < 0.1
    assert secret.handshake_index > 0.9
    assert secret.state_mismatch < 0.1
    plain = handshake_split(Uninitiated(), Frank(), game, prefix_steps=1, episodes=200)
    assert abs(plain.handshake_index) < 0.1
    assert plain.from_start == 1.0


def test_sabotage_gap_should_be_negative_where_a_partner_punishes():
    game = LeverGame(n_levers=4, n_stages=4)
    assert sabotage_gap(Plain(), Plain(), game, episodes=200).value > 0.25

    class Saboteur:
        """Follows a mate it sees idling on lever 0, avoids everybody else."""

        def act(self, observation, state, rng):
            other = observation[5:10].argmax()
            return (0 if other in (0, 4) else int((other + 2) % 4)), None

    gap = sabotage_gap(Plain(), Saboteur(), game, episodes=200)
    assert gap.interval[1] < 0


def test_evaluation_should_count_both_seats_and_name_the_worst():
    game = LeverGame(n_levers=2, n_stages=1)
    left_only = Script(lambda seen, rng: int(seen[-2] > 0.5))
    result = evaluate(ConstantPolicy(1), [ConstantPolicy(1), left_only, ConstantPolicy(0)], game, episodes=10)
    np.testing.assert_array_equal(result.rates.rates, [1.0, 0.5, 0.0])
    assert 0 < result.robustness < 0.2
    assert result.overfitness.value == pytest.approx(1 - result.robustness)
    assert "policy 2" in result.summary()
    assert result.behaviours.tolist() == [[0, 10], [0, 5], [0, 0]]


@pytest.mark.parametrize(
    ("policies", "options", "match"),
    [
        ([], {}, "at least one policy"),
        ([object()], {}, "policy 0 is a policy: expected an object with act"),
        ([Script(lambda seen, rng: 777)], {}, "policy 0 returns an action of the game.*0 to 255, got 777"),
        ([Script(lambda seen, rng: "up")], {}, "got 'up'"),
        ([ConstantPolicy(0)], {"names": ["a", "b"]}, "expected 1 names, got 2"),
        ([ConstantPolicy(0)], {"episodes": 0}, "episodes is a whole number"),
    ],
)
def test_cross_play_should_refuse_what_is_no_policy(policies, options, match):
    with pytest.raises(InputError, match=match):
        cross_play(policies, MatrixGame(), **{"episodes": 2} | options)


def test_policies_of_another_size_should_be_refused_by_name():
    """Mismatched observation sizes, under one `jit` and on the host alike."""
    game, other = LeverGame(n_levers=2, n_stages=1), LeverGame(n_levers=3, n_stages=1)
    foreign = Population.fresh(other, n_members=1)[0]
    match = f"takes the game's observations: expected a policy for {game.observation_size} numbers"
    for mate in (ConstantPolicy(0), Script(lambda seen, rng: 0)):
        with pytest.raises(InputError, match="policy 1 " + match):
            cross_play([mate, foreign], game, episodes=2)
    with pytest.raises(InputError, match="the generalist " + match):
        evaluate(foreign, [ConstantPolicy(0)], game, episodes=2)


@pytest.mark.parametrize("action", [-1, 3])
def test_illegal_actions_of_policies_in_jax_should_be_refused(action):
    """A Policy that returns an illegal action, under one `jit` and on the host alike."""
    game = LeverGame(n_levers=3, n_stages=1)
    match = f"policy 1 returns an action of the game: expected a whole number from 0 to 2, got {action}"
    for mate in (ConstantPolicy(0), Script(lambda seen, rng: 0)):
        with pytest.raises(InputError, match=match):
            cross_play([mate, ConstantPolicy(action)], game, episodes=2)


def test_errors_of_a_users_policy_should_say_what_it_was_given():
    class Torn:
        def act(self, observation, state, rng):
            raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied") as caught:
        cross_play([Torn()], LeverGame(n_levers=3, n_stages=1), episodes=2)
    assert caught.value.__notes__ == ["policy 0 was given an observation of 11 numbers"]


def test_evaluation_should_refuse_odd_episodes():
    with pytest.raises(InputError, match=r"an even number, got 3\. Pass episodes=4"):
        evaluate(ConstantPolicy(0), [ConstantPolicy(0)], MatrixGame(), episodes=3)


def test_handshake_should_refuse_a_prefix_nobody_survives():
    with pytest.raises(InputError, match="Pass a smaller prefix_steps"):
        handshake_split(ConstantPolicy(0), ConstantPolicy(0), MatrixGame(), prefix_steps=1, episodes=4)
