"""Files that are cut, foreign, of another layout or without a member: refused, and the file is named."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from metier.core import InputError
from metier.partners import Generalist, Population, train_self_play
from metier.partners.games import LeverGame, MatrixGame
from metier.partners.training.actors import Actor

GAME = LeverGame(n_levers=2, n_stages=2)
ACTOR = Actor.for_game(GAME, hidden=(4,))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(bytes, arrays, header) of a good file of three members."""
    path = tmp_path_factory.mktemp("whole") / "population.safetensors"
    Population.fresh(GAME, n_members=3, actor=ACTOR).save(path)
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["metier.partners"])
    return path.read_bytes(), load_file(path), header


def with_nan(name, array):
    changed = array.copy()
    changed[1] = np.nan
    return changed


def narrow(name, array):
    return array[..., :3].copy() if name == "['dense0']['w']" else array


ARRAYS = {
    "a member missing": (lambda _, a: a[:2].copy(), "every member that it names.*2 in.*without 'member 2'"),
    "a member too many": (lambda _, a: np.concatenate([a, a]), "every member.*expected 3 members.*got 6"),
    "another layout": (narrow, r"\(3, 10, 4\), got float32 of shape \(3, 10, 3\)"),
    "other numbers": (lambda _, a: a.astype(np.float64), "expected float32.*got float64"),
    "not finite": (with_nan, "the parameters of 'member 1' are finite"),
}
HEADERS = {
    "no actor": (lambda h: {k: v for k, v in h.items() if k != "actor"}, "got KeyError: 'actor'"),
    "an actor from tomorrow": (lambda h: {**h, "actor": {**h["actor"], "network": {"depth": 3}}}, "KeyError"),
    "names that are none": (lambda h: {**h, "names": 3}, "says what its members are"),
    "no members": (lambda h: {**h, "names": []}, "says what its members are"),
    "a training": (lambda h: {**h, "kind": "training"}, "the file holds a population.*kind 'training'"),
    "no header": (lambda h: [1, 2], "whole safetensors file written by metier.partners"),
}


def refuses(path, match):
    """Both loaders refuse the file and name it."""
    for kind in (Population, Generalist):
        with pytest.raises(InputError, match=match) as caught:
            kind.load(path, GAME)
        assert re.search(re.escape(str(path)), str(caught.value))


@pytest.mark.parametrize("name", ARRAYS)
def test_files_with_other_arrays_should_be_refused(name, whole, tmp_path):
    _, arrays, header = whole
    change, match = ARRAYS[name]
    path = tmp_path / "odd.safetensors"
    changed = {key: change(key, array) for key, array in arrays.items()}
    save_file(changed, path, metadata={"metier.partners": json.dumps(header)})
    refuses(path, match)


@pytest.mark.parametrize("name", HEADERS)
def test_files_with_other_headers_should_be_refused(name, whole, tmp_path):
    _, arrays, header = whole
    change, match = HEADERS[name]
    path = tmp_path / "odd.safetensors"
    save_file(arrays, path, metadata={"metier.partners": json.dumps(change(header))})
    refuses(path, match)


def test_cut_and_foreign_files_should_be_refused(whole, tmp_path):
    content, arrays, _ = whole
    path = tmp_path / "odd.safetensors"
    for damaged in (content[:-50], content[: len(content) // 2], content[:5], b"", b"PK\x03\x04" + b"0" * 99):
        path.write_bytes(damaged)
        refuses(path, "whole safetensors file written by metier.partners")
    save_file(arrays, path, metadata={"metier.bilevel": "{}"})
    refuses(path, "got KeyError: 'metier.partners'")
    refuses(tmp_path / "nowhere", "a checkpoint exists")
    with pytest.raises(InputError, match="got no file 3"):
        Population.load(3)


def test_a_population_of_another_game_should_be_refused_with_its_file(tmp_path):
    path = tmp_path / "matrix.safetensors"
    Population.fresh(MatrixGame(blocks=(1, 2)), n_members=1).save(path)
    refuses(path, "plays the game it was trained for: expected game 'matrix'")


def test_a_population_in_a_training_s_folder_should_be_refused(whole, tmp_path):
    path = tmp_path / "training.safetensors"
    path.write_bytes(whole[0])
    with pytest.raises(InputError, match="same kind: expected 'training', got 'population'") as caught:
        train_self_play(GAME, n_members=2, steps=8, folder=tmp_path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match=r"folder is where a training keeps its checkpoint.*got the file"):
        train_self_play(GAME, n_members=2, steps=8, folder=path)
