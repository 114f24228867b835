"""Checkpoints of every trainer: Ctrl-C leaves one, the rest gives the same bits, unfit files are refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from metier import partners
from metier.core import InputError
from metier.partners import PPO
from metier.partners.games import Cooking, LeverGame, MatrixGame

GAME = LeverGame(n_levers=2, n_stages=2)
TINY = PPO(n_envs=8, n_steps=4, epochs=1, minibatches=2, learning_rate=1e-2)
ITERATION = 2 * 8 * 4


def sources():
    return partners.Population.fresh(
        GAME, n_members=2, actor=partners.Population.fresh(GAME, n_members=1).actor
    )


def options(iterations, **more):
    return {"steps": iterations * ITERATION, "ppo": TINY, "reports": 4, "rng": 3, **more}


TRAINERS = {
    "self-play": lambda **o: partners.train_self_play(GAME, n_members=2, hidden=(4,), **options(4, **o)),
    "fcp": lambda **o: partners.train_fcp(GAME, n_members=2, hidden=(4,), **options(4, **o)),
    "xp-min": lambda **o: partners.train_xp_min(
        GAME, n_members=2, hidden=(4,), mi_weight=0.5, mixed_play_weight=0.1, n_latents=2, **options(12, **o)
    ),
    "trajedi": lambda **o: partners.train_trajedi(GAME, n_members=2, hidden=(4,), **options(4, **o)),
    "mep": lambda **o: partners.train_mep(GAME, n_members=2, hidden=(4,), gru_units=3, **options(4, **o)),
    "distill": lambda **o: partners.distill(sources(), GAME, **options(8, **o)),
    "generalist": lambda **o: partners.train_generalist(
        sources(), GAME, hidden=(4,), gru_units=3, sampler=partners.BanditSampler(), **options(8, **o)
    ),
}


class Interrupt:
    """Presses Ctrl-C at the second report."""

    def __init__(self):
        self.rows = 0

    def __call__(self, row):
        self.rows += 1
        if self.rows == 2:
            raise KeyboardInterrupt


def bits(trained):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(trained.params)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAINERS if name != "self-play"])
def test_every_trainer_should_resume_to_the_same_bits_after_ctrl_c(name, tmp_path):
    """Of every trainer; self-play's is in test_self_play.py and always runs."""
    train = TRAINERS[name]
    whole = train()
    with pytest.raises(KeyboardInterrupt):
        train(folder=tmp_path, on_progress=Interrupt())
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]
    resumed = train(folder=tmp_path)
    assert bits(resumed) == bits(whole)
    assert resumed.progress == whole.progress
    with pytest.raises(InputError, match="a checkpoint has the same rng: expected 4, got 3"):
        train(folder=tmp_path, rng=4)
    with pytest.raises(InputError, match=r"a checkpoint has the same (method|settings)"):
        TRAINERS["self-play"](folder=tmp_path)


def test_scripted_specialists_should_show_one_behaviour_each():
    for game in (GAME, MatrixGame(blocks=(2, 1, 3))):
        found = partners.cross_play(partners.oracle_specialists(game), game, episodes=4)
        own = np.diagonal(np.asarray(found.returns))
        assert (own == 1.0).all()
        assert found.returns[0][1] == 0.0
    assert [policy.recipe for policy in partners.oracle_specialists(Cooking(), noise=0.1)] == list(range(6))


@pytest.mark.slow
def test_trained_specialists_should_be_paid_for_their_recipe_only(tmp_path):
    """The control *S*: one population, named by recipe, each recipe's last report in its progress."""
    game = Cooking(layout="small", horizon=20)
    rows = []
    found = partners.train_specialists(
        game, recipes=(2, 0), n_members=2, on_progress=rows.append, folder=tmp_path, hidden=(4,), **options(2)
    )
    names = [game.behaviours[2], game.behaviours[0]]
    assert found.names == tuple(f"{name} {k}" for name in names for k in (0, 1))
    assert [row["recipe"] for row in found.progress.rows] == names
    assert {row["recipe"] for row in rows} == set(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe-0", "recipe-2"]
    assert bits(found.select([0])) != bits(found.select([2]))
    found.check_game(game)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: partners.oracle_specialists(partners.games.Rendezvous()),
            "games that say how.*got Rendezvous",
        ),
        (lambda: partners.oracle_specialists(GAME, noise=0.1), "noise disturbs planners.*game 'lever'"),
        (lambda: partners.train_specialists(GAME, steps=1), "a cooking game that pays every recipe"),
        (lambda: partners.train_specialists(Cooking(paid_recipe=1), steps=1), "pays every recipe"),
        (
            lambda: partners.train_specialists(Cooking(), steps=1, recipes=(6,)),
            "numbers from 0 to 5, each once",
        ),
        (
            lambda: partners.train_specialists(Cooking(), steps=1, recipes=()),
            "numbers from 0 to 5, each once",
        ),
    ],
)
def test_bad_requests_for_specialists_should_be_refused(call, match):
    with pytest.raises(InputError, match=match):
        call()
