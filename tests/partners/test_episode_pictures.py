"""Animated episodes and pictures of populations."""

from __future__ import annotations

import pytest
from PIL import Image

from metier.core import InputError
from metier.partners import ConstantPolicy, animate, cross_play, record_episode
from metier.partners.games import Cooking, LeverGame, MatrixGame, specialists
from metier.partners.pictures import draw_behaviours

GAME = Cooking(layout="small")


@pytest.fixture(scope="module")
def episode():
    cook = specialists(GAME)[2]
    return record_episode(cook, cook, GAME, rng=1)


@pytest.mark.parametrize("name", ["episode.gif", "episode.png"])
def test_episode_should_become_an_animation(tmp_path, episode, name):
    path = animate(episode, GAME, tmp_path / name)
    with Image.open(path) as picture:
        # Identical neighbors are merged in a GIF, so there may be fewer frames than states.
        assert 2 <= picture.n_frames <= len(episode)
        assert picture.size == (200, 200)
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_episode_should_end_with_the_delivery(episode):
    assert int(GAME.behaviour(episode[-1])) == 2
    assert int(GAME.behaviour(episode[-2])) == -1


@pytest.mark.parametrize(
    ("name", "states", "match"),
    [
        ("episode.mp4", None, "ending in .gif, .png or .apng, got 'episode.mp4'"),
        ("episode.gif", [], "an empty list"),
        ("missing/episode.gif", None, "an existing folder"),
    ],
)
def test_animation_should_refuse_before_it_writes(tmp_path, episode, name, states, match):
    with pytest.raises(InputError, match=match):
        animate(episode if states is None else states, GAME, tmp_path / name)


def test_other_games_should_be_refused():
    with pytest.raises(InputError, match="a Cooking game, got MatrixGame"):
        record_episode(None, None, MatrixGame())


def test_populations_should_be_drawn():
    game = LeverGame(n_levers=3, n_stages=1)
    pairs = cross_play([ConstantPolicy(k) for k in range(3)], game, episodes=10, names=game.behaviours)
    ax = pairs.plot()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list(game.behaviours)
    assert len(ax.texts) == 9
    bars = draw_behaviours(pairs.self_play)
    assert [text.get_text() for text in bars.get_legend().get_texts()] == [*game.behaviours, "none"]
