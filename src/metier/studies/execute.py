"""Run a study in a run folder, from the command or from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from metier.studies.base import Progress, Silent, Study, resolve_config

if TYPE_CHECKING:
    from metier.runs import Result


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
    from metier.core.extras import naming_extras
    from metier.runs import Run, read_result

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
    import shlex

    words = ["metier", "run", name, "--size", size, "--seed", str(seed)]
    for key, value in overrides.items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)
