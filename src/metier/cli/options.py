"""The options that verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; all else goes to stderr.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="PATH", help="Where to write.", show_default=False)
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that was interrupted.")]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, help="The seed that every random stream derives from.")
]


def parse_settings(settings: list[str]) -> dict[str, str]:
    """Turn ["key=value", ...] into a dict; anything else is an error that shows the form."""
    from metier.core.errors import InputError

    parsed: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip() or key.strip() in parsed:
            raise InputError(
                "--set takes key=value, each key once",
                expected="for example --set gate=mean",
                got=f"--set {setting}",
                next_step="Correct that setting.",
            )
        parsed[key.strip()] = value.strip()
    return parsed


def choose_folder(out: Path | None, default: Path, *, resume: bool) -> Path:
    """Return `out`; without it the newest default folder to resume, or the next free one.

    Defaults are numbered: runs/tour, runs/tour-2, runs/tour-3, ...
    """
    if out is not None:
        return out
    folder, number = default, 1
    newest = default
    while folder.exists():
        newest, number = folder, number + 1
        folder = default.with_name(f"{default.name}-{number}")
    return newest if resume else folder
