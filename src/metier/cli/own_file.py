"""What the verbs for a file of one's own share: a fresh folder, plain answers, the command that repeats."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from metier.cli.options import choose_folder


def fresh_folder(out: Path | None, verb: str, file: Path) -> Path:
    """Return where the run goes: `out`, or runs/VERB-FILE; a folder in use is refused before work begins."""
    from metier.runs.run import refuse_used

    folder = choose_folder(out, Path("runs") / f"{verb}-{file.stem}", resume=False)
    if folder.is_dir():
        refuse_used(folder)
    return folder


def plain_document(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values as JSON holds them."""
    from metier.runs.journal import to_json_value

    return dict(to_json_value(values, what="the answer"))


def repeating_command(verb: str, job: Any, options: Iterable[tuple[str, Any]], settings: list[str]) -> str:
    """Return the command that repeats a job, without what is the default.

    Args:
        verb: Of the command.
        job: Dataclass with `file`, `seed` and the fields that options are named after.
        options: Flags with values, in the order of the command.
        settings: KEY=VALUE texts of --set.
    """
    defaults = {"--" + f.name.replace("_", "-"): f.default for f in dataclasses.fields(job)}
    said = [*options, *(("--set", setting) for setting in settings), ("--seed", job.seed)]
    words = [word for flag, value in said if defaults.get(flag, "") != value for word in (flag, _word(value))]
    return shlex.join(["metier", verb, str(job.file), *words])


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
