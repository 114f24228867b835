"""What a training reports as it goes: returns, success, cross-play and the measures of the population."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metier.partners.games.game import Game, reset_pool
from metier.partners.measures.behaviour import behaviour_information

from .actors import Actor
from .collect import TwoActors, begin, collect


@dataclass(frozen=True, slots=True)
class Progress:
    """Reports in the order of training.

    Attributes:
        rows: One dict per report. "steps": environment steps so far; "returns": mean return of each member
            with itself; "success": its share of episodes with a behaviour; "cross_play": mean return with
            each other member (rows: members); "diversity", "specialization", "information": of the members
            that succeeded (nats, None if none did); and the trainer's own scalars, such as "entropy".
    """

    rows: tuple[Mapping[str, Any], ...] = ()

    def summary(self) -> str:
        """Return one line per report."""
        lines = [
            f"{'steps':>12}  {'return':>8}  {'success':>8}  {'cross-play':>10}  {'D':>6}  {'S':>6}  {'I':>6}"
        ]
        for row in self.rows:
            measures = [row[name] for name in ("diversity", "specialization", "information")]
            others = row["cross_play"]
            off = [v for i, line in enumerate(others) for j, v in enumerate(line) if i != j]
            numbers = "  ".join(f"{'-' if m is None else format(m, '.3f'):>6}" for m in measures)
            lines.append(
                f"{row['steps']:>12,}  {np.mean(row['returns']):>8.3f}  {np.mean(row['success']):>8.2f}  "
                f"{format(np.mean(off), '.3f') if off else '-':>10}  {numbers}"
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON."""
        return {"rows": [dict(row) for row in self.rows]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """Return what `to_dict` gave."""
        return cls(tuple(values["rows"]))

    def plot(self, ax: Any = None) -> Any:
        """Draw the learning curves of all members; returns the matplotlib axes."""
        from metier.partners.pictures import draw_learning_curves

        return draw_learning_curves(self, ax)


class PairPlay(NamedTuple):
    """Finished episodes of every ordered pair of members.

    Attributes:
        returns: Mean return, shape (members, members); rows sit left.
        behaviours: Episodes by behaviour, the last column those without, (members, members, behaviours + 1).
    """

    returns: Array
    behaviours: Array


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="episodes")
def pair_play(game: Game, actor: Actor, params: Any, key: Array, *, episodes: int) -> PairPlay:
    """Play every ordered pair of members, itself included: the first episode of each of `episodes` games."""
    n = jax.tree.leaves(params)[0].shape[0]
    pool_key, *keys = jax.random.split(key, 3)
    pool = reset_pool(game, pool_key, 512)
    team = TwoActors(actor, actor)

    def pair(left: Array, right: Array, key: Array) -> PairPlay:
        both = (_member(params, left), _member(params, right))
        start, play = jax.random.split(key)
        running = begin(game, team, pool, start, episodes)
        _, chunk = collect(game, team, both, running, pool, play, n_steps=game.horizon)
        # The first episode of every game, so that short episodes do not count more often.
        first = chunk.done & (jnp.cumsum(chunk.done, axis=0) == 1)
        shown = jnp.where(chunk.behaviours < 0, len(game.behaviours), chunk.behaviours)
        kinds = jnp.arange(len(game.behaviours) + 1)
        counts = ((shown[..., None] == kinds) & first[..., None]).sum(axis=(0, 1))
        return PairPlay((chunk.returns * first).sum() / episodes, counts)

    left, right = (grid.ravel() for grid in jnp.meshgrid(jnp.arange(n), jnp.arange(n), indexing="ij"))
    played = jax.vmap(pair)(left, right, jax.random.split(keys[0], n * n))
    shaped: PairPlay = jax.tree.map(lambda leaf: leaf.reshape(n, n, *leaf.shape[1:]), played)
    return shaped


def _member(params: Any, index: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], params)


def report(
    game: Game,
    actor: Actor,
    params: Any,
    key: Array,
    *,
    steps: int,
    episodes: int,
    scalars: Mapping[str, Any],
) -> dict[str, Any]:
    """Return one row of `Progress`."""
    played = jax.tree.map(np.asarray, pair_play(game, actor, params, key, episodes=episodes))
    returns = (played.returns + played.returns.T) / 2.0
    own = np.diagonal(played.behaviours, axis1=0, axis2=1).T
    shown = own[:, :-1]
    capable = shown.sum(axis=1) > 0
    measures: dict[str, float | None] = dict.fromkeys(("diversity", "specialization", "information"))
    if capable.any():
        told = behaviour_information(counts=shown[capable], permutations=1)
        measures = {name: float(getattr(told, name)) for name in measures}
    return {
        "steps": int(steps),
        "returns": np.diagonal(returns).astype(float).tolist(),
        "success": (shown.sum(axis=1) / own.sum(axis=1)).astype(float).tolist(),
        "cross_play": returns.astype(float).tolist(),
        **measures,
        **{name: float(np.mean(value)) for name, value in scalars.items()},
    }
