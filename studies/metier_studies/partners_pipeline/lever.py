"""The lever game without sampling: returns, behaviours, D, S, I, O and R, exactly."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from metier.core.extras import naming_extras
from metier.partners import behaviour_information
from metier.partners.games import LeverGame
from metier.partners.games.lever import LeverValue

with naming_extras():
    import jax
    import jax.numpy as jnp
    from jax import Array


SEATS = 2


def member_tables(game: LeverGame, population: Any) -> Any:
    """Return lever probabilities after (stage, own last, other last), shape (members, 2, T, K+1, K+1, K).

    The second axis is the seat; members have neither memory nor a latent.
    """
    return _tables(game, population.actor, population.params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _tables(game: LeverGame, actor: Any, params: Any) -> Array:
    seen = game.all_observations()

    def one(params: Any, seat: Any) -> Array:
        inputs = actor.inputs(seen, seat, jnp.zeros(seen.shape[:-1], jnp.int32))
        logits, _ = actor.network.step(params, inputs, actor.network.initial_memory(*seen.shape[:-1]))
        return jax.nn.softmax(logits)

    tables: Array = jax.vmap(lambda p: jax.vmap(lambda seat: one(p, seat))(jnp.arange(SEATS)))(params)
    return tables


@functools.partial(jax.jit, static_argnums=0)
def _all_pairs(game: LeverGame, lefts: Array, rights: Array) -> LeverValue:
    """Return the exact value of every left policy with every right one; leading axes (lefts, rights)."""
    value: LeverValue = jax.vmap(jax.vmap(game.exact, (None, 0)), (0, None))(lefts, rights)
    return value


def specialist_tables(game: LeverGame) -> Array:
    """Return the tables of the scripted specialists, one per lever: always the same lever."""
    k = game.n_levers
    always = jnp.eye(k).reshape(k, 1, 1, 1, 1, k)
    return jnp.broadcast_to(always, (k, SEATS, game.n_stages, k + 1, k + 1, k))


def copycat_table(game: LeverGame) -> Array:
    """Return the table of the scripted oracle in either seat: the best lever, then what the other one chose.

    It meets every specialist at the second stage at the latest, without having trained with anybody.
    """
    k = game.n_levers
    first = int(np.argmax(np.asarray(game.rewards[0])))
    lever = jnp.concatenate([jnp.eye(k), jnp.eye(k)[first][None]])
    table = jnp.broadcast_to(lever[None, None], (game.n_stages, k + 1, k + 1, k))
    return jnp.broadcast_to(table, (SEATS, *table.shape))


def exact_population(game: LeverGame, tables: Array) -> dict[str, Any]:
    """Return exact cross-play returns and behaviours; and D, S, I of the members that meet themselves.

    Args:
        game: The game.
        tables: From `member_tables`.
    """
    value = _all_pairs(game, tables[:, 0], tables[:, 1])
    n = len(tables)
    returns = np.asarray(value.expected_return, float)
    shown = np.asarray(value.behaviours, float)[np.arange(n), np.arange(n)]
    success = shown.sum(axis=1)
    capable = success > 0.5
    facts: dict[str, Any] = {
        "cross_play": ((returns + returns.T) / 2.0).tolist(),
        "behaviours": shown.tolist(),
        "success": success.tolist(),
    }
    if capable.any():
        told = behaviour_information(shown[capable] / success[capable, None])
        # Policies are float32: what is below a millionth is rounding.
        names = ("diversity", "specialization", "information")
        facts |= {name: round(getattr(told, name), 6) + 0.0 for name in names}
    return facts


def meet(game: LeverGame, table: Array, mates: Array) -> dict[str, Any]:
    """Return how a memoryless policy does with each mate, both seatings alike, exactly.

    Args:
        game: The game.
        table: The policy's, shape (2, T, K+1, K+1, K).
        mates: The mates', shape (mates, 2, T, K+1, K+1, K).
    """
    left = _all_pairs(game, table[:1], mates[:, 1])
    right = _all_pairs(game, mates[:, 0], table[1:])
    return _met(
        (1.0 - left.failure[0] + 1.0 - right.failure[:, 0]) / 2.0,
        (left.expected_return[0] + right.expected_return[:, 0]) / 2.0,
    )


def meet_with_memory(game: LeverGame, generalist: Any, mates: Array) -> dict[str, Any]:
    """Return how a policy with memory does with each memoryless mate, by going through all histories.

    A history is the pairs of different levers chosen so far: (K (K - 1))^t of them at stage t.

    Args:
        game: The game, of few stages.
        generalist: A `Generalist`.
        mates: shape (mates, 2, T, K+1, K+1, K).
    """
    value = _through_histories(game, generalist.actor, generalist.params, mates)
    return _met(*(sum(parts) / SEATS for parts in zip(*value, strict=True)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _through_histories(game: LeverGame, actor: Any, params: Any, mates: Array) -> list[tuple[Array, Array]]:
    """Return (success, return) with every mate, for the policy in either seat."""
    return [_in_seat(game, actor, params, mates, seat) for seat in range(SEATS)]


def _in_seat(game: LeverGame, actor: Any, params: Any, mates: Array, seat: int) -> tuple[Array, Array]:
    k, rewards, seen = game.n_levers, game.rewards, game.all_observations()
    own, other = (jnp.asarray(side) for side in np.nonzero(~np.eye(k, dtype=bool)))
    theirs, n = mates[:, 1 - seat], len(mates)
    mine_last = theirs_last = jnp.full(1, k)
    memory, weight = actor.network.initial_memory(1), jnp.ones((n, 1))
    success = returns = jnp.zeros(n)
    for stage in range(game.n_stages):
        inputs = actor.inputs(seen[stage, mine_last, theirs_last], seat, jnp.zeros_like(mine_last))
        logits, memory = actor.network.step(params, inputs, memory)
        mine, answer = jax.nn.softmax(logits), theirs[:, stage, theirs_last, mine_last]
        met = (weight[..., None] * mine * answer).sum(axis=1)
        success, returns = success + met.sum(axis=-1), returns + met @ rewards[stage]
        if stage == game.n_stages - 1:
            break
        weight = (weight[..., None] * mine[:, own] * answer[..., other]).reshape(n, -1)
        memory = jnp.repeat(memory, len(own), axis=0)
        mine_last, theirs_last = (jnp.tile(side, len(mine_last)) for side in (own, other))
    return success, returns


def _met(success: Any, returns: Any) -> dict[str, Any]:
    rates = np.clip(np.asarray(success, float), 0.0, 1.0).round(6)
    mean = float(len(rates) / (1.0 / rates).sum()) if rates.all() else 0.0
    return {
        "success": rates.tolist(),
        "returns": np.asarray(returns, float).tolist(),
        "robustness": mean,
        "stderr": 0.0,
    }
