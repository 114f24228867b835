"""A run folder: configuration, environment, journal, checkpoints, result; killed anywhere, it resumes."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from metier.core.errors import InputError
from metier.records.results import SCHEMA_VERSION, Claim, DataUsed, Headline, Losses, Result, Section
from metier.runs.atomic import atomic_write_text, fsync_folder
from metier.runs.checkpoints import Checkpoint, latest_checkpoint, save_checkpoint
from metier.runs.environment import capture_environment
from metier.runs.journal import Journal, to_json_value
from metier.runs.lock import FolderLock
from metier.runs.read import is_run, read_config, read_environment

if TYPE_CHECKING:
    import numpy as np

# What a run killed while being created may leave behind.
_BIRTH_FILES = {".lock", "env.json"}


class Run:
    """An open run folder. Make one with `Run.create`, `Run.open` or `Run.start`; use it in a `with` block.

    Attributes:
        folder: the run's folder.
        study: the study's name.
        size: "tour", "standard" or "full".
        seed: the seed all of its random streams derive from.
        config: the resolved configuration, as JSON.
        command: the command line that repeats the run, for claims and reports.
    """

    def __init__(self, folder: Path, lock: FolderLock) -> None:
        document = read_config(folder)
        self.folder = folder
        self.study: str = document["study"]
        self.size: str = document["size"]
        self.seed: int = document["seed"]
        self.config: dict[str, Any] = document["config"]
        self.command: str = document.get("command", "")
        self._lock = lock
        self._journal = Journal(folder / "metrics.jsonl")
        self._cells: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        for line in self._journal.lines:
            if "cell" in line:
                self._cells.setdefault(line["cell"], line["value"])
                self._seconds.setdefault(line["cell"], line["seconds"])
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        *,
        study: str,
        size: str,
        config: Any,
        seed: int,
        command: str = "",
    ) -> Self:
        """Create a run in a new or empty folder.

        Args:
            folder: where; parents are made.
            study: the study's name.
            size: "tour", "standard" or "full".
            config: the resolved configuration, a dataclass instance or a JSON-ready mapping.
            seed: the run's seed.
            command: the command line that repeats the run; by default made of study, size and seed.

        Returns:
            The open run, holding the folder's lock.

        Raises:
            InputError: the folder holds a run or other files, or another process writes it.
        """
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(path)
        try:
            refuse_used(path)
            document = {
                "schema_version": SCHEMA_VERSION,
                "study": study,
                "size": size,
                "seed": seed,
                "command": command or f"metier run {study} --size {size} --seed {seed}",
                "config": config_values(config),
            }
            atomic_write_text(path / "env.json", _pretty(capture_environment()))
            atomic_write_text(path / "config.json", _pretty(document))
            fsync_folder(path.parent)
            return cls(path, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Open an existing run to go on with it, dropping a torn last journal line.

        Args:
            folder: the run's folder.

        Returns:
            The open run, holding the folder's lock.

        Raises:
            InputError: no run is there, another process writes it, or a record is damaged or of another
                version.
        """
        path = Path(folder)
        read_config(path)
        lock = FolderLock(path)
        try:
            run = cls(path, lock)
            run._note_environment()
            return run
        except BaseException:
            lock.release()
            raise

    @classmethod
    def start(
        cls,
        folder: str | os.PathLike[str],
        *,
        study: str,
        size: str,
        config: Any,
        seed: int,
        command: str = "",
        resume: bool = False,
    ) -> Self:
        """Create the run, or with `resume` go on with the one that is there if it is the same run.

        Raises:
            InputError: the folder holds a run and `resume` is False, or holds a different run; the
                message names the first differing key.
        """
        if not is_run(folder):
            return cls.create(folder, study=study, size=size, config=config, seed=seed, command=command)
        if not resume:
            raise InputError(
                "a run never overwrites another",
                expected="a new or empty folder",
                got=f"{os.fspath(folder)}, which holds a run",
                next_step="Add --resume to go on with it, or choose another folder with --out.",
            )
        wanted = {"study": study, "size": size, "seed": seed, **config_values(config)}
        found = read_config(folder)
        _refuse_different(folder, {k: found[k] for k in ("study", "size", "seed")} | found["config"], wanted)
        return cls.open(folder)

    @property
    def is_finished(self) -> bool:
        """Whether the run has its result."""
        return (self.folder / "result.json").is_file()

    def rng(self, *labels: str | int) -> np.random.Generator:
        """Return the random stream of `labels`: a function of the run's seed, its study and the labels."""
        from metier.core.rng import derive

        return derive(self.seed, self.study, *labels)

    def cell(self, key: str, work: Callable[[], Any], *, seconds: float | None = None) -> Any:
        """Return the value of a unit of work, calling `work()` only if the journal does not hold it.

        Args:
            key: the unit's name, unique in the run, for example "seed-3/gate-crossfit".
            work: computes the value; it must depend on the configuration, the seed and the key alone.
            seconds: what computing took, where `work` only hands over what another process computed; None
                times `work`.

        Returns:
            The value as JSON reads it back (lists for arrays and tuples), fresh or resumed alike.

        Raises:
            InputError: the value holds NaN, an infinity or something JSON cannot hold.
        """
        if key not in self._cells:
            start = time.perf_counter()
            value = to_json_value(work(), what=f"cell {key!r}")
            taken = round(time.perf_counter() - start if seconds is None else seconds, 6)
            self._journal.append({"cell": key, "value": value, "seconds": taken})
            self._cells[key], self._seconds[key] = value, taken
        # A copy, so that a caller who edits the value does not change what a second call returns.
        return json.loads(json.dumps(self._cells[key]))

    def has_cell(self, key: str) -> bool:
        """Return whether the journal holds this unit of work."""
        return key in self._cells

    def log(self, **metrics: Any) -> None:
        """Append metrics to the journal, for people and plots; resuming does not read them."""
        self._journal.append({"log": to_json_value(metrics, what="a logged metric")})

    def save_checkpoint(
        self, step: int, *, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any], keep: int = 2
    ) -> Path:
        """Save `checkpoints/step-N` atomically (see `metier.runs.save_checkpoint`)."""
        return save_checkpoint(self.folder / "checkpoints", step, arrays=arrays, state=state, keep=keep)

    def latest_checkpoint(self) -> Checkpoint | None:
        """Return the newest whole checkpoint, or None (see `metier.runs.latest_checkpoint`)."""
        return latest_checkpoint(self.folder / "checkpoints")

    def result(
        self,
        *,
        family: str,
        title: str,
        question: str,
        headline: Headline | None = None,
        claims: tuple[Claim, ...] = (),
        sections: tuple[Section, ...] = (),
        losses: tuple[Losses, ...] = (),
        data: tuple[DataUsed, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> Result:
        """Return the result of this run: its study, size, seed and command, and what the study found.

        Args:
            family: the system that the study belongs to.
            title, question: of the study.
            headline, claims, sections, losses, data, notes: see `metier.runs.Result`.
        """
        return Result(
            study=self.study,
            family=family,
            size=self.size,
            seed=self.seed,
            title=title,
            question=question,
            command=self.command,
            headline=headline,
            claims=claims,
            sections=sections,
            losses=losses,
            data=data,
            notes=notes,
        )

    def finish(self, result: Result) -> Result:
        """Write `result.json` and `timings.json` atomically and return the result.

        Raises:
            InputError: the result names another study, size or seed than this run.
        """
        named = {"study": result.study, "size": result.size, "seed": result.seed}
        _refuse_different(self.folder, {"study": self.study, "size": self.size, "seed": self.seed}, named)
        timings = {"seconds": round(sum(self._seconds.values()), 3), "cells": self._seconds}
        atomic_write_text(self.folder / "timings.json", _pretty(timings))
        atomic_write_text(self.folder / "result.json", result.to_json())
        return result

    def close(self) -> None:
        """Free the folder for other processes."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note_environment(self) -> None:
        now = capture_environment()
        before = read_environment(self.folder) if (self.folder / "env.json").exists() else {}
        changed = {key: value for key, value in now.items() if before.get(key) != value}
        if changed:
            self.log(resumed_with=changed)


def config_values(config: Any) -> dict[str, Any]:
    """Return a configuration (dataclass instance or mapping) as a JSON dict."""
    plain = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else dict(config)  # type: ignore[arg-type]
    return dict(to_json_value(plain, what="a configuration"))


def _pretty(document: Any) -> str:
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def refuse_used(folder: Path) -> None:
    """Raise `InputError` if an existing folder holds a run or anything else."""
    if is_run(folder):
        raise InputError(
            "a run never overwrites another",
            expected="a new or empty folder",
            got=f"{folder}, which holds a run",
            next_step="Open that run instead, or choose another folder.",
        )
    foreign = sorted(
        path.name
        for path in folder.iterdir()
        if path.name not in _BIRTH_FILES and not path.name.endswith(".tmp")
    )
    if foreign:
        raise InputError(
            "a run has its folder to itself",
            expected=f"a new or empty folder {folder}",
            got=f"one that holds {', '.join(foreign[:3])}{' ...' if len(foreign) > 3 else ''}",
            next_step="Choose another folder with --out.",
        )


def _refuse_different(
    folder: str | os.PathLike[str], found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    for key in [*wanted, *found]:
        if wanted.get(key) != found.get(key):
            raise InputError(
                "a run is resumed and finished with the configuration it began with",
                expected=f"{key}={found.get(key)!r}, as in {os.fspath(folder)}",
                got=f"{key}={wanted.get(key)!r}",
                next_step="Use the same settings, or choose another folder with --out.",
            )
