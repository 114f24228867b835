"""What a player of the cooking game sees: 57 numbers in the order of the original engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from .kitchen import BOARD, COUNTER, DELIVERY, FLOOR, Kitchen

if TYPE_CHECKING:
    from .cooking import CookingState

# Orders of the original engine, by food name; a kitchen with fewer foods leaves the others out.
_HELD = ("tomato", "lettuce", "onion", "plate", "carrot")
_CHOPPED = ("tomato", "lettuce", "onion", "carrot")


def features(kitchen: Kitchen, state: CookingState, seat: int) -> Array:
    """Return one player's observation, float32, shape (29 + 7 foods,).

    In order: own (x, y) and then, relative to it, the other player, board, delivery, plate and each food, all
    divided by the width; own and other orientation one-hot; chopped flags; whether the four neighbors at +x,
    +y, -x, -y are no floor; what is held (a plate's contents included) and which of it is chopped; what the
    faced cell is and carries, and which of that is chopped.
    """
    where = locations(kitchen, state)
    held = state.places == kitchen.n_cells + seat
    faced = state.players[seat] + jnp.asarray(kitchen.steps)[state.facing[seat]]
    here = state.places == faced
    parts = [
        _positions(kitchen, state, seat, where),
        jax.nn.one_hot(state.facing[jnp.array([seat, 1 - seat])], 4).ravel(),
        state.chopped,
        _walls(kitchen, state.players[seat]),
        *_carried(kitchen, state, held),
        *_faced(kitchen, state, faced, here),
    ]
    return jnp.concatenate([part.astype(jnp.float32) for part in parts])


def locations(kitchen: Kitchen, state: CookingState) -> Array:
    """Return the cells of the plate and of each food, shape (1 + foods,); what is held is at its holder's."""
    n = kitchen.n_cells
    plate = _held_at(state, state.places[0], n)
    foods = _held_at(state, state.places[1:], n)
    foods = jnp.where(state.places[1:] == n + 2, plate, foods)
    return jnp.concatenate([plate[None], foods])


def _held_at(state: CookingState, places: Array, n: int) -> Array:
    return jnp.where(places == n, state.players[0], jnp.where(places == n + 1, state.players[1], places))


def _positions(kitchen: Kitchen, state: CookingState, seat: int, where: Array) -> Array:
    own = state.players[seat]
    fixed = jnp.array([kitchen.cell(kitchen.board), kitchen.cell(kitchen.delivery)], jnp.int32)
    others = jnp.concatenate([state.players[1 - seat][None], fixed, where])
    x, y = others % kitchen.width, others // kitchen.width
    own_x, own_y = own % kitchen.width, own // kitchen.width
    relative = jnp.stack([x - own_x, y - own_y], axis=1).ravel()
    return jnp.concatenate([jnp.stack([own_x, own_y]), relative]) / kitchen.width


def _walls(kitchen: Kitchen, cell: Array) -> Array:
    around = jnp.array([1, kitchen.width, -1, -kitchen.width])
    return jnp.asarray(kitchen.kinds != FLOOR)[cell + around]


def _carried(kitchen: Kitchen, state: CookingState, held: Array) -> tuple[Array, Array]:
    """Return what a hand (or a cell) carries, a plate's contents included, and which of it is chopped."""
    carries = held.at[1:].set(held[1:] | (held[0] & (state.places[1:] == kitchen.n_cells + 2)))
    chopped = jnp.concatenate([jnp.zeros(1, bool), carries[1:] & state.chopped])
    return carries[held_order(kitchen)], chopped[_order(kitchen, _CHOPPED)]


def _faced(kitchen: Kitchen, state: CookingState, faced: Array, here: Array) -> tuple[Array, ...]:
    kind = jnp.asarray(kitchen.kinds)[faced]
    carries, chopped = _carried(kitchen, state, here)
    before = carries[jnp.asarray([i for i, name in enumerate(_present(kitchen, _HELD)) if name != "carrot"])]
    carrot = carries[
        jnp.asarray([i for i, name in enumerate(_present(kitchen, _HELD)) if name == "carrot"], int)
    ]
    # The original engine also has an agent and a blender here; neither is ever faced in these kitchens.
    never = jnp.zeros(2, bool)
    stands = jnp.stack([kind == COUNTER, kind == BOARD, kind == DELIVERY])
    return stands, before, never, carrot, chopped


def held_order(kitchen: Kitchen) -> NDArray[np.intp]:
    """Return the thing (0 the plate, 1 + food) behind each "held" feature."""
    return _order(kitchen, _HELD)


def _present(kitchen: Kitchen, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name == "plate" or name in kitchen.foods]


def _order(kitchen: Kitchen, names: tuple[str, ...]) -> NDArray[np.intp]:
    things = ("plate", *kitchen.foods)
    return np.array([things.index(name) for name in _present(kitchen, names)])
