"""The cooking game against the golden trace of the original engine and a plain-Python reference."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cooking_reference import ReferenceKitchen

from metier.core import InputError
from metier.partners.games import Cooking, Planner, reset_pool, seated
from metier.partners.games.cooking_view import locations

TRACE = "50 30 10 50 50 50 20 20 50 01 05 02 02 05"
REWARDS = [0.4, -0.1, -0.1, -0.1, 0.9, 0.4, -0.1, -0.1, 0.9, -0.1, 0.4, -0.1, -0.1, 9.9]


def state_with(game, *, players, places):
    """Return a start with players and things (plate, then foods) at the given (x, y)."""
    cell = game.kitchen.cell
    return game.reset(jax.random.key(0))._replace(
        players=jnp.array([cell(p) for p in players], jnp.int32),
        places=jnp.array([cell(p) for p in places], jnp.int32),
    )


GOLDEN_START = {"players": [(1, 2), (4, 3)], "places": [(3, 3), (0, 2), (3, 1), (0, 4), (6, 1)]}


@functools.partial(jax.jit, static_argnums=0)
def one_step(game, state, actions):
    return game.step(state, actions)


def play(game, state, actions):
    steps = []
    for pair in actions:
        steps.append(one_step(game, state, jnp.asarray(pair)))
        state = steps[-1].state
    return steps


def golden_actions():
    return [(int(word[0]), int(word[1])) for word in TRACE.split()]


def test_golden_trace_should_give_the_engine_s_rewards_and_recipe():
    game = Cooking()
    steps = play(game, state_with(game, **GOLDEN_START), golden_actions())
    np.testing.assert_allclose([float(step.reward) for step in steps], REWARDS, atol=1e-5)
    assert [bool(step.terminated) for step in steps] == [False] * 13 + [True]
    assert not any(bool(step.truncated) for step in steps)
    assert game.behaviours[int(game.behaviour(steps[-1].state))] == "lettuce"
    assert game.observe(steps[0].state).shape == (2, 57)


def test_paid_recipe_should_end_other_deliveries_without_bonus():
    paid, other = Cooking(paid_recipe=0), Cooking(paid_recipe=1)
    assert float(play(paid, state_with(paid, **GOLDEN_START), golden_actions())[-1].reward) == pytest.approx(
        9.9
    )
    steps = play(other, state_with(other, **GOLDEN_START), golden_actions())
    np.testing.assert_allclose([float(step.reward) for step in steps], [*REWARDS[:-1], -0.1], atol=1e-5)
    assert bool(steps[-1].terminated)


def reference_of(game, state):
    kitchen = game.kitchen
    place = lambda cell: (int(cell) % kitchen.width, int(cell) // kitchen.width)  # noqa: E731
    return ReferenceKitchen(
        size=kitchen.width,
        divider=kitchen.divider,
        board=kitchen.board,
        delivery=kitchen.delivery,
        recipes=[tuple(kitchen.foods[food] for food in recipe) for recipe in kitchen.recipes],
        cooks=[place(cell) for cell in state.players],
        things=dict(zip(("plate", *kitchen.foods), (place(cell) for cell in state.places), strict=True)),
        horizon=game.horizon,
    )


def busy_actions(rng, size):
    """Random actions that interact often, so that food is chopped, plated and delivered."""
    return rng.choice(6, size=size, p=[0.02, 0.14, 0.14, 0.14, 0.14, 0.42])


def rollout(game, states, actions):
    """Return stacked states, rewards and ends of many episodes, actions of shape (time, episodes, 2)."""

    def one(states, actions):
        step = jax.vmap(game.step)(states, actions)
        return step.state, step

    return jax.jit(lambda s, a: jax.lax.scan(one, s, a)[1])(states, actions)


def clumsy_cooks(game, states, key):
    """Return what cooks of every recipe do who err at every third step, so that all recipes get delivered."""
    n, n_recipes = len(states.time), len(game.behaviours)

    def act(recipe, observation, key):
        return Planner(recipe, 0.33, game.layout).pure_act(observation, (), key)[0]

    def one(states, key):
        seen = seated(jax.vmap(game.observe)(states))
        recipes = jnp.broadcast_to((jnp.arange(n) % n_recipes)[:, None], (n, 2))
        actions = jax.vmap(jax.vmap(act))(recipes, seen, jax.random.split(key, (n, 2)))
        return jax.vmap(game.step)(states, actions).state, actions

    keys = jax.random.split(key, game.horizon)
    return np.asarray(jax.jit(lambda s, k: jax.lax.scan(one, s, k)[1])(states, keys))


@functools.cache
def some_episodes(game, episodes, n_cooks=0):
    """Return (starts, actions, steps): the first episodes by clumsy cooks, the others at random."""
    states = reset_pool(game, jax.random.key(3), episodes)
    actions = busy_actions(np.random.default_rng(4), (game.horizon, episodes, 2))
    if n_cooks:
        cooks = jax.tree.map(lambda leaf: leaf[:n_cooks], states)
        actions[:, :n_cooks] = clumsy_cooks(game, cooks, jax.random.key(9))
    return states, actions, rollout(game, states, jnp.asarray(actions))


WHOLE = (pytest.mark.slow, pytest.mark.evidence("src/metier/partners/games"))


@pytest.mark.parametrize(
    ("layout", "episodes", "n_cooks"),
    [
        ("full_divider", 40, 0),
        pytest.param("full_divider", 600, 150, marks=WHOLE),
        pytest.param("small", 500, 125, marks=WHOLE),
    ],
)
def test_cooking_should_equal_the_plain_python_reference(layout, episodes, n_cooks, amount):
    """Over more than 1,000 episodes in two kitchens; always a few of them."""
    if n_cooks:
        share = amount("share of the episodes", sample=0.2, whole=1.0)
        episodes, n_cooks = int(share * episodes), int(share * n_cooks)
    game = Cooking(layout=layout)
    states, actions, steps = some_episodes(game, episodes, n_cooks)
    rewards, ended, cut_off = (np.asarray(x) for x in (steps.reward, steps.terminated, steps.truncated))
    delivered, starts = np.asarray(steps.state.delivered), jax.tree.map(np.asarray, states)
    completed = np.zeros(len(game.behaviours), int)
    for episode in range(episodes):
        reference = reference_of(game, jax.tree.map(lambda leaf, e=episode: leaf[e], starts))
        for t in range(game.horizon):
            reward, done, cut, served = reference.step(actions[t, episode])
            assert abs(reward - rewards[t, episode]) <= 1e-5
            assert done == ended[t, episode]
            assert cut == cut_off[t, episode]
            if done:
                completed[delivered[t, episode]] += 1
                recipe = game.kitchen.recipes[delivered[t, episode]]
                assert served == tuple(game.kitchen.foods[food] for food in recipe)
                break
    assert (completed >= n_cooks // 25).all()


def test_each_thing_should_be_in_one_place_and_nodes_never_lost():
    game = Cooking()
    n = game.kitchen.n_cells
    _, _, steps = some_episodes(game, 40)
    over = np.cumsum(np.asarray(steps.terminated), axis=0) > 0
    places = np.asarray(steps.state.places)[~over]
    for hand in (n, n + 1):
        assert ((places == hand).sum(axis=-1) <= 1).all()
    on_cells = np.where(places < n, places, -np.arange(1, places.shape[-1] + 1))
    assert all(len(set(row)) == len(row) for row in on_cells)
    kinds = game.kitchen.kinds
    assert (kinds[places[places < n]] != 0).all()
    assert (places[..., 0] != n + 2).all()
    nodes = np.asarray(steps.state.nodes)
    assert ((nodes[:-1] & ~nodes[1:]) == 0)[~over[1:]].all()


@functools.cache
def many_starts():
    return jax.tree.map(
        np.asarray, jax.jit(reset_pool, static_argnums=(0, 2))(Cooking(), jax.random.key(7), 20_000)
    )


def test_reset_should_draw_counters_uniformly():
    game = Cooking()
    lettuce = many_starts().places[:, 1]
    share = np.bincount(lettuce, minlength=49) / 20_000
    cell = game.kitchen.cell
    for y in (1, 2, 4, 5):
        assert share[cell((0, y))] == pytest.approx(0.125, abs=0.01)
    for y in range(1, 6):
        assert share[cell((3, y))] == pytest.approx(0.1, abs=0.01)
    assert share[[cell((0, y)) for y in (1, 2, 4, 5)] + [cell((3, y)) for y in range(1, 6)]].sum() == 1.0


def test_starts_should_be_apart_and_in_their_rooms():
    game = Cooking()
    states = many_starts()
    assert (np.diff(np.sort(states.places, axis=1), axis=1) > 0).all()
    for seat in (0, 1):
        assert set(np.asarray(states.players)[:, seat]) == set(game.kitchen.room(seat))
    assert (np.asarray(states.facing) == 0).all()


def test_observation_should_name_what_the_player_sees():
    """The golden start, entry by entry from the rules."""
    game = Cooking()
    state = state_with(game, **GOLDEN_START)
    own = np.asarray(game.observe(state))[0]
    relative = np.array(
        [1, 2, 3, 1, -1, 1, 5, 1, 2, 1, -1, 0, 2, -1, -1, 2, 5, -1], float
    )  # own, then other, board, delivery, plate, lettuce, tomato, onion, carrot
    np.testing.assert_allclose(own[:18], relative / 7, atol=1e-6)
    np.testing.assert_array_equal(own[18:26], [1, 0, 0, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(own[26:30], 0)
    np.testing.assert_array_equal(own[30:34], [0, 0, 1, 0])
    np.testing.assert_array_equal(own[34:43], 0)
    # it faces the counter that carries the lettuce: counter, board, delivery, tomato, lettuce, ...
    np.testing.assert_array_equal(own[43:53], [1, 0, 0, 0, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(own[53:57], 0)


def test_observation_should_include_what_is_in_a_held_plate():
    game = Cooking()
    state = play(game, state_with(game, **GOLDEN_START), golden_actions()[:11])[-1].state
    right = np.asarray(game.observe(state))[1]
    # held: tomato, lettuce, onion, plate, carrot; chopped: tomato, lettuce, onion, carrot
    np.testing.assert_array_equal(right[34:43], [0, 1, 0, 1, 0, 0, 1, 0, 0])
    where = np.asarray(locations(game.kitchen, state))
    assert where[0] == where[1] == int(state.players[1])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"layout": "ful_divider"}, "Did you mean 'full_divider'"),
        ({"paid_recipe": 6}, "a number from 0 to 5, got 6"),
        ({"layout": "small", "paid_recipe": 3}, "The recipes are lettuce, tomato, tomato-lettuce"),
    ],
)
def test_cooking_should_refuse_what_the_kitchen_lacks(options, match):
    with pytest.raises(InputError, match=match):
        Cooking(**options)
