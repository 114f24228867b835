"""The lever game without sampling: returns, behaviours and D, S, I of memoryless members, exactly."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metier.partners import behaviour_information
from metier.partners.games import LeverGame


def member_tables(game: LeverGame, population: Any) -> Any:
    """Return lever probabilities after (stage, own last, other last), shape (members, 2, T, K+1, K+1, K).

    The second axis is the seat; a latent is summed out only where there is none.
    """
    actor, seen = population.actor, game.all_observations()

    @jax.jit
    def tables(params: Any) -> Any:
        def one(params: Any, seat: Any) -> Any:
            inputs = actor.inputs(seen, seat, jnp.zeros(seen.shape[:-1], jnp.int32))
            logits, _ = actor.network.step(params, inputs, actor.network.initial_memory(*seen.shape[:-1]))
            return jax.nn.softmax(logits)

        return jax.vmap(lambda p: jax.vmap(lambda seat: one(p, seat))(jnp.arange(2)))(params)

    return tables(population.params)


def exact_facts(game: LeverGame, population: Any) -> dict[str, Any] | None:
    """Return exact cross-play returns, behaviours and D, S, I; None for members with memory or a latent.

    `D`, `S` and `I` are of the members that meet themselves in more than half of their episodes.
    """
    if population.actor.n_latents or population.actor.network.is_recurrent:
        return None
    tables = member_tables(game, population)
    pairs = jax.jit(jax.vmap(jax.vmap(game.exact, (None, 0)), (0, None)))
    value = pairs(tables[:, 0], tables[:, 1])
    n = len(population)
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
        facts |= {name: getattr(told, name) for name in ("diversity", "specialization", "information")}
    return facts
