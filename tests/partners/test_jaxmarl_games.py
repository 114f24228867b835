"""The adapter to JaxMARL: on a small environment of the same shape always, on Overcooked where installed."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metier.core import InputError, MissingExtraError
from metier.partners import PPO, ConstantPolicy, UniformPolicy, cross_play
from metier.partners.games import JaxMarlGame, check_game, overcooked
from metier.partners.rollout import play
from metier.partners.training.actors import Actor
from metier.partners.training.loop import training_header
from metier.partners.training.self_play import SelfPlay


class Bell:
    """JaxMARL's interface: both see a drawn number; ringing (action 1) while it is 1 is paid."""

    agents = ("agent_0", "agent_1")

    def __init__(self, n_actions=(2, 2), size=(3, 1)):
        self.n_actions, self.size = n_actions, size

    def action_space(self, agent):
        return SimpleNamespace(n=self.n_actions[self.agents.index(agent)])

    def get_obs(self, state):
        return {agent: jnp.full(self.size, state["lit"]) for agent in self.agents}

    def reset(self, key):
        state = {"lit": jax.random.randint(key, (), 0, 2), "rung": jnp.zeros(2, jnp.int32)}
        return self.get_obs(state), state

    def step_env(self, key, state, actions):
        acts = jnp.stack([actions[agent] for agent in self.agents])
        rung = (acts == 1) & (state["lit"] == 1)
        after = {"lit": jax.random.randint(key, (), 0, 2), "rung": state["rung"] + rung}
        rewards = {agent: rung[k].astype(jnp.float32) for k, agent in enumerate(self.agents)}
        shaped = {agent: jnp.float32(0.5) for agent in self.agents}
        done = after["rung"].sum() >= 3
        dones = {"agent_0": done, "agent_1": done, "__all__": done}
        return self.get_obs(after), after, rewards, dones, {"shaped_reward": shaped}


def rings(before, after, reward):
    return after["rung"] - before["rung"]


def bell(**options):
    return JaxMarlGame(Bell(), ("left rings", "right rings"), rings, **{"horizon": 12, **options})


def test_an_adapted_environment_should_keep_the_contract():
    game = check_game(bell())
    assert (game.n_actions, game.observation_size, game.name) == (2, 3, "jaxmarl")
    assert hash(game) == hash(game)


def test_checkpoints_should_know_the_game_in_another_process():
    """Where the environment lies in memory is no part of the game's description."""
    game = bell()
    assert " at 0x" in repr(game)
    header = training_header(SelfPlay(game, Actor.for_game(game), PPO(), 1), 0, {})
    assert " at 0x" not in header["game"]
    assert header["game"] == training_header(SelfPlay(bell(), Actor.for_game(game), PPO(), 1), 0, {})["game"]


def test_behaviour_should_be_the_most_frequent_event():
    game = bell()
    pairs = cross_play([ConstantPolicy(0), ConstantPolicy(1)], game, episodes=64, names=["still", "ringer"])
    assert pairs.behaviours[1, 0].tolist() == [pairs.successes[1, 0], 0]
    assert pairs.behaviours[0, 1].tolist() == [0, pairs.successes[0, 1]]
    assert pairs.successes[0, 0] == 0
    # Three rings end an episode, each paid 1 to one of two agents.
    assert pairs.seated_returns[1, 0] == pytest.approx(1.5, abs=0.1)


def test_steps_should_be_functions_of_state_and_actions():
    game = bell()
    state = game.reset(jax.random.key(3))
    actions = jnp.array([1, 0])
    one, two = game.step(state, actions), game.step(state, actions)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)
    lit = []
    for _ in range(40):
        state = game.step(state, jnp.array([0, 0])).state
        lit.append(int(state.inner["lit"]))
    assert 8 < sum(lit) < 32  # the environment still draws; a fair coin leaves this range once in 3,000 runs


def test_shaping_should_add_both_agents_shaped_rewards():
    state = bell().reset(jax.random.key(0))
    still = jnp.array([0, 0])
    assert float(bell().step(state, still).reward) == 0.0
    assert float(bell(shaping=0.2).step(state, still).reward) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("env", "match"),
    [
        (object(), "JaxMARL's methods.*got .*step_env"),
        (Bell(n_actions=(2, 3)), "same discrete actions.*got \\[2, 3\\]"),
        (Bell(n_actions=(None, None)), "same discrete actions"),
        (
            SimpleNamespace(
                **{k: getattr(Bell(), k) for k in ("reset", "step_env", "get_obs", "action_space")},
                agents=("a", "b", "c"),
            ),
            "played by two.*got 3",
        ),
    ],
)
def test_unfit_environments_should_be_refused(env, match):
    with pytest.raises(InputError, match=match):
        JaxMarlGame(env, ("x",), rings, horizon=5)


def test_overcooked_should_name_its_extra_or_refuse_unknown_layouts():
    with pytest.raises(InputError, match=r"two versions of Overcooked.*got 3"):
        overcooked(3)
    try:
        import jaxmarl  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r'pip install .*"jaxmarl>='):
            overcooked(2)
    else:
        with pytest.raises(InputError, match=r"layout is one of JaxMARL's.*got 'nowhere'"):
            overcooked(2, layout="nowhere")


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_overcooked_should_play_and_tell_who_delivers(version):
    pytest.importorskip("jaxmarl")
    game = overcooked(version, horizon=20)
    assert game.n_actions == 6
    assert check_game(game, episodes=2) is game
    played = play(UniformPolicy(6), UniformPolicy(6), game, episodes=4, rng=np.random.default_rng(0))
    assert (played.lengths == 20).all()
    state = game.reset(jax.random.key(0))
    ready = state._replace(inner=_soup_before_the_goal(game.env, state.inner, version, seat=1))
    step = game.step(ready, jnp.array([4, 5]))
    assert float(step.reward) == 20.0
    assert int(game.behaviour(step.state)) == 1
    assert int(game.behaviour(game.step(ready, jnp.array([4, 4])).state)) == -1


def _soup_before_the_goal(env, inner, version, seat):
    """Put an agent with a soup before the goal of the cramped room (its lower wall), looking down."""
    if version == 1:
        x, y = np.asarray(inner.goal_pos[0])
        return inner.replace(
            agent_pos=inner.agent_pos.at[seat].set(jnp.array([x, y - 1], inner.agent_pos.dtype)),
            agent_dir=inner.agent_dir.at[seat].set(jnp.array([0, 1], inner.agent_dir.dtype)),
            agent_dir_idx=inner.agent_dir_idx.at[seat].set(1),
            agent_inv=inner.agent_inv.at[seat].set(9),
        )
    y, x = np.argwhere(np.asarray(inner.grid[..., 0]) == 4)[0]
    agents = inner.agents
    return inner.replace(
        agents=agents.replace(
            pos=agents.pos.replace(x=agents.pos.x.at[seat].set(x), y=agents.pos.y.at[seat].set(y - 1)),
            dir=agents.dir.at[seat].set(1),
            inventory=agents.inventory.at[seat].set(inner.recipe | 3),
        )
    )
