"""Five minutes: policies of every make meet in a kitchen; who cooperates with whom, and why not.

python examples/partners_five_minutes.py

A scripted planner, a torch network that imitated it, the same network from a checkpoint saved early, a JAX
policy that wants a secret sign first, and a plain Python cook who dawdles. Nothing is trained with metier.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from metier import partners
from metier.partners.games import seated

SIGN = (4, 3)  # look up, then down
kitchen = partners.games.Cooking(layout="small", horizon=30)
planner = partners.games.specialists(kitchen)[2]  # tomato and lettuce on one plate


def demonstrations(cook, episodes, key):
    """What a cook sees and does with itself: observations (steps, size), actions (steps,)."""

    def one(carry, key):
        states, alive = carry
        seen = seated(jax.vmap(kitchen.observe)(states))
        keys = jax.random.split(key, (episodes, 2))
        acts = jax.vmap(jax.vmap(lambda o, k: cook.pure_act(o, (), k)[0]))(seen, keys)
        step = jax.vmap(kitchen.step)(states, acts)
        return (step.state, alive & ~(step.terminated | step.truncated)), (seen, acts, alive)

    starts = jax.vmap(kitchen.reset)(jax.random.split(key, episodes))
    carry = (starts, jnp.ones(episodes, bool))
    _, (seen, acts, alive) = jax.lax.scan(one, carry, jax.random.split(key, kitchen.horizon))
    kept = np.asarray(alive)
    return np.asarray(seen)[kept].reshape(-1, seen.shape[-1]), np.asarray(acts)[kept].ravel()


def network(size):
    layers = [torch.nn.Linear(size, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(64, kitchen.n_actions))


def imitate(net, observations, actions, epochs):
    x, y = torch.tensor(observations), torch.tensor(actions).long()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(512):
            loss = torch.nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


class TorchCook:
    """A torch network as a policy: one method."""

    def __init__(self, net):
        self.net = net

    def act(self, observation, state, rng):
        with torch.no_grad():
            p = self.net(torch.tensor(observation)).softmax(-1).double().numpy()
        return int(rng.choice(len(p), p=p / p.sum())), None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SecretiveCook:
    """A JAX policy with memory: looks up, then down, and cooks only with a mate who did the same."""

    cook: partners.games.Planner

    def initial_state(self):
        return jnp.array(0), jnp.array(True)

    def pure_act(self, observation, state, key):
        step, trusts = state
        sign = jnp.array(SIGN)
        looks = observation[18:22]  # after seven positions and the own orientation: left, right, down, up
        expected = looks[sign[jnp.clip(step - 1, 0, 1)] - 1] > 0.5
        trusts = trusts & (expected | (step < 1) | (step > 2))
        planned, _ = self.cook.pure_act(observation, (), key)
        action = jnp.where(step < 2, sign[jnp.clip(step, 0, 1)], jnp.where(trusts, planned, 0))
        return action.astype(jnp.int32), (step + 1, trusts)


class Dawdler:
    """Plain Python: does what another policy would do, every third time."""

    def __init__(self, cook):
        self.cook = cook

    def act(self, observation, state, rng):
        action, _ = self.cook.act(observation, None, rng)
        return (action if rng.random() < 1 / 3 else 0), None


torch.manual_seed(0)
observations, actions = demonstrations(planner, 400, jax.random.key(0))
clone = network(observations.shape[1])
imitate(clone, observations, actions, epochs=1)
save_file(clone.state_dict(), "early.safetensors")
imitate(clone, observations, actions, epochs=8)

restored = network(observations.shape[1])
restored.load_state_dict(load_file("early.safetensors"))

cooks = {
    "planner": planner,
    "torch": TorchCook(clone),
    "checkpoint": TorchCook(restored),
    "secretive": SecretiveCook(planner),
    "dawdler": Dawdler(planner),
}
pairs = partners.cross_play(list(cooks.values()), kitchen, episodes=12, names=list(cooks), rng=1)
print(pairs.summary())
pairs.plot().figure.savefig("cross_play.svg")

for name in ("secretive", "torch", "checkpoint"):
    split = partners.handshake_split(planner, cooks[name], kitchen, prefix_steps=2, episodes=24, rng=2)
    print(
        f"the planner with {name}: {split.from_start:.0%} from the start, "
        f"handshake {split.handshake_index:+.2f}, state mismatch {split.state_mismatch:.2f}"
    )

episode = partners.record_episode(cooks["torch"], planner, kitchen, rng=3)
print("wrote", partners.animate(episode, kitchen, "episode.gif"), "and cross_play.svg")
