"""The loop of every trainer: iterate, report, keep a checkpoint, go on from one, stop on Ctrl-C."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from metier.core import InputError, derive_seed, positive_int
from metier.partners.games.game import Game, reset_pool

from .actors import Actor
from .checkpoints import check_header, load_header, load_tree, save_tree
from .guard import dispatch_in_turn
from .population import Population
from .ppo import PPO
from .progress import Progress, report

FILE = "training.safetensors"
OnProgress = Callable[[Mapping[str, Any]], None]


class Trainer(Protocol):
    """What a method brings to the loop: a frozen dataclass, so that it can be a static argument of `jit`.

    The state is a pytree of arrays (random keys as raw `jax.random.key_data`), with a field `params`: the
    stacked parameters of the members.
    """

    @property
    def game(self) -> Game: ...  # noqa: D102
    @property
    def actor(self) -> Actor: ...  # noqa: D102
    @property
    def ppo(self) -> PPO: ...  # noqa: D102
    @property
    def n_members(self) -> int: ...  # noqa: D102
    @property
    def steps_per_iteration(self) -> int:
        """Environment steps of one iteration, all members and pairs together."""

    def init(self, key: Array) -> Any:
        """Return the state before training."""

    def iterate(self, state: Any, pool: Any) -> tuple[Any, dict[str, Array]]:
        """Return (state after one iteration, scalars to report); runs under one `jit`."""

    # A trainer whose equality leaves out frozen partners also has with_frozen(state): the state with them.
    # One whose iterations can go wrong has checked(scalars): those to report, or an InputError.


@dataclass(frozen=True, slots=True)
class Trained:
    """What the loop returns.

    Attributes:
        population: The members at the end.
        snapshots: Their parameters at the fractions of training that were asked for, with the steps.
    """

    population: Population
    snapshots: tuple[tuple[int, Any], ...]


def train(
    trainer: Any,
    *,
    steps: int,
    rng: int,
    folder: str | Path | None = None,
    on_progress: OnProgress | None = None,
    reports: int = 10,
    report_episodes: int = 32,
    snapshots: tuple[float, ...] = (),
    settings: Mapping[str, Any] | None = None,
) -> Trained:
    """Run a trainer for `steps` environment steps.

    Args:
        trainer: See `Trainer`; hashable, because its `iterate` is compiled once per trainer.
        steps: Environment steps in all; rounded up to whole iterations.
        rng: Seed.
        folder: Where a checkpoint is kept, and looked for: a training that was interrupted goes on from there
            and ends with the same bits. None keeps none.
        on_progress: Called with every row of `Progress`.
        reports: How many reports are spread over the training.
        report_episodes: Episodes per ordered pair of members in each report.
        snapshots: Fractions of the training after which parameters are kept.
        settings: What else must agree for a checkpoint to fit, as JSON takes it.

    Returns:
        The population, its progress, and the snapshots.

    Raises:
        InputError: A checkpoint in the folder is damaged or belongs to another training.
        KeyboardInterrupt: On Ctrl-C, after the checkpoint is written.
    """
    file = _checkpoint_file(folder)
    if on_progress is not None and not callable(on_progress):
        raise InputError(
            "on_progress is called with every report",
            expected="a function of one dict, or None",
            got=repr(on_progress),
            next_step="Pass for example on_progress=print.",
        )
    dispatch_in_turn()
    n_iterations = math.ceil(positive_int("steps", steps) / trainer.steps_per_iteration)
    marks = {max(1, round(fraction * n_iterations)): k for k, fraction in enumerate(snapshots)}
    every = max(1, n_iterations // positive_int("reports", reports))
    keys = [
        jax.random.key(derive_seed(rng, "partners", label) % 2**32) for label in ("init", "pool", "report")
    ]
    header = training_header(trainer, rng, {**(settings or {}), **({"steps": steps} if snapshots else {})})

    def start() -> _Now:
        return _start(trainer, keys[0], len(snapshots))

    now = _resume(file, header, start, n_iterations) if file is not None and file.exists() else start()
    now, pool = now._replace(state=place(now.state, trainer)), make_pool(trainer.game, keys[1])
    try:
        while now.done < n_iterations:
            after, scalars = _advance(trainer, now, pool, marks)
            reported = after.done % every == 0 or after.done == n_iterations
            if reported:
                key = jax.random.fold_in(keys[2], after.done)
                row = _report(trainer, after, key, report_episodes, scalars)
                after = after._replace(rows=(*now.rows, row))
            # One assignment, so that Ctrl-C never finds half of an iteration.
            now = after
            if reported:
                _save(file, header, now)
                if on_progress is not None:
                    on_progress(now.rows[-1])
    except KeyboardInterrupt:
        _save(file, header, now)
        raise
    population = Population(
        trainer.game.name, trainer.actor, _gathered(now.state.params), progress=Progress(now.rows)
    )
    taken = tuple(
        (mark * trainer.steps_per_iteration, _take(now.kept, k)) for mark, k in sorted(marks.items())
    )
    return Trained(population, taken)


def _checkpoint_file(folder: Any) -> Path | None:
    """Return where the checkpoint lies."""
    if folder is None:
        return None
    if isinstance(folder, str | Path) and not Path(folder).is_file():
        return Path(folder) / FILE
    raise InputError(
        "folder is where a training keeps its checkpoint",
        expected="a folder, which is made if it is missing, or None",
        got=f"the file {folder}" if isinstance(folder, str | Path) else repr(folder),
        next_step="Pass folder='runs/partners', for example; Population.load reads a population's file.",
    )


class _Now(NamedTuple):
    """Where a training stands: all that a checkpoint keeps."""

    done: int
    state: Any
    kept: Any
    rows: tuple[dict[str, Any], ...]


def _start(trainer: Any, key: Array, n_snapshots: int) -> _Now:
    state = fresh_state(trainer, key)
    kept = jax.tree.map(lambda leaf: jnp.zeros((n_snapshots, *leaf.shape), leaf.dtype), state.params)
    return _Now(0, state, kept, ())


def _advance(trainer: Any, now: _Now, pool: Any, marks: Mapping[int, int]) -> tuple[_Now, Any]:
    """Return where the training stands one iteration later, and the scalars to report."""
    state, scalars = jax.block_until_ready(_iterate(trainer, now.state, pool))  # type: ignore[no-untyped-call]
    if hasattr(trainer, "checked"):
        scalars = trainer.checked(scalars)
    done = now.done + 1
    kept = _put(now.kept, state.params, marks[done]) if done in marks else now.kept
    return _Now(done, state, kept, now.rows), scalars


def _report(trainer: Any, now: _Now, key: Array, episodes: int, scalars: Any) -> dict[str, Any]:
    return report(
        trainer.game,
        trainer.actor,
        now.state.params,
        key,
        steps=now.done * trainer.steps_per_iteration,
        episodes=episodes,
        scalars=scalars,
    )


@functools.partial(jax.jit, static_argnums=0)
def _iterate(trainer: Trainer, state: Any, pool: Any) -> tuple[Any, dict[str, Array]]:
    """Iterate once; trainers that are equal share one compilation, whatever their seeds."""
    return trainer.iterate(state, pool)


def _put(stacked: Any, tree: Any, index: int) -> Any:
    return jax.tree.map(lambda leaves, leaf: leaves.at[index].set(leaf), stacked, tree)


def _take(stacked: Any, index: int) -> Any:
    return jax.tree.map(lambda leaves: leaves[index], stacked)


# Equal trainers share one compilation.
@functools.partial(jax.jit, static_argnums=0)
def _init(trainer: Any, key: Array) -> Any:
    return trainer.init(key)


def fresh_state(trainer: Any, key: Array) -> Any:
    """Return the state before training, with this trainer's own frozen partners.

    Trainers are equal, and share one compilation, whatever partners they have; it knows those of the first.
    """
    state = _init(trainer, key)
    return trainer.with_frozen(state) if hasattr(trainer, "with_frozen") else state


@functools.partial(jax.jit, static_argnums=0)
def make_pool(game: Game, key: Array) -> Any:
    """Return the start states that episodes draw from."""
    return reset_pool(game, key)


def place(state: Any, trainer: Any) -> Any:
    """Return the state on the devices: members spread where several devices share them evenly."""
    from .members import spread

    return spread(state, trainer.n_members)


def _gathered(params: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), params)


def training_header(trainer: Any, rng: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must agree for a checkpoint to fit."""
    return {
        "kind": "training",
        "method": type(trainer).__name__,
        # Where an object lies in memory is no property of a game.
        "game": re.sub(r" at 0x[0-9a-fA-F]+", "", repr(trainer.game)),
        "actor": asdict(trainer.actor),
        "members": trainer.n_members,
        "ppo": asdict(trainer.ppo),
        "rng": rng,
        "settings": dict(settings),
    }


def _save(file: Path | None, header: Mapping[str, Any], now: _Now) -> None:
    if file is not None:
        extra = {"iterations": now.done, "rows": now.rows}
        save_tree(file, (now.state, now.kept), {**header, **extra})


def _resume(file: Path, header: Mapping[str, Any], start: Callable[[], _Now], n_iterations: int) -> _Now:
    """Read a checkpoint; whether it fits is known before anything is compiled."""
    found = load_header(file)
    check_header(found, header, path=file)
    done = int(found["iterations"])
    if done > n_iterations:
        raise InputError(
            "a checkpoint is not beyond the training that is asked for",
            expected=f"at most {n_iterations} iterations",
            got=f"{done}",
            next_step=f"Ask for more steps, or remove {file} to train anew.",
        )
    like = jax.eval_shape(lambda: (start().state, start().kept))
    state, kept = jax.tree.map(jnp.asarray, load_tree(file, like))
    return _Now(done, state, kept, tuple(found["rows"]))
