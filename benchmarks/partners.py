"""Partners: how many environment steps per CPU-second, beside JaxMARL's and Python's Overcooked.

python benchmarks/partners.py environment [--rival PATH]    # cooking alone, no policy but random draws
python benchmarks/partners.py ppo [--rival PATH]            # self-play by PPO: one iteration of 4 teams
python benchmarks/partners.py xp_min [--rival PATH]         # XP-min with MI: one iteration of 4 members
python benchmarks/partners.py self_play                     # 4 teams, 5M steps each: who has learned to cook?
python benchmarks/partners.py pipeline [--share S]          # one seed's populations, generalist, evaluation

PATH holds the package of a Python Overcooked environment (overcooked_ai_py, or overcooked) and whatever it
needs; without it, its line says "not measured". JaxMARL is measured where it is installed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

# One thread, so that steps per CPU-second mean one core.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import jax
import jax.numpy as jnp

from metier.partners import PPO, dispatch_in_turn, evaluate, train_self_play
from metier.partners.games import Cooking, overcooked, reset_pool, seated
from metier.partners.training.actors import Actor
from metier.partners.training.self_play import SelfPlay
from metier.partners.training.xp_trainer import XPMin
from metier_studies.partners_pipeline.pipeline import Pipeline
from metier_studies.partners_pipeline.settings import PartnersConfig
from record import in_turn, table, timed, write

GOALS = {"environment": 400_000, "ppo": 55_000, "xp_min": 30_000}
MEMBERS, N_LATENTS = 4, 8
BATCH, STEPS, SCANS = 256, 200, 20


def stepper(game: Any, *, batch: int, steps: int) -> Callable[[], None]:
    """Random play with observations and fresh starts, all in one jit: `steps` steps of `batch` games."""
    key = jax.random.key(0)
    pool = reset_pool(game, key, 1024)

    def one(carry: Any, key: Any) -> tuple[Any, None]:
        states, total = carry
        act_key, start_key = jax.random.split(key)
        actions = jax.random.randint(act_key, (batch, 2), 0, game.n_actions)
        step = jax.vmap(game.step)(states, actions)
        starts = jax.random.randint(start_key, (batch,), 0, 1024)
        done = step.terminated | step.truncated

        def keep(old: Any, new: Any) -> Any:
            return jnp.where(done.reshape((batch,) + (1,) * (new.ndim - 1)), old[starts], new)

        states = jax.tree.map(keep, pool, step.state)
        seen = seated(jax.vmap(game.observe)(states))
        # Everything that is computed is summed, so that nothing can be left out.
        return (states, total + seen.sum() + step.reward.sum()), None

    @jax.jit
    def run(states: Any, key: Any) -> tuple[Any, Any]:
        carry, _ = jax.lax.scan(one, (states, jnp.float32(0)), jax.random.split(key, steps))
        return carry

    state = [jax.tree.map(lambda leaf: leaf[:batch], pool)]

    def call() -> None:
        for scan in range(SCANS):
            state[0], total = run(state[0], jax.random.key(scan))
        jax.block_until_ready(total)

    return call


def python_overcooked(path: str, steps: int) -> tuple[str, Callable[[], None]]:
    """The Python environment found under `path`: transitions and lossless encodings, one game at a time."""
    sys.path.insert(0, path)
    for package in ("overcooked_ai_py.mdp", "overcooked.mdp"):
        try:
            mdp_module = importlib.import_module(f"{package}.overcooked_mdp")
            actions = importlib.import_module(f"{package}.actions").Action.ALL_ACTIONS
        except ModuleNotFoundError as error:
            if not package.startswith(error.name or ""):
                raise SystemExit(
                    f"{path} has {package}, which needs {error.name}: install that beside it"
                ) from None
            continue
        mdp = mdp_module.OvercookedGridworld.from_layout_name("cramped_room")
        return package.split(".")[0], partial(python_steps, mdp, actions, steps)
    raise SystemExit(f"{path} holds neither overcooked_ai_py nor overcooked")


def python_steps(mdp: Any, actions: Any, steps: int) -> None:
    """Step one Python environment, observations included."""
    draws, state = random.Random(0), mdp.get_standard_start_state()
    for _ in range(steps):
        state, _ = mdp.get_state_transition(state, (draws.choice(actions), draws.choice(actions)))
        mdp.lossless_state_encoding(state)


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """Steps per CPU-second of one core, all in turn."""
    games: dict[str, Any] = {"metier": Cooking(), "metier, 5 x 5 kitchen": Cooking(layout="small")}
    missing = []
    try:
        for version in (2, 1):
            games[f"JaxMARL Overcooked v{version}"] = overcooked(version)
    except ImportError as error:
        missing.append(f"JaxMARL: {error}")
    per_call = dict.fromkeys(games, BATCH * STEPS * SCANS)
    runs = {name: stepper(game, batch=BATCH, steps=STEPS) for name, game in games.items()}
    if options.rival:
        name, call = python_overcooked(options.rival, 2_000)
        runs[f"Python {name}"], per_call[f"Python {name}"] = call, 2_000
    else:
        missing.append("the Python environment: no --rival")
    times = in_turn(runs, options.repeats)
    rates = {name: per_call[name] / times[name]["cpu_min"] for name in runs}
    rows = [("environment", "observation", "steps per CPU-second", "times slower")]
    for name, rate in rates.items():
        size = str(games[name].observation_size) if name in games else "lossless"
        rows.append((name, size, f"{rate:,.0f}", f"{rates['metier'] / rate:.1f}"))
    print(table(rows))
    for line in missing:
        print("not measured:", line)
    judge("environment", rates["metier"])
    return {"batch": BATCH, "steps_per_cpu_second": rates, "times": times, "not_measured": missing}


def judge(mode: str, rate: float) -> None:
    reached = "reached" if rate >= GOALS[mode] else "missed"
    print(f"goal {GOALS[mode]:,} steps per CPU-second: {reached}")


def trainer_of(mode: str, game: Any, members: int) -> Any:
    """The trainer with the settings that people get by default."""
    if mode == "ppo":
        return SelfPlay(game, Actor.for_game(game), PPO(), members)
    actor = Actor.for_game(game, n_latents=N_LATENTS)
    return XPMin(game, actor, PPO(), members, mi_weight=0.5, n_pairs=members * (members - 1) // 2)


def iteration(trainer: Any) -> tuple[Callable[[], None], float]:
    """One iteration after the other, and the CPU seconds of the first, which compiles."""
    pool = jax.jit(lambda key: reset_pool(trainer.game, key))(jax.random.key(1))
    step = jax.jit(trainer.iterate)
    kept = [jax.jit(trainer.init)(jax.random.key(0))]

    def call() -> None:
        kept[0], _ = jax.block_until_ready(step(kept[0], pool))

    return call, timed(call)[1]


def training(options: argparse.Namespace) -> dict[str, Any]:
    """Steps of learning per CPU-second of a core: rollouts, advantages and all epochs, compilation apart."""
    dispatch_in_turn()
    trainers = {"metier": trainer_of(options.mode, Cooking(), MEMBERS)}
    if options.mode == "ppo":
        trainers["metier, 1 team"] = trainer_of("ppo", Cooking(), 1)
        trainers["metier, 8 teams"] = trainer_of("ppo", Cooking(), 8)
    missing = []
    try:
        name = "our training on JaxMARL's Overcooked v1"
        trainers[name] = trainer_of(options.mode, overcooked(1), MEMBERS)
    except ImportError as error:
        missing.append(f"JaxMARL: {error}")
    runs, compile_cpu = {}, {}
    for name, trainer in trainers.items():
        runs[name], compile_cpu[name] = iteration(trainer)
    per_call = {name: trainer.steps_per_iteration for name, trainer in trainers.items()}
    if options.rival:
        name, call = python_overcooked(options.rival, 2_000)
        name = f"Python {name}, environment alone"
        runs[name], per_call[name] = call, 2_000
    else:
        missing.append("the Python environment: no --rival")
    times = in_turn(runs, options.repeats)
    rates = {name: per_call[name] / times[name]["cpu_median"] for name in runs}
    rows = [("training", "steps per CPU-second (median)", "CPU seconds to compile")]
    for name, rate in rates.items():
        rows.append((name, f"{rate:,.0f}", f"{compile_cpu[name]:.0f}" if name in compile_cpu else ""))
    print(table(rows))
    for line in missing:
        print("not measured:", line)
    judge(options.mode, rates["metier"])
    return {
        "members": MEMBERS,
        "steps_per_iteration": per_call,
        "steps_per_cpu_second": rates,
        "compile_cpu_seconds": compile_cpu,
        "times": times,
        "not_measured": missing,
    }


def self_play(options: argparse.Namespace) -> dict[str, Any]:
    """Statement 21 of the method's: at least 90 % success within 5M steps per team, in 3 of 4 teams."""
    reports: list[dict[str, Any]] = []

    def show(row: Any) -> None:
        reports.append({name: row[name] for name in ("steps", "returns", "success")})
        print(f"{row['steps'] // MEMBERS:>10,} steps per team: success", row["success"], flush=True)

    wall, cpu, population = timed(
        lambda: train_self_play(
            Cooking(), n_members=MEMBERS, steps=MEMBERS * 5_000_000, rng=options.seed, on_progress=show
        )
    )
    last = population.progress.rows[-1]
    learned = sum(share >= 0.9 for share in last["success"])
    print(f"{learned} of {MEMBERS} teams succeed in at least 90 % of their episodes")
    return {
        "steps_per_team": last["steps"] // MEMBERS,
        "success": last["success"],
        "returns": last["returns"],
        "learned": learned,
        "reports": reports,
        "wall": wall,
        "cpu": cpu,
    }


