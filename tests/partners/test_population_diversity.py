"""TrajeDi and MEP: divergence and mean entropy against enumeration, in value and gradient; members part."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metier.core import InputError
from metier.partners import PPO, train_mep, train_trajedi
from metier.partners.games import LeverGame, reset_pool
from metier.partners.training.actors import Actor, log_prob
from metier.partners.training.diversity import cross_log_probs, cross_logits, divergences, mean_policy_bonus
from metier.partners.training.mep import MaximumEntropyPopulation, play_anew
from metier.partners.training.ppo import normalized, policy_loss
from metier.partners.training.self_play import replay, self_play_batch
from metier.partners.training.trajedi import TrajectoryDiversity, together, together_loss

GAME = LeverGame(n_levers=2, n_stages=2)
ACTOR = Actor.for_game(GAME, hidden=(6,))
LARGE = PPO(n_envs=20_000, n_steps=2, minibatches=1, entropy_weight=0.0)


def members(n, game=GAME, actor=ACTOR):
    params = jax.jit(jax.vmap(actor.init))(jax.random.split(jax.random.key(3), n))
    return jax.tree.map(lambda leaf: 3.0 * leaf, params) | {
        "head": {
            "w": 60.0 * params["head"]["w"],
            "b": 0.5 * jax.random.normal(jax.random.key(4), (n, game.n_levers)),
        }
    }


def episodes(game):
    """All episodes of the lever game, each a list of joint choices."""
    pairs = list(itertools.product(range(game.n_levers), repeat=2))
    going = [[]]
    for stage in range(game.n_stages):
        grown = [[*path, pair] for path in going for pair in pairs]
        last = stage == game.n_stages - 1
        yield from (path for path in grown if last or path[-1][0] == path[-1][1])
        going = [path for path in grown if path[-1][0] != path[-1][1]]


def table(game, actor, params):
    """log pi(k | t, own last, other last) of one member in both seats, shape (2, T, K + 1, K + 1, K)."""
    seen = game.all_observations()
    seats = [
        actor.network.step(
            params, actor.inputs(seen, jnp.array(s), jnp.array(0)), jnp.zeros((*seen.shape[:-1], 0))
        )
        for s in (0, 1)
    ]
    return jnp.stack([jax.nn.log_softmax(logits) for logits, _ in seats])


def slow_divergence(game, params, n, gamma):
    """The trajectory JSD by its definition: a sum over episodes, steps and members, one number at a time."""
    tables = [table(game, ACTOR, jax.tree.map(lambda leaf, k=k: leaf[k], params)) for k in range(n)]
    total = 0.0
    for path in episodes(game):
        logs = []
        for one in tables:
            last, steps = (game.n_levers, game.n_levers), []
            for t, (a, b) in enumerate(path):
                steps.append(one[0, t, last[0], last[1], a] + one[1, t, last[1], last[0], b])
                last = (a, b)
            logs.append(steps)
        length = len(path)
        for i in range(n):
            f = 0.0
            for t in range(length):
                reached = [sum(gamma ** abs(t - s) * logs[j][s] for s in range(length)) for j in range(n)]
                f += jnp.log(jnp.exp(reached[i]) / (sum(jnp.exp(r) for r in reached) / n)) / length
            total += jnp.exp(sum(logs[i])) * f / n
    return total


def enumerated(game, n):
    """Observations, actions, steps that are played, of all episodes: (steps, episodes, members, ...)."""
    paths = list(episodes(game))
    k, steps = game.n_levers, game.n_stages
    seen = np.zeros((steps, len(paths), 2, game.observation_size), np.float32)
    actions = np.zeros((steps, len(paths), 2), np.int32)
    valid = np.zeros((steps, len(paths)), bool)
    every = np.asarray(game.all_observations())
    for e, path in enumerate(paths):
        last = (k, k)
        for t, (a, b) in enumerate(path):
            seen[t, e] = every[t, last[0], last[1]], every[t, last[1], last[0]]
            actions[t, e], valid[t, e] = (a, b), True
            last = (a, b)
    tiled = [jnp.asarray(np.repeat(leaf[:, :, None], n, axis=2)) for leaf in (seen, actions)]
    return *tiled, jnp.asarray(np.repeat(valid[None], n, axis=0))


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_trajectory_divergence_should_equal_enumeration_in_value_and_gradient(gamma):
    """TrajeDi's JSD in the lever game, two members: its value, and score part plus f's own gradient."""
    n, params = 2, members(2)
    seen, actions, valid = enumerated(GAME, n)

    @jax.jit
    def both(params):
        def estimate(params):
            logits = cross_logits(ACTOR, params, seen, jnp.zeros(actions.shape[:-1], bool))
            logs = jnp.moveaxis(log_prob(logits, jnp.broadcast_to(actions, logits.shape[:-1])), 3, 0).sum(-1)
            f = divergences(logs, valid, gamma)
            own = jnp.where(valid, jnp.moveaxis(jnp.diagonal(logs), -1, 0), 0.0).sum(axis=1)
            p = jax.lax.stop_gradient(jnp.exp(own))
            score = (p * own * jax.lax.stop_gradient(f)).sum() / n
            return score + (p * f).sum() / n, (p * f).sum() / n

        gradient, value = jax.grad(estimate, has_aux=True)(params)
        return value, gradient, *jax.value_and_grad(lambda q: slow_divergence(GAME, q, n, gamma))(params)

    value, gradient, exact, slope = both(params)
    assert float(exact) > 0.02
    assert float(value) == pytest.approx(float(exact), rel=1e-5)
    for ours, true in zip(jax.tree.leaves(gradient), jax.tree.leaves(slope), strict=True):
        np.testing.assert_allclose(ours, true, atol=2e-6, rtol=1e-3)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope)) > 1e-2


@pytest.mark.slow
def test_trajedi_learning_should_follow_the_exact_gradient():
    """The trainer's first step, task aside, goes up n JSD: cosine at least .99, length within 5 %."""
    trainer = TrajectoryDiversity(GAME, ACTOR, LARGE, 2, 1.0, 0.5)
    params = members(2)

    @jax.jit
    def both(key):
        state = trainer.init(key)._replace(params=params)
        state, chunk, _ = play_anew(trainer, state, reset_pool(GAME, key, 4))
        batch, scale, told = together(trainer, params, chunk, jnp.zeros(chunk.rewards.shape))
        gradient = jax.grad(lambda p: together_loss(trainer, p, batch, scale)[0])(params)
        # PPO's means are over steps and seats of all episodes, in units of the advantages' spread.
        unit = scale * told.size / chunk.starts.sum() * chunk.starts[0].sum() / chunk.seats.actions[0].size
        exact = jax.grad(lambda p: 2.0 * slow_divergence(GAME, p, 2, 0.5))(params)
        return gradient, exact, unit, told.mean(), slow_divergence(GAME, params, 2, 0.5)

    gradient, exact, unit, sampled, value = both(jax.random.key(1))
    ours = -np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)]) / float(unit)
    true = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(exact)])
    assert ours @ true / np.linalg.norm(ours) / np.linalg.norm(true) >= 0.99
    assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(true), rel=0.05)
    assert float(sampled) == pytest.approx(float(value), rel=0.05)


