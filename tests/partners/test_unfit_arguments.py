"""What a newcomer may pass by mistake: each is refused by name before anything is compiled."""

from __future__ import annotations

import numpy as np
import pytest

from metier import partners
from metier.core import InputError
from metier.partners import ConstantPolicy, Population
from metier.partners.games import Cooking, LeverGame, Rendezvous, specialists

GAME = LeverGame(n_levers=2, n_stages=2)
ALWAYS = ConstantPolicy(0)
TRAIN = {"n_members": 2, "steps": 8}


@pytest.fixture(scope="module")
def members():
    return Population.fresh(GAME, n_members=3)


def test_slices_of_a_population_should_be_populations(members):
    assert members[1:].names == ("member 1", "member 2")
    assert members[::-2].names == ("member 2", "member 0")
    assert len(members[np.int64(1)].params) == len(members.params)
    with pytest.raises(IndexError, match="member 3 of a population of 3"):
        members[3]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda p: p["a"], r"number, several by a slice: .*from 0 to 2.*got 'a'"),
        (lambda p: p[1.0], "asked for by its number"),
        (lambda p: p[5:], "at least one whole number from 0 to 2"),
        (lambda p: p.select([7]), r"members are selected by their numbers.*got \[7\]"),
        (lambda p: p.select([True, False, True]), "flatnonzero"),
        (lambda p: p.select(1), "members are selected by their numbers"),
        (lambda p: p.joined([ALWAYS]), "a population joins a population.*got list"),
        (lambda p: Population.fresh(GAME, n_members=1, rng="x"), "rng is a whole number"),
        (lambda p: Population(p.game, p.actor, {"a": np.float32(1)}), "one leading member axis"),
        (lambda p: p.check_game(None), "attribute and method of Game.*got NoneType without name"),
    ],
)
def test_populations_should_refuse_what_they_do_not_hold(members, call, match):
    with pytest.raises(InputError, match=match):
        call(members)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: partners.cross_play(ALWAYS, GAME, episodes=2),
            "policies come as a list.*got ConstantPolicy",
        ),
        (lambda: partners.cross_play({"a": ALWAYS}, GAME, episodes=2), "policies come as a list.*got dict"),
        (lambda: partners.evaluate(ALWAYS, None, GAME, episodes=2), "policies come as a list.*got NoneType"),
        (
            lambda: partners.cross_play([ALWAYS, ALWAYS], GAME, episodes=2, names="ab"),
            "one entry per policy.*got 'ab'",
        ),
        (lambda: partners.cross_play([ALWAYS], LeverGame, episodes=2), "the class LeverGame, which has to"),
        (lambda: partners.cross_play([ConstantPolicy], GAME, episodes=2), "policy 0 is a policy.*the class"),
        (
            lambda: partners.handshake_split(ALWAYS, ALWAYS, "lever", prefix_steps=1, episodes=2),
            "attribute and method of Game.*got str without",
        ),
        (lambda: specialists(GAME), "planners are scripted for the cooking game.*got LeverGame"),
        (lambda: partners.animate([1], Cooking(), "a.gif"), "states of its game.*Cooking and a int"),
        (lambda: partners.animate([1], GAME, "a.gif"), "states of its game.*LeverGame"),
        (lambda: Cooking(horizon=0), "horizon is a whole number"),
        (lambda: Rendezvous(horizon=0), "horizon is a whole number"),
        (lambda: partners.BanditSampler(temperature="hot"), "temperature of a bandit.*got 'hot'"),
        (lambda: partners.CapacitySampler("ab"), "fixed holds numbers"),
        (lambda: partners.CapacitySampler.from_counts([[1, 2]], smallest=2), "share of the uniform weight"),
        (lambda: partners.Progress().plot(), "drawn of reports.*got none"),
    ],
)
def test_meeting_should_refuse_what_cannot_meet(call, match):
    with pytest.raises(InputError, match=match):
        call()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: partners.behaviour_information([0.5, 0.5]),
            r"at least one partner.*got shape \(2,\).*one row",
        ),
        (
            lambda: partners.behaviour_information([[1.0, 0.0]], failures=[1.0]),
            "shows a behaviour in some episode.*partner 0",
        ),
        (
            lambda: partners.behaviour_information(counts=[[3, 4], [4, 3]], weights=[[0.5, 0.5]]),
            "weights has 1 dimension",
        ),
        (lambda: partners.capacity_weights([[1.0, 0.0]], tolerance=np.nan), "tolerance has no negative"),
        (lambda: partners.overfitness([2], [3]).above(0.3), "the floor is an overfitness.*got float"),
        (lambda: partners.behaviour_counts("ab", "xy").capable("x"), "one label per item"),
        (lambda: partners.behaviour_counts(["a"], ["x"]).capable("x"), "threshold has no negative"),
        (lambda: partners.latent_log_prob(0.0), r"has an axis of latents.*shape \(\)"),
        (lambda: partners.latent_log_prob([0.0, 1.0], axis=3), "has an axis of latents.*axis=3"),
        (lambda: partners.latent_log_prob([np.nan, 0.0]), "logarithms of probabilities.*NaN"),
        (lambda: partners.latent_log_prob([0.0, 1.0], prior=[1.0]), "prior has one probability per latent"),
        (lambda: partners.latent_log_prob("a"), "log_probs holds numbers"),
    ],
)
def test_measures_should_refuse_what_cannot_be_measured(call, match):
    with pytest.raises(InputError, match=match):
        call()


def test_a_latent_of_probability_zero_should_not_count():
    assert partners.latent_log_prob([-1.0, 5.0], prior=[1.0, 0.0]) == -1.0
    assert partners.latent_log_prob([-np.inf, 5.0], prior=[1.0, 0.0]) == -np.inf


TRAINERS = ("train_self_play", "train_fcp", "train_xp_min", "train_trajedi", "train_mep")


@pytest.mark.parametrize("name", TRAINERS)
def test_trainers_should_refuse_wrong_settings(name, tmp_path):
    train = getattr(partners, name)
    for game in (None, "lever", LeverGame):
        with pytest.raises(InputError, match="attribute and method of Game"):
            train(game, **TRAIN)
    taken = tmp_path / "taken"
    taken.write_text("a file")
    for more, match in (
        ({"ppo": 3}, "ppo holds the settings of the learning.*got 3"),
        ({"ppo": {}}, "ppo holds the settings of the learning"),
        ({"hidden": 4}, "one size per dense layer.*got 4"),
        ({"on_progress": 3}, "on_progress is called with every report"),
        ({"folder": 3}, "keeps its checkpoint.*got 3"),
        ({"folder": taken}, "keeps its checkpoint.*got the file"),
    ):
        with pytest.raises(InputError, match=match):
            train(GAME, **TRAIN, **more)
    with pytest.raises(InputError, match="checkpoints is a fraction"):
        partners.train_fcp(GAME, **TRAIN, checkpoints=0.5)


def test_generalists_should_refuse_what_is_no_sampler_or_game():
    for sampler in (3, "uniform", partners.UniformSampler):
        with pytest.raises(InputError, match="sampler says how much each partner counts"):
            partners.train_generalist([ALWAYS], GAME, steps=8, sampler=sampler)
    with pytest.raises(InputError, match="attribute and method of Game"):
        partners.train_generalist([ALWAYS], None, steps=8)