def pipeline(options: argparse.Namespace) -> dict[str, Any]:
    """The standard study's chain of one seed: XP-min, SpecTRL DAgger, a GRU-64 generalist, its evaluation."""
    dispatch_in_turn()
    config = PartnersConfig()
    names = ("generation_steps", "distill_steps", "generalist_steps")
    steps = {name: max(1, round(options.share * getattr(config, name))) for name in names}
    config = replace(config, **steps)
    stages: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        chain = Pipeline(config, Path(folder), options.seed, 0)
        work: dict[str, Callable[[], Any]] = {
            "XP-min": lambda: chain.population("xp-min"),
            "SpecTRL DAgger": lambda: chain.population("xp-min+dagger"),
            "generalist": lambda: chain.generalist("xp-min+dagger"),
            "evaluation": lambda: evaluate(
                chain.generalist("xp-min+dagger"),
                chain.strangers,
                chain.game,
                episodes=config.episodes,
                names=chain.game.behaviours,
            ),
        }
        for name, stage in work.items():
            wall, cpu, last = timed(stage)
            stages[name] = {"wall": wall, "cpu": cpu}
            print(f"{name:>15}: {wall:7.0f} s wall, {cpu:7.0f} s CPU", flush=True)
    whole = {kind: sum(stage[kind] for stage in stages.values()) for kind in ("wall", "cpu")}
    print(f"{'whole':>15}: {whole['wall']:7.0f} s wall, {whole['cpu']:7.0f} s CPU; {last.summary()}")
    return {
        "members": config.n_members,
        "steps": steps,
        "stages": stages,
        "minutes": whole["wall"] / 60,
        "cpu_minutes": whole["cpu"] / 60,
        "success": last.rates.rates.tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = {
        "environment": environment,
        "ppo": training,
        "xp_min": training,
        "self_play": self_play,
        "pipeline": pipeline,
    }
    parser.add_argument("mode", choices=modes)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="of the steps of the pipeline")
    parser.add_argument("--rival", help="folder with a Python Overcooked package")
    options = parser.parse_args()
    write(f"partners-{options.mode}", modes[options.mode](options), seed=options.seed)


if __name__ == "__main__":
    main()
