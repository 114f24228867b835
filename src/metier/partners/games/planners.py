"""Scripted specialists for cooking: one recipe each, no handshake, the shortest way to what is next."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from metier.core import InputError
from metier.partners.policies import Pure

from .cooking import INTERACT, NOOP, Cooking
from .cooking_view import held_order
from .kitchen import DIRECTIONS, FLOOR, Kitchen


class _View(NamedTuple):
    """What the planner reads from its observation; things are the plate and then the foods."""

    seat: Array
    own: Array
    facing: Array
    places: Array
    chopped: Array
    holding: Array
    in_plate: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True, slots=True)
class Planner(Pure):
    """A policy that cooks one recipe with whoever stands in the other seat.

    The left player chops and plates, the right player hands over and delivers; each walks the shortest way to
    the nearest thing that is to be done next, ties broken at random. It has no convention that a stranger
    could miss, and never delivers another recipe.

    Args:
        recipe: The recipe's number in the kitchen.
        noise: Probability of a random action instead.
        layout: The cooking game's layout.

    Source: ours; the paper trains its specialists instead.
    """

    recipe: int
    noise: float = 0.0
    layout: str = field(default="full_divider", metadata={"static": True})

    def initial_state(self) -> tuple[()]:
        """Return no memory: everything is in the observation."""
        return ()

    def pure_act(self, observation: Array, state: tuple[()], key: Array) -> tuple[Array, tuple[()]]:
        """Return the next action for this seat."""
        kitchen = Cooking(layout=self.layout).kitchen
        # One draw for all purposes: every further one would be compiled anew.
        draws = jax.random.uniform(key, (kitchen.n_cells + 6,))
        view = _read(kitchen, observation)
        goals = _goals(kitchen, view, jnp.asarray(_recipe_rows(kitchen))[self.recipe])
        planned = _toward(kitchen, view, goals, draws[2:6], draws[6:])
        random = jnp.floor(draws[1] * (INTERACT + 1))
        return jnp.where(draws[0] < self.noise, random, planned).astype(jnp.int32), state


def specialists(game: Cooking, *, noise: float = 0.0) -> list[Planner]:
    """Return one planner per recipe of the game: oracle specialists with S = 0 by construction.

    Args:
        game: The cooking game.
        noise: Probability of a random action instead of the planned one.

    Raises:
        InputError: Another game, or noise outside [0, 1).

    Example:
        >>> len(specialists(Cooking()))
        6
    """
    if not isinstance(game, Cooking):
        raise InputError(
            "planners are scripted for the cooking game",
            expected="a Cooking game",
            got=type(game).__name__,
            next_step="Use partners.oracle_specialists(game), which knows other games too.",
        )
    if not 0.0 <= noise < 1.0:
        raise InputError(
            "noise is the probability of a random action",
            expected="a number in [0, 1)",
            got=repr(noise),
            next_step="Pass noise=0.0 for none.",
        )
    return [Planner(recipe, noise, game.layout) for recipe in range(len(game.behaviours))]


def _read(kitchen: Kitchen, observation: Array) -> _View:
    n_things = 1 + len(kitchen.foods)
    positions = jnp.rint(observation[: 2 * (4 + n_things)] * kitchen.width).astype(jnp.int32).reshape(-1, 2)
    own = positions[0]
    things = positions[4:] + own
    places = things[:, 1] * kitchen.width + things[:, 0]
    at = 2 * (4 + n_things)
    held = observation[at + 8 + (n_things - 1) + 4 :][:n_things] > 0.5
    held = held[jnp.asarray(np.argsort(held_order(kitchen)))]
    in_plate = places[1:] == places[0]
    return _View(
        seat=jnp.argmax(observation[-2:]),
        own=own[1] * kitchen.width + own[0],
        facing=jnp.argmax(observation[at : at + 4]),
        places=places,
        chopped=observation[at + 8 : at + 8 + n_things - 1] > 0.5,
        holding=held.at[1:].set(held[1:] & ~held[0]),
        in_plate=in_plate,
    )


def _goals(kitchen: Kitchen, view: _View, recipe: Array) -> Array:
    """Return sets of cells to use the hands on, most urgent first, bool of shape (goals, n_cells)."""
    reach = jnp.asarray(_reach(kitchen))[view.seat]
    at = (view.places[:, None] == jnp.arange(kitchen.n_cells)) & reach
    need = recipe & ~view.in_plate
    spoiled = (view.in_plate & ~recipe).any()
    by_seat = [_left(kitchen, view, at, need), _right(kitchen, view, at, need)]
    goals = jnp.where(view.seat == 0, by_seat[0], by_seat[1])
    return goals & ~spoiled


def _left(kitchen: Kitchen, view: _View, at: Array, need: Array) -> Array:
    board, middle, outer = _cells(kitchen, kitchen.board), *_columns(kitchen, 0)
    plate, foods = at[0], at[1:]
    free = ~at.any(axis=0)
    in_hand, hand_empty = view.holding[1:], ~view.holding.any()
    wanted = (in_hand & need).any()
    ready = wanted & (in_hand & view.chopped).any()
    on_board = foods & board
    waits = (need & ~view.chopped)[:, None] & foods & ~board
    unwanted_on_board = (on_board & ~need[:, None]).any()
    rules = [
        (ready, plate),
        (ready, free & middle),
        (wanted & ~ready, free & board),
        (in_hand.any(), free & outer),
        (~hand_empty, free & middle),
        (hand_empty, (on_board & need[:, None]).any(axis=0)),
        (hand_empty & unwanted_on_board & waits.any(), board),
        (hand_empty & plate.any(), ((need & view.chopped)[:, None] & foods).any(axis=0)),
        (hand_empty, waits.any(axis=0)),
        (hand_empty, plate & outer),
    ]
    return _stack(rules)


def _right(kitchen: Kitchen, view: _View, at: Array, need: Array) -> Array:
    delivery, middle, outer = _cells(kitchen, kitchen.delivery), *_columns(kitchen, 1)
    plate, foods = at[0], at[1:]
    free = ~at.any(axis=0)
    in_hand, hand_empty = view.holding[1:], ~view.holding.any()
    has_plate, done = view.holding[0], ~need.any()
    wanted = (in_hand & need).any()
    ready = wanted & (in_hand & view.chopped).any()
    blocked = (foods & delivery).any()
    beyond = outer | delivery
    rules = [
        (has_plate & done, free & delivery),
        (has_plate, ((need & view.chopped)[:, None] & foods).any(axis=0)),
        (ready, plate),
        (has_plate | wanted, free & middle),
        (~hand_empty, free & outer),
        (~hand_empty, free & middle),
        (hand_empty & done & plate.any() & blocked, delivery),
        (hand_empty & done, plate),
        (hand_empty, (need[:, None] & foods & beyond).any(axis=0)),
        (hand_empty & ~done, plate & beyond),
    ]
    return _stack(rules)


def _stack(rules: list[tuple[Array, Array]]) -> Array:
    return jnp.stack([holds & cells for holds, cells in rules])


def _toward(kitchen: Kitchen, view: _View, goals: Array, ways: Array, ties: Array) -> Array:
    """Return the action that leads to the nearest cell of the first goal that has any."""
    n = kitchen.n_cells
    far = 4 * n
    distance = jnp.asarray(_distances(kitchen))
    goal = goals[jnp.argmax(goals.any(axis=1))]
    target = jnp.argmin(jnp.where(goal, distance[view.own] + ties / 2, far))

    ahead = view.own + jnp.asarray(kitchen.steps)
    touches = ahead == target
    walks = jnp.asarray(kitchen.kinds)[ahead] == FLOOR
    cost = jnp.where(walks, distance[ahead, target] + ways / 2, far)
    touch = jnp.where(touches[view.facing], INTERACT, 1 + jnp.argmax(touches))
    action = jnp.where(touches.any(), touch, 1 + jnp.argmin(cost))
    return jnp.where(goals.any(), action, NOOP)


def _cells(kitchen: Kitchen, place: tuple[int, int]) -> Array:
    return jnp.arange(kitchen.n_cells) == kitchen.cell(place)


def _columns(kitchen: Kitchen, seat: int) -> tuple[Array, Array]:
    """Return (the counters between the rooms, the other plain counters of a seat), bool, shape (n_cells,)."""
    reach, x = _reach(kitchen)[seat], np.arange(kitchen.n_cells) % kitchen.width
    special = np.isin(
        np.arange(kitchen.n_cells), [kitchen.cell(kitchen.board), kitchen.cell(kitchen.delivery)]
    )
    return jnp.asarray(reach & (x == kitchen.divider)), jnp.asarray(reach & (x != kitchen.divider) & ~special)


@functools.cache
def _recipe_rows(kitchen: Kitchen) -> NDArray[np.bool_]:
    return np.array([[food in recipe for food in range(len(kitchen.foods))] for recipe in kitchen.recipes])


@functools.cache
def _reach(kitchen: Kitchen) -> NDArray[np.bool_]:
    """Return which counters each seat can touch, shape (2, n_cells)."""
    reach = np.zeros((2, kitchen.n_cells), bool)
    for seat in (0, 1):
        touched = (kitchen.room(seat)[:, None] + kitchen.steps).ravel()
        reach[seat, touched[kitchen.kinds[touched] != FLOOR]] = True
    return reach


@functools.cache
def _distances(kitchen: Kitchen) -> NDArray[np.int32]:
    """Return the steps from each floor cell to the nearest cell that touches a target, breadth first.

    Shape (n_cells, n_cells): [floor cell, target]; n_cells stands for "cannot be reached".
    """
    n = kitchen.n_cells
    distance = np.full((n, n), n, np.int32)
    floor = {int(cell) for cell in np.flatnonzero(kitchen.kinds == FLOOR)}
    for target in np.flatnonzero(kitchen.kinds != FLOOR):
        x, y = target % kitchen.width, target // kitchen.width
        around = [
            (x + dx) + (y + dy) * kitchen.width
            for dx, dy in DIRECTIONS
            if 0 <= x + dx < kitchen.width and 0 <= y + dy < kitchen.height
        ]
        front = [int(cell) for cell in around if cell in floor]
        steps = 0
        while front:
            distance[front, target] = steps
            steps += 1
            onward = {int(cell + step) for cell in front for step in kitchen.steps} & floor
            front = [cell for cell in onward if distance[cell, target] == n]
    return distance
