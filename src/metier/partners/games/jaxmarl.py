"""Games of JaxMARL as games of ours: any environment for two with discrete actions, Overcooked v1 and v2."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from metier.core import InputError, positive_int, require

from .game import N_SEATS, UNDEFINED, Step

Events = Callable[[Any, Any, Array], Array]
_LAYOUT_PARTS = ("reset", "step_env", "get_obs", "agents", "action_space")


class JaxMarlState(NamedTuple):
    """The environment's own state, the random bits it has left, steps so far, and its events.

    Attributes:
        inner: The environment's state.
        bits: Key data for the environment's own draws, uint32.
        time: int32, shape ().
        counts: How often each event happened, int32, shape (behaviours,).
    """

    inner: Any
    bits: Array
    time: Array
    counts: Array


@dataclass(frozen=True, slots=True)
class JaxMarlGame:
    """A JaxMARL environment for two agents, with a behaviour made of event counts.

    Every step counts `events`; the behaviour of an episode is the event that happened most often (the first
    of equals), none where nothing happened. Observations are flattened; the shared reward is the mean of the
    agents' rewards, plus `shaping` times the sum of their shaped ones. What the environment draws at random
    comes from a key in the state, so that a step is a function of the state and the actions.

    Args:
        env: The environment; it is compared and hashed by identity.
        behaviours: Names of the events.
        events: (state before, state after, the environment's reward) -> counts, int32, shape (behaviours,).
        horizon: Steps after which an episode is cut off; the environment's own `max_steps` at most.
        shaping: Weight of info["shaped_reward"].
        title: One word for checkpoints and errors.

    Raises:
        InputError: Not two agents, actions that differ or are not discrete, observations of unequal size,
            or a missing method.

    Source: ours. JaxMARL: Rutherford et al., NeurIPS 2024 (Datasets and Benchmarks).
    """

    env: Any
    behaviours: tuple[str, ...]
    events: Events
    horizon: int
    shaping: float = 0.0
    title: str = "jaxmarl"

    def __post_init__(self) -> None:
        missing = [part for part in _LAYOUT_PARTS if not hasattr(self.env, part)]
        if missing:
            raise _refusal("has JaxMARL's methods", "none missing", ", ".join(missing))
        if len(self.env.agents) != N_SEATS:
            raise _refusal("is played by two", "2 agents", f"{len(self.env.agents)}")
        spaces = [getattr(self.env.action_space(agent), "n", None) for agent in self.env.agents]
        if None in spaces or len(set(spaces)) != 1:
            raise _refusal("has the same discrete actions for both", "equal Discrete spaces", repr(spaces))
        sizes = [leaf.size for leaf in jax.tree.leaves(self._first_observations())]
        if len(sizes) != N_SEATS or len(set(sizes)) != 1:
            raise _refusal("shows both agents arrays of one size", "two equal sizes", repr(sizes))
        positive_int("horizon", self.horizon)

    @property
    def name(self) -> str:
        """One word."""
        return self.title

    @property
    def n_actions(self) -> int:
        """The environment's actions."""
        return int(self.env.action_space(self.env.agents[0]).n)

    @property
    def observation_size(self) -> int:
        """Numbers in one agent's observation."""
        return int(jax.tree.leaves(self._first_observations())[0].size)

    def reset(self, key: Array) -> JaxMarlState:
        """Return the environment's start."""
        start, left = jax.random.split(key)
        _, inner = self.env.reset(start)
        zero = jnp.zeros(len(self.behaviours), jnp.int32)
        # Plain arrays, so that every leaf is an array of one dtype from the first step on.
        return JaxMarlState(
            jax.tree.map(jnp.asarray, inner), jax.random.key_data(left), jnp.array(0, jnp.int32), zero
        )

    def observe(self, state: JaxMarlState) -> Array:
        """Return both agents' observations, flattened, shape (2, observation_size)."""
        seen = self.env.get_obs(state.inner)
        return jnp.stack([jnp.ravel(seen[agent]).astype(jnp.float32) for agent in self.env.agents])

    def step(self, state: JaxMarlState, actions: Array) -> Step:
        """Let the environment step, without its automatic reset."""
        key, left = jax.random.split(jax.random.wrap_key_data(state.bits))
        acts = {agent: actions[seat] for seat, agent in enumerate(self.env.agents)}
        _, inner, rewards, dones, info = self.env.step_env(key, state.inner, acts)
        inner = jax.tree.map(lambda new, old: jnp.asarray(new).astype(old.dtype), inner, state.inner)
        paid = jnp.stack([jnp.asarray(rewards[agent], jnp.float32) for agent in self.env.agents]).mean()
        reward = paid + self.shaping * self._shaped(info)
        time = state.time + 1
        happened = jnp.asarray(self.events(state.inner, inner, paid), jnp.int32)
        after = JaxMarlState(inner, jax.random.key_data(left), time, state.counts + happened)
        out_of_time = time >= self.horizon
        return Step(after, reward.astype(jnp.float32), dones["__all__"] & ~out_of_time, out_of_time)

    def behaviour(self, state: JaxMarlState) -> Array:
        """Return the most frequent event, -1 where none happened."""
        most = jnp.argmax(state.counts).astype(jnp.int32)
        return jnp.where(state.counts.any(), most, UNDEFINED)

    def _shaped(self, info: Any) -> Array:
        if not self.shaping:
            return jnp.zeros((), jnp.float32)
        shaped = info["shaped_reward"]
        return jnp.stack([jnp.asarray(shaped[agent], jnp.float32) for agent in self.env.agents]).sum()

    def _first_observations(self) -> Any:
        return jax.eval_shape(lambda key: self.env.reset(key)[0], jax.random.key(0))


def overcooked(
    version: int = 2,
    *,
    layout: str = "cramped_room",
    horizon: int = 400,
    shaping: float = 0.0,
    **options: Any,
) -> JaxMarlGame:
    """Return JaxMARL's Overcooked as a game; the behaviour is the seat that delivered most soups.

    Args:
        version: 1 or 2.
        layout: The layout's name in JaxMARL.
        horizon: Steps per episode.
        shaping: Weight of JaxMARL's shaped rewards (1 in its own baselines at first).
        **options: Passed to the environment.

    Returns:
        The game, with the behaviours "left delivers" (agent_0) and "right delivers" (agent_1).

    Raises:
        MissingExtraError: `jaxmarl` is not installed.
        InputError: An unknown version or layout.
    """
    if version not in (1, 2):
        raise InputError(
            "JaxMARL has two versions of Overcooked",
            expected="1 or 2",
            got=repr(version),
            next_step="Pass 2.",
        )
    require("jaxmarl")
    env = _environment(version, layout, horizon, options)
    return JaxMarlGame(
        env,
        ("agent_0 delivers", "agent_1 delivers"),
        _first_deliveries if version == 1 else _second_deliveries,
        horizon=horizon,
        shaping=shaping,
        title=f"overcooked-v{version}-{layout.replace('_', '-')}",
    )


def _environment(version: int, layout: str, horizon: int, options: dict[str, Any]) -> Any:
    if version == 1:
        from jaxmarl.environments.overcooked import Overcooked, overcooked_layouts

        _known(layout, overcooked_layouts)
        with warnings.catch_warnings():
            # It recommends version 2; who asks for version 1 wants it.
            warnings.simplefilter("ignore", DeprecationWarning)
            return Overcooked(layout=overcooked_layouts[layout], max_steps=horizon, **options)
    from jaxmarl.environments.overcooked_v2 import OvercookedV2
    from jaxmarl.environments.overcooked_v2.layouts import overcooked_v2_layouts

    _known(layout, overcooked_v2_layouts)
    return OvercookedV2(layout=layout, max_steps=horizon, **options)


def _known(layout: str, layouts: Any) -> None:
    if layout not in layouts:
        raise InputError(
            "the layout is one of JaxMARL's",
            expected=" | ".join(map(str, layouts)),
            got=repr(layout),
            next_step="Try layout='cramped_room'.",
        )


def _first_deliveries(before: Any, after: Any, reward: Array) -> Array:
    """Version 1: an agent that held a dish, holds nothing now and faces the goal, when the step was paid."""
    dish, empty = 9, 1
    ahead = after.agent_pos.astype(jnp.int32) + after.agent_dir.astype(jnp.int32)
    faces = (ahead[:, None, :] == after.goal_pos.astype(jnp.int32)[None]).all(-1).any(-1)
    gave = (before.agent_inv == dish) & (after.agent_inv == empty)
    happened: Array = (gave & faces & (reward > 0)).astype(jnp.int32)
    return happened


def _second_deliveries(before: Any, after: Any, reward: Array) -> Array:
    """Version 2: an agent that held a cooked dish on a plate, likewise."""
    goal, plated = 4, 3
    steps = jnp.array([[0, -1], [0, 1], [1, 0], [-1, 0]])[after.agents.dir]
    x, y = after.agents.pos.x + steps[:, 0], after.agents.pos.y + steps[:, 1]
    faces = after.grid[y, x, 0] == goal
    gave = ((before.agents.inventory & plated) == plated) & (after.agents.inventory == 0)
    happened: Array = (gave & faces & (reward > 0)).astype(jnp.int32)
    return happened


def _refusal(rule: str, expected: str, got: str) -> InputError:
    return InputError(
        f"the JaxMARL environment {rule}",
        expected=expected,
        got=got,
        next_step="Pass an environment for two agents, for example jaxmarl.make('overcooked_v2').",
    )