def test_mean_policy_bonus_should_average_to_the_entropy_of_the_mean_policy():
    """MEP, exactly: at every observation of the lever game, for three members, in value."""
    n, params = 3, members(3)
    tables = jax.jit(jax.vmap(lambda one: table(GAME, ACTOR, one)))(params)
    p = np.exp(np.asarray(tables, float))
    mean = p.mean(axis=0)
    entropy = -(mean * np.log(mean)).sum(axis=-1)
    # Every lever at every observation, by either seat: (members i, members j, one step, cells, 2).
    seen = GAME.all_observations().reshape(-1, GAME.observation_size)
    total = np.zeros((2, len(seen)))

    @jax.jit
    def bonuses(lever):
        observations = jnp.broadcast_to(
            seen[None, :, None, None], (1, len(seen), n, 2, GAME.observation_size)
        )
        logits = cross_logits(ACTOR, params, observations, jnp.ones((1, len(seen), n), bool))
        logs = jnp.moveaxis(log_prob(logits, jnp.full(logits.shape[:-1], lever)), 3, 0)
        return [mean_policy_bonus(jnp.repeat(logs[..., seat : seat + 1], 2, axis=-1)) for seat in (0, 1)]

    for lever in range(GAME.n_levers):
        for seat, bonus in enumerate(bonuses(lever)):
            mine = p[:, seat, ..., lever].reshape(n, -1)
            total[seat] += (mine * np.asarray(bonus, float)[:, 0]).mean(axis=0)
    np.testing.assert_allclose(total, entropy.reshape(2, -1), rtol=1e-5)


