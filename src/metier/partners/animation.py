"""An episode of cooking as an animated picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from metier.core import InputError, as_generator, positive_int
from metier.core.extras import naming_extras

from .games.cooking import Cooking, CookingState
from .games.cooking_view import locations
from .games.game import seated
from .games.kitchen import BOARD, COUNTER, DELIVERY, DIRECTIONS, Kitchen
from .policies import Seatmate, seatmate
from .rollout import refuse_unfit

with naming_extras():
    import jax
    import jax.numpy as jnp

_FILLS = {0: "#f4f1ea", COUNTER: "#c9b79c", BOARD: "#8d6e63", DELIVERY: "#9fa8da"}
_FOODS = {"lettuce": "#43a047", "tomato": "#e53935", "onion": "#ab47bc", "carrot": "#fb8c00"}
_COOKS = ("#1e88e5", "#fdd835")
SIDE = 40


def record_episode(
    first: Any, second: Any, game: Cooking, *, rng: int | np.random.Generator = 0
) -> list[CookingState]:
    """Play one episode and return its states, the start included.

    Args:
        first: The policy in seat 0, of any make.
        second: The policy in seat 1.
        game: A cooking game.
        rng: Seed or generator of start and draws.

    Raises:
        InputError: Another game, or an object that is no policy for it.
    """
    if not isinstance(game, Cooking):
        raise InputError(
            "episodes are drawn for the cooking game",
            expected="a Cooking game",
            got=type(game).__name__,
            next_step="Pass partners.games.Cooking().",
        )
    generator = as_generator(rng)
    names = ("the first policy", "the second policy")
    mates = [
        seatmate(policy, n_actions=game.n_actions, name=name, rng=generator)
        for policy, name in zip((first, second), names, strict=True)
    ]
    for mate in mates:
        mate.start(1)
    try:
        return _played(mates, game, generator)
    except (TypeError, ValueError) as error:
        refuse_unfit((first, second), names, game, error)
        raise


def _played(mates: list[Seatmate], game: Cooking, generator: np.random.Generator) -> list[CookingState]:
    step, observe = jax.jit(game.step), jax.jit(game.observe)
    states = [game.reset(jax.random.key(int(generator.integers(2**32))))]
    for _ in range(game.horizon):
        seen = np.asarray(seated(observe(states[-1])))
        actions = [int(mate.act(seen[seat][None])[0]) for seat, mate in enumerate(mates)]
        after = step(states[-1], jnp.asarray(actions))
        states.append(after.state)
        if bool(after.terminated | after.truncated):
            break
    return states


def animate(states: list[CookingState], game: Cooking, path: str | Path, *, frame_ms: int = 150) -> Path:
    """Write an episode as an animated GIF or PNG, by the name's ending; the file appears when complete.

    Cooks are the blue (left) and yellow (right) discs, a notch showing where they look; foods are squares,
    chopped ones four small squares, and what lies in the white plate is drawn on it.

    Args:
        states: What `record_episode` returned.
        game: The same game.
        path: Where to write; its ending is .gif, .png or .apng.
        frame_ms: Milliseconds per step.

    Returns:
        The path.

    Raises:
        InputError: Another ending, no states or those of another game, or a folder that does not exist.
    """
    target = Path(path)
    _refuse(states, game, target)
    positive_int("frame_ms", frame_ms)
    frames = [draw_state(game.kitchen, state) for state in states]
    partial = target.with_name(f".{target.name}.partial")
    kind = "GIF" if target.suffix == ".gif" else "PNG"
    # The last frame stays, so that the end can be read.
    times = [frame_ms] * (len(frames) - 1) + [10 * frame_ms]
    frames[0].save(partial, kind, save_all=True, append_images=frames[1:], duration=times, loop=0)
    os.replace(partial, target)
    return target


def draw_state(kitchen: Kitchen, state: CookingState) -> Any:
    """Return one state as a PIL image."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (kitchen.width * SIDE, kitchen.height * SIDE), "white")
    brush = ImageDraw.Draw(image)
    for cell, kind in enumerate(kitchen.kinds):
        x, y = _corner(kitchen, cell)
        brush.rectangle((x, y, x + SIDE, y + SIDE), fill=_FILLS[int(kind)], outline="#ffffff")
    for seat in (0, 1):
        _draw_cook(brush, _corner(kitchen, int(state.players[seat])), seat, int(state.facing[seat]))
    _draw_things(brush, kitchen, state)
    return image


def _draw_cook(brush: Any, corner: tuple[int, int], seat: int, facing: int) -> None:
    x, y = corner
    brush.ellipse((x + 4, y + 4, x + SIDE - 4, y + SIDE - 4), fill=_COOKS[seat], outline="#37474f", width=2)
    dx, dy = DIRECTIONS[facing]
    cx, cy = x + SIDE // 2 + 13 * dx, y + SIDE // 2 + 13 * dy
    brush.ellipse((cx - 4, cy - 4, cx + 4, cy + 4), fill="#37474f")


def _draw_things(brush: Any, kitchen: Kitchen, state: CookingState) -> None:
    cells = np.asarray(locations(kitchen, state))
    x, y = _corner(kitchen, int(cells[0]))
    brush.ellipse((x + 9, y + 9, x + SIDE - 9, y + SIDE - 9), fill="#fafafa", outline="#90a4ae", width=2)
    in_plate = 0
    for food, name in enumerate(kitchen.foods):
        x, y = _corner(kitchen, int(cells[1 + food]))
        plated = int(state.places[1 + food]) == kitchen.n_cells + 2
        side = 10 if plated else 16
        left, top = x + (SIDE - side) // 2, y + (SIDE - side) // 2
        if plated:
            left += 6 * (2 * in_plate - 1)
            in_plate += 1
        _draw_food(brush, (left, top), side, _FOODS[name], chopped=bool(state.chopped[food]))


def _draw_food(brush: Any, corner: tuple[int, int], side: int, color: str, *, chopped: bool) -> None:
    left, top = corner
    if not chopped:
        brush.rectangle((left, top, left + side, top + side), fill=color, outline="#37474f")
        return
    half = side // 2
    for dx in (0, half + 1):
        for dy in (0, half + 1):
            brush.rectangle((left + dx, top + dy, left + dx + half - 1, top + dy + half - 1), fill=color)


def _corner(kitchen: Kitchen, cell: int) -> tuple[int, int]:
    return (cell % kitchen.width) * SIDE, (cell // kitchen.width) * SIDE


def _refuse(states: list[CookingState], game: Cooking, target: Path) -> None:
    if target.suffix not in (".gif", ".png", ".apng"):
        raise InputError(
            "an animation is written as GIF or animated PNG",
            expected="a path ending in .gif, .png or .apng",
            got=repr(target.name),
            next_step=f"Try {target.stem}.gif.",
        )
    if not states:
        raise InputError(
            "an animation has states",
            expected="what record_episode returned",
            got="an empty list",
            next_step="Record an episode first.",
        )
    n_things = 1 + len(game.kitchen.foods) if isinstance(game, Cooking) else 0
    odd = [s for s in states if not isinstance(s, CookingState) or np.shape(s.places) != (n_things,)]
    if odd:
        raise InputError(
            "an animation shows states of its game",
            expected="a Cooking game and what record_episode returned for it",
            got=f"{type(game).__name__} and a {type(odd[0]).__name__}",
            next_step="Pass the game that the episode was recorded in.",
        )
    if not target.parent.is_dir():
        raise InputError(
            "the animation's folder exists",
            expected="an existing folder",
            got=repr(str(target.parent)),
            next_step="Create it first.",
        )
