"""Cooking: two players in divided rooms chop, plate and deliver one of several recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metier.core import InputError, one_of, positive_int

from .game import UNDEFINED, Step
from .kitchen import BOARD, COUNTER, DELIVERY, FLOOR, KITCHENS, Kitchen

NOOP, LEFT, RIGHT, DOWN, UP, INTERACT = range(6)
DELIVERED = 10.0
FIRST_HELD = 0.5


class CookingState(NamedTuple):
    """Where everything is.

    Attributes:
        players: Cells of both players, int32, shape (2,).
        facing: Directions of both players (left, right, down, up), int32, shape (2,).
        places: Where the plate and each food is, int32, shape (1 + foods,): a cell, n_cells + player while
            held, n_cells + 2 for a food in the plate.
        chopped: Which foods are chopped, bool, shape (foods,).
        seen: Per player, bits of the things it has held (each food raw, chopped; each content of the plate).
        nodes: Bits of what was achieved: each food chopped, each recipe's foods in the plate.
        time: Steps so far, int32.
        delivered: The recipe that was completed, -1 before, int32.
    """

    players: Array
    facing: Array
    places: Array
    chopped: Array
    seen: Array
    nodes: Array
    time: Array
    delivered: Array


@dataclass(frozen=True, slots=True)
class Cooking:
    """The multi-recipe cooking game of the paper.

    The left player alone reaches the board, the right player alone the delivery; both reach the counters
    between them. Actions: 0 nothing, 1 left, 2 right, 3 down, 4 up (turn, then move where the cell is floor),
    5 interact with the faced cell; player 0 acts before player 1 within a step. A plate takes one food, or
    the foods of a recipe, and nothing leaves it. The episode ends when the plate stands on the delivery with
    all foods of a recipe, or at the horizon.

    Shared reward of a step: 0.5 for each thing that a player holds for the first time, plus the best recipe's
    progress (10 if completed, else 1 per newly chopped or newly plated), minus `step_cost`. The behaviour is
    the completed recipe, the one with most foods.

    Args:
        layout: "full_divider" (7 x 7, four foods, six recipes, the paper's) or "small" (5 x 5, two foods,
            three recipes, for tests).
        horizon: Steps after which an episode is cut off.
        step_cost: Taken off at every step; the paper's is 0.1, LIPO's configuration has 0.05.
        paid_recipe: None pays every recipe; a number pays only that recipe's completion: the delivery of
            another one ends the episode with neither bonus nor progress.

    Raises:
        InputError: An unknown layout or recipe.

    Example:
        >>> game = Cooking()
        >>> game.n_actions, game.observation_size, game.behaviours[4]
        (6, 57, 'tomato-lettuce')

    Source: Charakorn et al., NeurIPS 2024, whose game is LIPO's `full_divider_salad_4`; written anew from its
        rules. `paid_recipe` is ours, for specialists by training.
    """

    layout: str = "full_divider"
    horizon: int = 200
    step_cost: float = 0.1
    paid_recipe: int | None = None

    def __post_init__(self) -> None:
        one_of("layout", self.layout, KITCHENS)
        positive_int("horizon", self.horizon)
        n_recipes = len(self.kitchen.recipes)
        if self.paid_recipe is not None and not 0 <= self.paid_recipe < n_recipes:
            raise InputError(
                "paid_recipe is a recipe of the kitchen",
                expected=f"None or a number from 0 to {n_recipes - 1}",
                got=repr(self.paid_recipe),
                next_step=f"The recipes are {', '.join(self.behaviours)}.",
            )

    @property
    def kitchen(self) -> Kitchen:
        """The layout's kitchen."""
        return KITCHENS[self.layout]

    @property
    def name(self) -> str:
        """One word."""
        return f"cooking-{self.layout}"

    @property
    def n_actions(self) -> int:
        """Nothing, four directions, interact."""
        return 6

    @property
    def observation_size(self) -> int:
        """57 with four foods."""
        return 29 + 7 * len(self.kitchen.foods)

    @property
    def behaviours(self) -> tuple[str, ...]:
        """The recipes."""
        return tuple(self.kitchen.recipe_name(recipe) for recipe in range(len(self.kitchen.recipes)))

    def reset(self, key: Array) -> CookingState:
        """Return a start: things on free counters of their columns, players anywhere in their rooms."""
        kitchen = self.kitchen
        n_things = 1 + len(kitchen.foods)
        # The largest of independent uniforms lies at a uniform cell; one draw serves all, compiled once.
        draws = jax.random.uniform(key, (n_things + 2, kitchen.n_cells))
        cells = jnp.arange(kitchen.n_cells)
        taken = jnp.zeros(kitchen.n_cells, bool)
        places = []
        for thing in range(n_things):
            free = jnp.asarray(kitchen.start_counters(thing)) & ~taken
            places.append(jnp.argmax(jnp.where(free, draws[thing], -1.0)))
            taken = taken | (cells == places[-1])
        rooms = [jnp.asarray(np.isin(np.arange(kitchen.n_cells), kitchen.room(seat))) for seat in (0, 1)]
        players = [jnp.argmax(jnp.where(room, draws[n_things + k], -1.0)) for k, room in enumerate(rooms)]
        return CookingState(
            players=jnp.stack(players).astype(jnp.int32),
            facing=jnp.zeros(2, jnp.int32),
            places=jnp.stack(places).astype(jnp.int32),
            chopped=jnp.zeros(len(kitchen.foods), bool),
            seen=jnp.zeros(2, jnp.int32),
            nodes=jnp.array(0, jnp.int32),
            time=jnp.array(0, jnp.int32),
            delivered=jnp.array(UNDEFINED, jnp.int32),
        )

    def observe(self, state: CookingState) -> Array:
        """Return both players' features, in the order of docs/partners.md, shape (2, observation_size)."""
        from .cooking_view import features

        return jnp.stack([features(self.kitchen, state, seat) for seat in (0, 1)])

    def step(self, state: CookingState, actions: Array) -> Step:
        """Let player 0, then player 1 act, and pay both."""
        for seat in (0, 1):
            state = _act(self.kitchen, state, seat, actions[seat])
        seen, first_held = _first_held(self.kitchen, state)
        nodes, progress, delivered = _progress(self.kitchen, state, self.paid_recipe)
        reward = FIRST_HELD * first_held + progress - self.step_cost
        state = state._replace(seen=seen, nodes=nodes, time=state.time + 1, delivered=delivered)
        done = delivered >= 0
        return Step(state, reward.astype(jnp.float32), done, (state.time >= self.horizon) & ~done)

    def behaviour(self, state: CookingState) -> Array:
        """Return the completed recipe, -1 for none."""
        return state.delivered


