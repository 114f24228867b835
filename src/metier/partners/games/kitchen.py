"""Kitchens: where counters, board and delivery stand, where supplies start, which recipes there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FOODS = ("lettuce", "tomato", "onion", "carrot")
FLOOR, COUNTER, BOARD, DELIVERY = range(4)
# left, right, down (y + 1), up: the order of actions 1-4 and of orientation one-hots
DIRECTIONS = ((-1, 0), (1, 0), (0, 1), (0, -1))


@dataclass(frozen=True, slots=True)
class Kitchen:
    """Two rooms divided by a column of counters; x grows to the right, y downwards.

    Attributes:
        width: Cells per row, the border included.
        height: Cells per column, the border included.
        divider: x of the dividing column.
        board: (x, y) of the chopping board, in the left border: only the left player reaches it.
        delivery: (x, y) of the delivery, in the right border: only the right player reaches it.
        supplies: Columns x in which each thing may start: the plate's first, then each food's.
        foods: The foods, in the order of their numbers.
        recipes: Each recipe's foods, by number; a behaviour is a recipe.
    """

    width: int
    height: int
    divider: int
    board: tuple[int, int]
    delivery: tuple[int, int]
    supplies: tuple[tuple[int, ...], ...]
    foods: tuple[str, ...]
    recipes: tuple[tuple[int, ...], ...]

    @property
    def n_cells(self) -> int:
        """Cells, numbered y * width + x."""
        return self.width * self.height

    def cell(self, place: tuple[int, int]) -> int:
        """Return the number of a cell (x, y)."""
        return place[1] * self.width + place[0]

    @property
    def kinds(self) -> NDArray[np.int32]:
        """What each cell is: FLOOR, COUNTER, BOARD or DELIVERY, shape (n_cells,)."""
        kinds = np.full((self.height, self.width), COUNTER, np.int32)
        kinds[1:-1, 1 : self.divider] = FLOOR
        kinds[1:-1, self.divider + 1 : -1] = FLOOR
        kinds[self.board[1], self.board[0]] = BOARD
        kinds[self.delivery[1], self.delivery[0]] = DELIVERY
        return kinds.ravel()

    @property
    def steps(self) -> NDArray[np.int32]:
        """What each direction adds to a cell's number, shape (4,)."""
        return np.array([dx + dy * self.width for dx, dy in DIRECTIONS], np.int32)

    def room(self, seat: int) -> NDArray[np.int32]:
        """Return the floor cells of a player's room."""
        x = np.arange(self.n_cells) % self.width
        mine = x < self.divider if seat == 0 else x > self.divider
        return np.flatnonzero((self.kinds == FLOOR) & mine).astype(np.int32)

    def start_counters(self, thing: int) -> NDArray[np.bool_]:
        """Return which cells a thing (0 the plate, 1 + food) may start on, shape (n_cells,)."""
        x, y = np.arange(self.n_cells) % self.width, np.arange(self.n_cells) // self.width
        inner = (y >= 1) & (y < self.height - 1)
        return np.asarray((self.kinds == COUNTER) & inner & np.isin(x, self.supplies[thing]))

    @property
    def contents(self) -> tuple[frozenset[int], ...]:
        """What a plate may hold, by its foods: nothing, one food, or the foods of a recipe."""
        single = [frozenset({food}) for food in range(len(self.foods))]
        mixed = [frozenset(recipe) for recipe in self.recipes if len(recipe) > 1]
        return (frozenset(), *single, *mixed)

    def recipe_name(self, recipe: int) -> str:
        """Return for example "tomato-lettuce"."""
        return "-".join(self.foods[food] for food in self.recipes[recipe])


FULL_DIVIDER = Kitchen(
    width=7,
    height=7,
    divider=3,
    board=(0, 3),
    delivery=(6, 3),
    supplies=((3,), (0, 3), (3, 6), (0, 3), (3, 6)),
    foods=FOODS,
    recipes=((0,), (2,), (1,), (3,), (1, 0), (1, 3)),
)
"""The paper's kitchen (LIPO's `full_divider_salad_4`): four foods, six recipes."""

SMALL = Kitchen(
    width=5,
    height=5,
    divider=2,
    board=(0, 2),
    delivery=(4, 2),
    supplies=((2,), (0, 2), (2, 4)),
    foods=FOODS[:2],
    recipes=((0,), (1,), (1, 0)),
)
"""A kitchen for tests: two foods, three recipes, rooms one cell wide."""

KITCHENS = {"full_divider": FULL_DIVIDER, "small": SMALL}
