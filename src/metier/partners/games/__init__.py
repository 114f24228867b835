"""Games for two players as pure functions: see `Game` for the contract."""

from __future__ import annotations

from metier.core.extras import naming_extras

with naming_extras():
    import jax  # noqa: F401

from .check import check_game as check_game
from .cooking import Cooking as Cooking
from .game import (
    Game as Game,
    Step as Step,
    input_size as input_size,
    reset_pool as reset_pool,
    seated as seated,
)
from .jaxmarl import JaxMarlGame as JaxMarlGame, overcooked as overcooked
from .lever import LeverGame as LeverGame
from .matrix import MatrixGame as MatrixGame
from .planners import Planner as Planner, specialists as specialists
from .rendezvous import Rendezvous as Rendezvous

__all__ = [
    "Cooking",
    "Game",
    "JaxMarlGame",
    "LeverGame",
    "MatrixGame",
    "Planner",
    "Rendezvous",
    "Step",
    "check_game",
    "input_size",
    "overcooked",
    "reset_pool",
    "seated",
    "specialists",
]