@pytest.mark.slow
def test_mep_learning_should_follow_the_gradient_of_the_mean_entropy():
    """One stage, no task: each member's first step goes up H(mean policy), cosine at least .99."""
    game = LeverGame(n_levers=3, n_stages=1)
    actor = Actor.for_game(game, hidden=(6,))
    trainer = MaximumEntropyPopulation(game, actor, LARGE, 2, 1.0)
    params = members(2, game, actor)

    @jax.jit
    def both(key):
        state = trainer.init(key)._replace(params=params)
        _, chunk, _ = play_anew(trainer, state, reset_pool(game, key, 4))
        bonus = mean_policy_bonus(cross_log_probs(actor, params, chunk))

        def member(params, chunk, gain):
            batch = self_play_batch(chunk, normalized(gain))
            return jax.grad(lambda p: policy_loss(replay(actor, p, batch)[1], batch[0][-1], 0.3))(params)

        def entropy(params):
            first = jnp.exp(jax.vmap(lambda p: table(game, actor, p))(params))[:, :, 0, 3, 3].mean(axis=0)
            return -(first * jnp.log(first)).sum()

        return (
            jax.vmap(member)(params, chunk, bonus),
            jax.grad(entropy)(params),
            bonus.mean(),
            entropy(params) / 2,
        )

    gradient, exact, sampled, value = both(jax.random.key(0))
    for k in (0, 1):
        ours, true = (
            np.concatenate([np.ravel(leaf[k]) for leaf in jax.tree.leaves(tree)])
            for tree in (gradient, exact)
        )
        assert -(ours @ true) / np.linalg.norm(ours) / np.linalg.norm(true) >= 0.99
    # 40,000 bonuses of standard deviation below 1: 4 standard errors.
    assert float(sampled) == pytest.approx(float(value), abs=0.02)


@pytest.mark.slow
def test_members_should_part_on_two_levers():
    """Self-play alone leaves two teams on the same lever in half of all seeds."""
    ppo = PPO(n_envs=64, n_steps=2, learning_rate=1e-2, minibatches=1, entropy_weight=0.0)
    game = LeverGame(n_levers=2, n_stages=1)
    settings = {"n_members": 2, "steps": 64 * 2 * 2 * 60, "ppo": ppo, "hidden": (8,), "reports": 1}
    population = train_trajedi(game=game, diversity_weight=5.0, **settings)
    row = population.progress.rows[-1]
    assert min(row["success"]) > 0.9
    assert row["cross_play"][0][1] < 0.2


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: train_trajedi(GAME, n_members=1, steps=9), "n_members is a whole number"),
        (lambda: train_trajedi(GAME, n_members=2, steps=9, kernel_gamma=1.5), "kernel_gamma is at most 1"),
        (lambda: train_trajedi(GAME, n_members=2, steps=9, ppo=PPO(n_steps=1)), "game.s horizon, 2"),
        (lambda: train_mep(GAME, n_members=2, steps=9, ppo=PPO(n_steps=1)), "at least the game's horizon"),
        (lambda: train_mep(GAME, n_members=2, steps=9, population_entropy_weight=-1.0), "has no negative"),
    ],
)
def test_bad_settings_of_diverse_populations_should_be_refused(call, match):
    with pytest.raises(InputError, match=match):
        call()
