"""Cross-play: every policy of a list with every other, in both seatings; one convention for its return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError, as_generator, positive_int

from .games.game import Game
from .measures.logs import BehaviourCounts
from .rollout import Episodes, play


@dataclass(frozen=True, slots=True)
class CrossPlay:
    """Returns, successes and behaviours of all pairs.

    The convention: `returns[i, j]` is the mean over both seatings, J_XP = (J(i left, j right) + J(j left, i
    right)) / 2, so it is symmetric; the paper's J_XP is the sum, twice as large.

    Attributes:
        names: One name per policy.
        behaviour_names: The game's behaviours.
        seated_returns: Mean return with i in seat 0 and j in seat 1, shape (policies, policies).
        seated_stderr: Its standard error, likewise.
        successes: Episodes with a behaviour, by seating, int, shape (policies, policies).
        behaviours: Episodes by behaviour, by seating, shape (policies, policies, behaviours).
        episodes: Episodes per seating.
    """

    names: tuple[str, ...]
    behaviour_names: tuple[str, ...]
    seated_returns: NDArray[np.float64]
    seated_stderr: NDArray[np.float64]
    successes: NDArray[np.int64]
    behaviours: NDArray[np.int64]
    episodes: int

    @property
    def returns(self) -> NDArray[np.float64]:
        """Mean return over both seatings, symmetric, shape (policies, policies); diagonal: self-play."""
        return np.asarray((self.seated_returns + self.seated_returns.T) / 2.0)

    @property
    def success_rates(self) -> NDArray[np.float64]:
        """Success rate over both seatings, symmetric, shape (policies, policies)."""
        return np.asarray((self.successes + self.successes.T) / (2.0 * self.episodes))

    @property
    def closest(self) -> NDArray[np.int64]:
        """For each policy, the other one it earns most with; shape (policies,)."""
        others = np.where(np.eye(len(self.names), dtype=bool), -np.inf, self.returns)
        return np.asarray(others.argmax(axis=1))

    @property
    def self_play(self) -> BehaviourCounts:
        """Behaviours and failures of each policy with itself: what `behaviour_information` takes."""
        n = len(self.names)
        counts = self.behaviours[np.arange(n), np.arange(n)]
        return BehaviourCounts(
            self.names,
            self.behaviour_names,
            counts,
            self.episodes - self.successes[np.arange(n), np.arange(n)],
        )

    def summary(self) -> str:
        """Return a few lines for people: what each policy earns with itself, and with the others."""
        own = np.diag(self.returns)
        rest = (self.returns.sum(axis=1) - own) / max(len(self.names) - 1, 1)
        success = np.diag(self.success_rates)
        width = max(len(name) for name in self.names)
        lines = [f"{'':{width}}  with itself  success  with others"]
        for k, name in enumerate(self.names):
            others = f"{rest[k]:11.3g}" if len(self.names) > 1 else f"{'-':>11}"
            lines.append(f"{name:{width}}  {own[k]:11.3g}  {100 * success[k]:5.0f} %  {others}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        arrays = {
            name: getattr(self, name).tolist() for name in ("returns", "success_rates", "seated_returns")
        }
        return {"names": list(self.names), "episodes": self.episodes, **arrays}

    def plot(self, ax: Any = None) -> Any:
        """Draw the matrix of returns; returns the matplotlib axes."""
        from .pictures import draw_cross_play

        return draw_cross_play(self, ax)


def cross_play(
    policies: Sequence[Any],
    game: Game,
    *,
    episodes: int,
    rng: int | np.random.Generator = 0,
    names: Sequence[str] | None = None,
) -> CrossPlay:
    """Let every policy play with every policy, itself included, in both seatings.

    Args:
        policies: Policies of any make (see `Policy`), or a `Population`.
        game: The game they play.
        episodes: Episodes per ordered pair of seats.
        rng: Seed or generator of starts and draws.
        names: One name per policy; None numbers them.

    Returns:
        The matrix of returns with successes and behaviours.

    Raises:
        InputError: No policies, names that do not fit, an object that is no policy, or an illegal action.

    Example:
        >>> from metier.partners.games import MatrixGame
        >>> from metier.partners.policies import ConstantPolicy
        >>> pairs = cross_play([ConstantPolicy(0), ConstantPolicy(9)], MatrixGame(), episodes=2)
        >>> pairs.returns.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    positive_int("episodes", episodes)
    named = policy_names(policies, names)
    generator = as_generator(rng)
    n = len(named)
    played = [
        [
            play(policies[i], policies[j], game, episodes=episodes, rng=generator, names=(named[i], named[j]))
            for j in range(n)
        ]
        for i in range(n)
    ]
    return CrossPlay(
        names=named,
        behaviour_names=tuple(game.behaviours),
        seated_returns=_table(played, lambda e: e.returns.mean()),
        seated_stderr=_table(
            played, lambda e: e.returns.std(ddof=1) / np.sqrt(episodes) if episodes > 1 else np.nan
        ),
        successes=_table(played, lambda e: e.successes).astype(np.int64),
        behaviours=np.array([[e.counts(len(game.behaviours)) for e in row] for row in played]),
        episodes=episodes,
    )


def policy_names(policies: Sequence[Any], names: Sequence[str] | None) -> tuple[str, ...]:
    """Return one name per policy, numbered where `names` is None.

    Raises:
        InputError: No policies, something else than a list of them, or another number of names.
    """
    if not (isinstance(policies, Sequence) or hasattr(policies, "policies")) or isinstance(policies, str):
        raise InputError(
            "policies come as a list",
            expected="a list of policies, or a Population",
            got=type(policies).__name__,
            next_step="Put them into a list: a single one as [policy], a dictionary's as list(d.values()).",
        )
    if len(policies) == 0:
        raise InputError(
            "cross-play has policies to pair",
            expected="at least one policy",
            got="an empty list",
            next_step="Leave no population empty.",
        )
    if names is None:
        return tuple(f"policy {index}" for index in range(len(policies)))
    if isinstance(names, str) or len(names) != len(policies):
        raise InputError(
            "names has one entry per policy",
            expected=f"{len(policies)} names",
            got=repr(names) if isinstance(names, str) else f"{len(names)}",
            next_step="Pass names=None to number the policies.",
        )
    return tuple(str(name) for name in names)


def _table(played: list[list[Episodes]], value: Any) -> NDArray[np.float64]:
    return np.array([[value(episodes) for episodes in row] for row in played], dtype=np.float64)
