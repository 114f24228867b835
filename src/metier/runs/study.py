"""What a study is to the command: a configuration per size, a function that runs it, the claims it tests."""

from __future__ import annotations

import dataclasses
import os
import shlex
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from metier.core.errors import InputError
from metier.core.extras import naming_extras
from metier.core.parse import nearest, parse_value
from metier.records import Result
from metier.runs.progress import Progress, Silent
from metier.runs.read import read_result
from metier.runs.run import Run

SIZES = ("tour", "standard", "full")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A study: what it asks, its configuration per size, and the function that answers.

    Args:
        name: the word after `metier run`.
        family: the system it belongs to, or "core".
        title: one line for people.
        question: what it finds out.
        sizes: a frozen dataclass instance per size ("tour", "standard", "full").
        run: called with (config, run, progress); all randomness from `run.rng(...)`, all work that
            takes time inside `run.cell(...)`, so that a killed run resumes to the same bytes.
        claims: the ids of the claims it tests.
        paired_on: the configuration fields that fix data and evaluation; `metier compare` refuses two
            runs that differ in one of them, and reports a difference in any other as what is compared.
    """

    name: str
    family: str
    title: str
    question: str
    sizes: Mapping[str, Any]
    run: Callable[[Any, Run, Progress], Result]
    claims: tuple[str, ...] = ()
    paired_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for size, config in self.sizes.items():
            if size not in SIZES or not dataclasses.is_dataclass(config):
                raise InputError(
                    f"study {self.name}: sizes map {', '.join(SIZES)} to dataclass instances",
                    expected="a known size with a dataclass instance",
                    got=f"{size!r}: {type(config).__name__}",
                    next_step="Correct the study's definition.",
                )


def resolve_config(study: Study, size: str, overrides: Mapping[str, str] | None = None) -> Any:
    """Return the study's configuration at `size` with `key=value` texts parsed by the fields' types.

    Args:
        study: the study.
        size: one of its sizes.
        overrides: field name -> text, as given to `--set`. Tuples are comma-separated, "none" is None.

    Returns:
        A new instance of the study's configuration dataclass.

    Raises:
        InputError: an unknown size or field (with its nearest neighbors), or a text of the wrong type.
    """
    if size not in study.sizes:
        raise _unknown("size", size, study.sizes, study)
    config = study.sizes[size]
    hints = typing.get_type_hints(type(config))
    names = [field.name for field in dataclasses.fields(config)]
    values = {}
    for key, text in (overrides or {}).items():
        if key not in names:
            raise _unknown("configuration key", key, names, study)
        values[key] = parse_value(text, hints[key], key=key)
    return dataclasses.replace(config, **values)


def _unknown(what: str, name: str, known: Iterable[str], study: Study) -> InputError:
    known = list(known)
    return InputError(
        f"study {study.name} has no {what} {name!r}",
        expected="one of " + ", ".join(known),
        got=repr(name),
        next_step=nearest(name, known),
    )


def execute(
    study: Study,
    folder: str | os.PathLike[str],
    *,
    size: str = "tour",
    overrides: Mapping[str, str] | None = None,
    seed: int = 0,
    resume: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Run a study in `folder` and return its result; with `resume`, go on where it was interrupted.

    Args:
        study: the study.
        folder: a new or empty folder, or with `resume` the folder of the same run.
        size: "tour", "standard" or "full".
        overrides: configuration keys with their values as text.
        seed: the seed that every random stream derives from.
        resume: go on with the run that is there; a finished one returns its result.
        progress: who shows what is going on; silent by default.

    Returns:
        The result, which is also in the folder's `result.json`.

    Raises:
        InputError: an unknown size or key, or a folder that holds something else.
        MissingExtraError: a package that the study needs is not installed.
    """
    overrides = dict(overrides or {})
    config = resolve_config(study, size, overrides)
    command = command_line(study.name, size=size, seed=seed, overrides=overrides)
    started = Run.start(
        folder, study=study.name, size=size, config=config, seed=seed, command=command, resume=resume
    )
    with naming_extras(), started as run:
        if run.is_finished:
            return read_result(folder)
        return run.finish(study.run(config, run, progress or Silent()))


def command_line(name: str, *, size: str, seed: int, overrides: Mapping[str, str]) -> str:
    """Return the command that repeats a run.

    Example:
        >>> command_line("forecast", size="tour", seed=0, overrides={"gate": "mean"})
        'metier run forecast --size tour --seed 0 --set gate=mean'
    """
    words = ["metier", "run", name, "--size", size, "--seed", str(seed)]
    for key, value in overrides.items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)