def _act(kitchen: Kitchen, state: CookingState, seat: int, action: Array) -> CookingState:
    turning = (action >= LEFT) & (action <= UP)
    direction = jnp.where(turning, action - LEFT, state.facing[seat])
    faced = state.players[seat] + jnp.asarray(kitchen.steps)[direction]
    kind = jnp.asarray(kitchen.kinds)[faced]
    walk = turning & (kind == FLOOR) & (faced != state.players[1 - seat])
    cell = jnp.where(walk, faced, state.players[seat])
    places, chopped = _interact(kitchen, state, seat, faced, kind, action == INTERACT)
    return state._replace(
        players=_put(state.players, seat, cell),
        facing=_put(state.facing, seat, direction),
        places=places,
        chopped=chopped,
    )


def _interact(
    kitchen: Kitchen, state: CookingState, seat: int, faced: Array, kind: Array, active: Array
) -> tuple[Array, Array]:
    """Return (places, chopped) after the player used its hands on the faced cell."""
    hand, in_plate = kitchen.n_cells + seat, kitchen.n_cells + 2
    things = jnp.arange(1 + len(kitchen.foods))
    here, held = state.places == faced, state.places == hand
    occupied, holding = here.any(), held.any()
    on_board = kind == BOARD

    chops = active & ~holding & on_board & here[1:] & ~state.chopped
    grabs = active & ~holding & here & ~chops.any()
    may_stand = (kind == COUNTER) | (kind == DELIVERY) | (on_board & ~held[0])
    puts = active & held & ~occupied & may_stand
    # A plate meets a chopped food: one of the two is in the hand, the other on the faced cell.
    plate_meets = (held[0] & occupied & ~here[0]) | (here[0] & holding & ~held[0])
    meets = active & plate_meets & (held[1:] | here[1:]) & state.chopped
    plates = jnp.concatenate([jnp.zeros(1, bool), meets & _mixes(kitchen, state.places)])

    places = jnp.where(grabs, hand, state.places)
    places = jnp.where(puts, faced, places)
    places = jnp.where(plates & (things > 0), in_plate, places)
    return places, state.chopped | chops


