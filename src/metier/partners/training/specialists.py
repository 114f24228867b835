"""Oracle specialists: one per behaviour of a game, scripted, or trained where only one recipe is paid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metier.core import InputError, derive_seed, positive_int
from metier.partners.games import Cooking, LeverGame, MatrixGame, specialists
from metier.partners.games.game import Game
from metier.partners.policies import ConstantPolicy

from .loop import OnProgress
from .population import Population
from .ppo import PPO
from .progress import Progress
from .self_play import train_self_play


def oracle_specialists(game: Game, *, noise: float = 0.0) -> list[Any]:
    """Return one scripted policy per behaviour: no handshake, and exactly that behaviour (S = 0).

    Planners for the cooking game, the lever for the lever game, the block's first action for the matrix game.

    Args:
        game: The game.
        noise: Probability of a random action instead of the planned one; cooking only.

    Returns:
        JAX policies of one class, which `train_generalist` takes as partners.

    Raises:
        InputError: A game of another kind, or noise where nothing is planned.

    Example:
        >>> from metier.partners.games import LeverGame
        >>> [policy.action for policy in oracle_specialists(LeverGame(n_levers=3))]
        [0, 1, 2]

    Source: ours; the paper trains its oracle specialists (`train_specialists`).
    """
    if isinstance(game, Cooking):
        return list(specialists(game, noise=noise))
    if noise:
        raise InputError(
            "noise disturbs planners",
            expected="noise=0.0 where there is no plan",
            got=f"{noise!r} for the game {game.name!r}",
            next_step="Leave noise out.",
        )
    if isinstance(game, LeverGame):
        return [ConstantPolicy(lever) for lever in range(game.n_levers)]
    if isinstance(game, MatrixGame):
        return [ConstantPolicy(int(first)) for first in np.cumsum([0, *game.blocks[:-1]])]
    raise InputError(
        "specialists are scripted for games that say how",
        expected="Cooking, LeverGame or MatrixGame",
        got=type(game).__name__,
        next_step="Write one policy per behaviour and pass the list wherever partners are taken.",
    )


def train_specialists(
    game: Cooking,
    *,
    steps: int,
    recipes: Sequence[int] | None = None,
    n_members: int = 1,
    rng: int = 0,
    ppo: PPO | None = None,
    hidden: tuple[int, ...] = (64, 64),
    gru_units: int = 0,
    folder: str | Path | None = None,
    on_progress: OnProgress | None = None,
    reports: int = 10,
) -> Population:
    """Train specialists by self-play where only one recipe's completion is paid (the paper's *S*).

    The delivery of another recipe ends the episode with neither bonus nor progress; all other rewards are as
    usual. Being paid for one recipe does not make a team cook it: look at the result's `progress`.

    Args:
        game: The cooking game, with paid_recipe=None.
        steps: Environment steps for each recipe, of all its members together. Recipes of two foods take much
            more than those of one: at 5M steps they were not learned.
        recipes: Their numbers; None is all of the kitchen's.
        n_members: Members per recipe.
        rng: Seed.
        ppo: Settings of the learning.
        hidden: Sizes of the actors' dense layers.
        gru_units: Units of the actors' GRU.
        folder: Where checkpoints are kept and looked for, a folder per recipe in it.
        on_progress: Called with each report, with the recipe's name as "recipe".
        reports: Reports per recipe.

    Returns:
        The specialists of all recipes, named by recipe; `progress` has the last report of each recipe, whose
        "success" counts deliveries of any recipe and whose "returns" only pay the assigned one.

    Raises:
        InputError: Another game, a recipe that the kitchen does not have, or settings out of range.

    Source: Charakorn et al., NeurIPS 2024, controls; what another delivery earns is ours.
    """
    chosen = _checked(game, recipes)
    positive_int("n_members", n_members)
    parts: list[Population] = []
    for recipe in chosen:
        name = game.behaviours[recipe]

        def tell(row: Mapping[str, Any], name: str = name) -> None:
            if on_progress is not None:
                on_progress({**row, "recipe": name})

        trained = train_self_play(
            replace(game, paid_recipe=recipe),
            n_members=n_members,
            steps=steps,
            rng=int(derive_seed(rng, "specialist", recipe) % 2**31),
            ppo=ppo,
            hidden=hidden,
            gru_units=gru_units,
            folder=None if folder is None else Path(folder) / f"recipe-{recipe}",
            on_progress=tell,
            reports=reports,
        )
        rows = ({**trained.progress.rows[-1], "recipe": name},)
        names = tuple(f"{name} {member}" for member in range(n_members))
        parts.append(replace(trained, names=names, progress=Progress(rows)))
    params = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *[part.params for part in parts])
    return Population(
        game.name,
        parts[0].actor,
        params,
        tuple(name for part in parts for name in part.names),
        Progress(tuple(row for part in parts for row in part.progress.rows)),
    )


def _checked(game: Any, recipes: Sequence[int] | None) -> list[int]:
    if not isinstance(game, Cooking) or game.paid_recipe is not None:
        raise InputError(
            "specialists are trained on a cooking game that pays every recipe",
            expected="Cooking(paid_recipe=None, ...)",
            got=repr(game),
            next_step="Pass Cooking(); each recipe's game is made from it.",
        )
    n = len(game.behaviours)
    chosen = list(range(n) if recipes is None else recipes if isinstance(recipes, Sequence) else [])
    if not chosen or any(recipe not in range(n) for recipe in chosen) or len(set(chosen)) < len(chosen):
        raise InputError(
            "recipes are different recipes of the kitchen",
            expected=f"numbers from 0 to {n - 1}, each once",
            got=repr(recipes),
            next_step=f"They are {', '.join(game.behaviours)}.",
        )
    return chosen
