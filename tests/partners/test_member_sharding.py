"""Members spread over simulated devices learn what they learn on one, and no population size hangs.

Students are spread like members; a generalist is one and stays on one device, whatever partners it has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, sys
import jax, numpy as np
from metier.partners import PPO, Population, dispatch_in_turn, distill, train_generalist
from metier.partners import train_self_play, train_xp_min
dispatch_in_turn()
from metier.partners.games import LeverGame
from metier.partners.training import loop
from metier.partners.training.actors import Actor
game, sizes, way = LeverGame(n_levers=2, n_stages=2), json.loads(sys.argv[1]), sys.argv[2]
ppo = PPO(n_envs=8, n_steps=4, epochs=1, minibatches=2, learning_rate=1e-2)
options = {"ppo": ppo, "hidden": (4,), "reports": 1, "rng": 1}
def train(n):
    if way == "self_play":
        return train_self_play(game, n_members=n, steps=3 * n * 32, **options)
    if way == "xp_min":
        return train_xp(n)
    shape = Actor.for_game(game, hidden=(4,), n_latents=2)
    sources = Population.fresh(game, n_members=n, rng=2, actor=shape)
    taught = {**options, "steps": 3 * 2 * n * 32}
    if way == "distill":
        return distill(sources, game, **{k: v for k, v in taught.items() if k != "hidden"})
    return train_generalist(sources, game, gru_units=3, **taught)
def train_xp(n):
    return train_xp_min(game, n_members=n, mi_weight=0.5, n_latents=2, steps=3 * n * n * 32, **options)
found, place = {}, loop.place
for n in sizes:
    devices = set()
    def spread(state, trainer):
        placed = place(state, trainer)
        for leaf in jax.tree.leaves(placed.params):
            devices.add((len(leaf.sharding.device_set), leaf.sharding.is_fully_replicated))
        return placed
    loop.place = spread
    parted = train(n)
    loop.place = lambda state, trainer: state
    whole = train(n)
    def gap(one, other):
        pairs = zip(*map(jax.tree.leaves, (one.params, other.params)))
        return max(float(np.abs(a - b).max()) for a, b in pairs)
    moved = [float(np.abs(leaf).max()) for leaf in jax.tree.leaves(whole.params)]
    found[n] = {"gap": gap(parted, whole), "again": gap(whole, train(n))}
    found[n] |= {"size": max(moved), "devices": sorted(devices)}
print(json.dumps(found))
"""


def spread(sizes, n_devices, way, *, cheap):
    """What the script finds in a process with so many devices; a hang ends after the time limit."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n_devices}"
    passes = {"JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(cheap))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(sizes), way],
        env={**os.environ, **passes, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.evidence("src/metier/partners/training", "src/metier/partners/games")
@pytest.mark.parametrize(
    ("few", "sizes", "n_devices", "way"),
    [
        ((2, 3), (1, 2, 3, 4, 8), 2, "self_play"),
        ((4,), (4, 8), 4, "self_play"),
        ((2,), (2, 3, 4), 2, "xp_min"),
        ((2,), (1, 2), 2, "distill"),
        ((2,), (1, 2, 3), 2, "generalist"),
    ],
)
def test_members_on_several_devices_should_learn_the_same(amount, few, sizes, n_devices, way):
    """Spread = not spread within 1e-5 after three iterations; the same seed twice gives the same bits."""
    sizes = amount("members", sample=few, whole=sizes)
    found = spread(sizes, n_devices, way, cheap=not amount.whole)
    assert sorted(map(int, found)) == list(sizes)
    for n, one in found.items():
        parted = way != "generalist" and int(n) % n_devices == 0
        assert one["devices"] == ([[n_devices, False]] if parted else [[1, True]])
        assert one["size"] > 0.1
        assert one["gap"] <= (1e-5 if parted else 0.0)
        assert one["again"] == 0.0
