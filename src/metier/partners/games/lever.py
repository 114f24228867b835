"""The repeated lever game: meet on a lever, having seen each other's last choice; exact throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metier.core import InputError, non_negative, positive_int

from .game import UNDEFINED, Step


class LeverState(NamedTuple):
    """Stage, the last choices, and the lever both chose.

    Attributes:
        stage: int32, shape ().
        last: Each player's last lever, int32, shape (2,); n_levers before the first choice.
        matched: The lever of the match, int32, shape (); -1 before it.
    """

    stage: Array
    last: Array
    matched: Array


class LeverValue(NamedTuple):
    """What a pair of memoryless policies leads to, exactly.

    Attributes:
        expected_return: J, shape ().
        behaviours: P(X = k) that the pair meets on lever k, shape (n_levers,).
        failure: Probability of never meeting, shape ().
    """

    expected_return: Array
    behaviours: Array
    failure: Array


@dataclass(frozen=True, slots=True)
class LeverGame:
    r"""K levers, T stages: the episode ends with reward gamma^t w_k when both choose lever k at stage t.

    Both players see both last choices and the stage, so the first choice can be a handshake, later ones can
    follow or sabotage. The behaviour is the lever of the match; never meeting has none.

    Args:
        n_levers: K.
        n_stages: T.
        payoffs: w, one per lever; None is 1 for each.
        discount: gamma.

    Raises:
        InputError: Sizes below 1, payoffs of another length, or a discount outside (0, 1].

    Example:
        >>> game = LeverGame(n_levers=2, n_stages=1)
        >>> coin = jnp.full((1, 3, 3, 2), 0.5)
        >>> [round(float(v), 3) for v in game.exact(coin, coin).behaviours]
        [0.25, 0.25]

    Source: ours, after the lever games of the zero-shot coordination literature.
    """

    n_levers: int = 6
    n_stages: int = 4
    payoffs: tuple[float, ...] | None = None
    discount: float = 0.9

    def __post_init__(self) -> None:
        positive_int("n_levers", self.n_levers)
        positive_int("n_stages", self.n_stages)
        if self.payoffs is not None and len(self.payoffs) != self.n_levers:
            raise InputError(
                "payoffs has one entry per lever",
                expected=f"{self.n_levers} payoffs",
                got=f"{len(self.payoffs)}",
                next_step="Pass payoffs=None for a payoff of 1 each.",
            )
        if not 0.0 < non_negative("discount", self.discount) <= 1.0:
            raise InputError(
                "discount shrinks the reward of later stages",
                expected="a number in (0, 1]",
                got=repr(self.discount),
                next_step="Pass discount=1.0 for none.",
            )

    @property
    def name(self) -> str:
        """One word."""
        return "lever"

    @property
    def n_actions(self) -> int:
        """The levers."""
        return self.n_levers

    @property
    def observation_size(self) -> int:
        """One-hot own and other last choice (start included) and stage."""
        return 2 * (self.n_levers + 1) + self.n_stages

    @property
    def horizon(self) -> int:
        """The stages."""
        return self.n_stages

    @property
    def behaviours(self) -> tuple[str, ...]:
        """The levers."""
        return tuple(f"lever {index}" for index in range(self.n_levers))

    @property
    def rewards(self) -> Array:
        """gamma^t w_k, shape (n_stages, n_levers)."""
        w = jnp.ones(self.n_levers) if self.payoffs is None else jnp.asarray(self.payoffs)
        return jnp.power(self.discount, jnp.arange(self.n_stages))[:, None] * w

    def reset(self, key: Array | None) -> LeverState:
        """Return the state before the first choice; `key` is not used."""
        start = jnp.full(2, self.n_levers, jnp.int32)
        return LeverState(jnp.array(0, jnp.int32), start, jnp.array(UNDEFINED, jnp.int32))

    def observe(self, state: LeverState) -> Array:
        """Return what both players see, shape (2, observation_size)."""
        return jnp.stack([self._features(state.stage, state.last[i], state.last[1 - i]) for i in (0, 1)])

    def step(self, state: LeverState, actions: Array) -> Step:
        """Let both choose a lever."""
        actions = jnp.asarray(actions, jnp.int32)
        met = actions[0] == actions[1]
        reward = jnp.where(met, self.rewards[state.stage, actions[0]], 0.0).astype(jnp.float32)
        after = LeverState(state.stage + 1, actions, jnp.where(met, actions[0], UNDEFINED))
        return Step(after, reward, met, (after.stage >= self.n_stages) & ~met)

    def behaviour(self, state: LeverState) -> Array:
        """Return the lever of the match, -1 for none."""
        return state.matched

    def all_observations(self) -> Array:
        """Return the observation after every (stage, own last, other last), shape (T, K + 1, K + 1, size).

        A memoryless policy applied to it gives the table that `exact` takes.
        """
        k = self.n_levers + 1
        stages, owns, others = (index.ravel() for index in np.indices((self.n_stages, k, k)))
        return jax.vmap(self._features)(stages, owns, others).reshape(self.n_stages, k, k, -1)

    def exact(self, first: Array, second: Array) -> LeverValue:
        r"""Return J and P(X) of two memoryless policies by dynamic programming; differentiable.

        P_t(k) = sum_{a,b} rho_t(a, b) pi1(k | t, a, b) pi2(k | t, b, a), and rho_{t+1}(a', b') is that
        product for a' != b'; J = sum_t gamma^t w_k P_t(k).

        Args:
            first: pi1, shape (n_stages, K + 1, K + 1, K): probabilities of the levers after (stage, own last,
                other last), K standing for "not chosen yet".
            second: pi2, in the other seat, likewise.
        """
        k = self.n_levers
        start = jnp.zeros((k + 1, k + 1), first.dtype).at[k, k].set(1.0)

        def stage(rho: Array, policies: tuple[Array, Array]) -> tuple[Array, Array]:
            one, other = policies
            joint = jnp.einsum("ab,abi,baj->ij", rho, one, other)
            apart = joint * (1.0 - jnp.eye(k, dtype=joint.dtype))
            return jnp.zeros_like(rho).at[:k, :k].set(apart), jnp.diagonal(joint)

        rest, met = jax.lax.scan(stage, start, (first, second))
        return LeverValue((self.rewards * met).sum(), met.sum(axis=0), rest.sum())

    def _features(self, stage: Array, own: Array, other: Array) -> Array:
        k = self.n_levers + 1
        # The stage past the last one is never acted on; one_hot makes it a row of zeros.
        parts = [jax.nn.one_hot(own, k), jax.nn.one_hot(other, k), jax.nn.one_hot(stage, self.n_stages)]
        return jnp.concatenate(parts).astype(jnp.float32)