def _mixes(kitchen: Kitchen, places: Array) -> Array:
    """Return which foods the plate would take now, bool, shape (foods,)."""
    allowed = np.zeros(2 ** len(kitchen.foods), bool)
    allowed[[_bits(content) for content in kitchen.contents]] = True
    food_bits = jnp.asarray(2 ** np.arange(len(kitchen.foods)), jnp.int32)
    return jnp.asarray(allowed)[_content_bits(kitchen, places) | food_bits]


def _content_bits(kitchen: Kitchen, places: Array) -> Array:
    """Return the plate's foods as bits, int32, shape ()."""
    weights = jnp.asarray(2 ** np.arange(len(kitchen.foods)), jnp.int32)
    return jnp.sum(jnp.where(places[1:] == kitchen.n_cells + 2, weights, 0))


def _first_held(kitchen: Kitchen, state: CookingState) -> tuple[Array, Array]:
    """Return (bits of everything each player has held, number of things first held at this step)."""
    n_foods = len(kitchen.foods)
    numbers = np.full(2**n_foods, 0, np.int32)
    numbers[[_bits(content) for content in kitchen.contents]] = np.arange(len(kitchen.contents))
    plate_bit = 2 * n_foods + jnp.asarray(numbers)[_content_bits(kitchen, state.places)]
    food_bits = 2 * jnp.arange(n_foods) + state.chopped
    bits = jnp.left_shift(1, jnp.concatenate([plate_bit[None], food_bits]).astype(jnp.int32))
    hands = kitchen.n_cells + jnp.arange(2)[:, None]
    holds = jnp.sum(jnp.where(state.places == hands, bits, 0), axis=1)
    return state.seen | holds, jnp.sum((holds & ~state.seen) != 0)


def _progress(kitchen: Kitchen, state: CookingState, paid: int | None) -> tuple[Array, Array, Array]:
    """Return (nodes, the best recipe's progress of this step, the completed recipe or -1)."""
    n_foods = len(kitchen.foods)
    needs = jnp.asarray([_bits(recipe) for recipe in kitchen.recipes], jnp.int32)
    sizes = jnp.asarray([len(recipe) for recipe in kitchen.recipes])
    content = _content_bits(kitchen, state.places)
    plated = (content & needs) == needs
    chopped = jnp.sum(jnp.where(state.chopped, jnp.asarray(2 ** np.arange(n_foods), jnp.int32), 0))
    plated_bits = jnp.sum(jnp.where(plated, jnp.left_shift(1, n_foods + jnp.arange(len(sizes))), 0))
    nodes = state.nodes | chopped | plated_bits
    new = nodes & ~state.nodes
    gained = jax.lax.population_count(new & needs) + ((new >> (n_foods + jnp.arange(len(sizes)))) & 1)

    served = plated & (state.places[0] == kitchen.cell(kitchen.delivery))
    longest = jnp.argmax(jnp.where(served, sizes, 0)).astype(jnp.int32)
    delivered = jnp.where(served.any(), longest, UNDEFINED)
    completed = (delivered >= 0) if paid is None else (delivered == paid)
    # A delivery that is not paid ends the episode without progress, whatever else the step brought.
    unpaid = jnp.where(delivered >= 0, 0.0, gained.max().astype(jnp.float32))
    return nodes, jnp.where(completed, DELIVERED, unpaid), delivered


def _bits(foods: frozenset[int] | tuple[int, ...]) -> int:
    return sum(1 << food for food in foods)


def _put(array: Array, seat: int, value: Array) -> Array:
    # A two-element select is fused, a scatter is not.
    return jnp.where(jnp.arange(2) == seat, value, array)
