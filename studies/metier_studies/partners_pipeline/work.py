"""The study's tasks: chains of trainings that need nothing of each other, then what is measured of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .settings import BASELINE, SOURCES, PartnersConfig


@dataclass(frozen=True, slots=True)
class Task:
    """One task of a worker.

    Args:
        config: the study's configuration.
        folder: where populations are kept.
        run_seed: the run's seed.
        seed: the pipeline's number.
        name: an arm, or "oracle".
    """

    config: PartnersConfig
    folder: Path
    run_seed: int
    seed: int
    name: str


def roots(config: PartnersConfig) -> list[str]:
    """Return the arms that start a chain, the longest chain first."""
    heads = [arm for arm in config.arms if SOURCES[arm] is None]
    return sorted(heads, key=lambda arm: (arm == BASELINE, -len(chain(config, arm))))


def chain(config: PartnersConfig, root: str) -> list[str]:
    """Return an arm and those that distil it."""
    return [arm for arm in config.arms if root in (arm, SOURCES[arm])]


def train_chain(task: Task) -> dict[str, Any]:
    """Train an arm, those that distil it, and a generalist with each; return their learning curves.

    The chain of self-play trains the oracle generalist as well, where the game has no scripted one.
    """
    from metier.partners import dispatch_in_turn

    from .pipeline import ORACLE, Pipeline

    dispatch_in_turn()
    pipeline = Pipeline(task.config, task.folder, task.run_seed, task.seed)
    trained: dict[str, Any] = {}
    for arm in chain(task.config, task.name):
        # The mates are trained in the order in which one training goes on from the other.
        pipeline.mates(arm)
        trained[arm] = _curves(pipeline.population(arm))
    names = chain(task.config, task.name)
    if task.name == BASELINE and task.config.game == "cooking":
        names = [ORACLE, *names]
    for name in names:
        trained[f"generalist-{name}"] = _curves(pipeline.generalist(name))
    return trained


def _curves(trained: Any) -> list[dict[str, Any]]:
    kept = ("steps", "returns", "success", "cross_play", "partner_return", "partner_success")
    return [{name: row[name] for name in kept if name in row} for row in trained.progress.rows]


def measure(task: Task) -> dict[str, Any]:
    """Measure one arm of a pipeline, or its oracle."""
    from metier.partners import dispatch_in_turn

    from .facts import arm_facts, oracle_facts
    from .pipeline import ORACLE, Pipeline

    dispatch_in_turn()
    pipeline = Pipeline(task.config, task.folder, task.run_seed, task.seed)
    return oracle_facts(pipeline) if task.name == ORACLE else arm_facts(pipeline, task.name)


def film(task: Task) -> dict[str, Any]:
    """Return an animated episode of an arm's generalist with the scripted cook it does best with."""
    import base64

    from metier import partners

    from .pipeline import Pipeline

    partners.dispatch_in_turn()
    pipeline = Pipeline(task.config, task.folder, task.run_seed, task.seed)
    generalist, cooks = pipeline.generalist(task.name), pipeline.strangers
    met = partners.evaluate(generalist, cooks, pipeline.game, episodes=24, rng=pipeline.seed_of("film"))
    best = int(met.rates.rates.argmax())
    states = partners.record_episode(
        generalist, cooks[best], pipeline.game, rng=pipeline.seed_of("film", "episode")
    )
    path = partners.animate(states, pipeline.game, task.folder / f"seed-{task.seed}" / "episode.gif")
    names = pipeline.game.behaviours
    delivered = int(pipeline.game.behaviour(states[-1]))
    return {
        "gif": base64.b64encode(path.read_bytes()).decode(),
        "cook": names[best],
        "delivered": names[delivered] if delivered >= 0 else None,
        "steps": len(states) - 1,
    }
