"""Read the files of a run folder without taking its lock; anything damaged is one clear error."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metier.core.errors import InputError
from metier.records.results import SCHEMA_VERSION, Result


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Return whether `folder` holds a run, finished or not."""
    return (Path(folder) / "config.json").is_file()


def find_runs(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the run folders at or below `folder` (two levels), sorted by path.

    Args:
        folder: a run folder, or one that holds some, as `metier tour` and `--seeds` make them.

    Raises:
        InputError: there is none.
    """
    root = Path(folder)
    if is_run(root):
        return [root]
    found = sorted(path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/config.json"))
    if not found:
        raise InputError(
            "a run is a folder with a config.json, made by `metier run` or `metier tour`",
            expected="such a folder, or one that holds some",
            got=f"{root}, which {'holds none' if root.is_dir() else 'is no folder'}",
            next_step="Check the path.",
        )
    return found


def read_json(path: Path) -> Any:
    """Return the JSON document in `path`; unreadable or damaged text is an `InputError`."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        got, step = (
            "no such file",
            "Check the path; a run that was interrupted has no result yet: use --resume.",
        )
    except ValueError:
        got, step = (
            "text that is not JSON",
            (
                "Delete that file and run again with --resume."
                if path.name == "result.json"
                else "The file was damaged: start anew in another folder."
            ),
        )
    raise InputError(
        f"a run folder holds a readable {path.name}",
        expected=f"a JSON document in {path}",
        got=got,
        next_step=step,
    )


def require_version(document: Any, path: Path) -> dict[str, Any]:
    """Return the document if its schema version is ours, else raise `InputError`."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            "a record is read by the schema version that wrote it",
            expected=f"schema version {SCHEMA_VERSION} in {path}",
            got=f"version {version!r}",
            next_step="Run the study again, or use the metier release that made this run.",
        )
    return dict(document)


def read_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the run's `config.json`: schema_version, study, size, seed, config.

    Raises:
        InputError: the file is missing, damaged, or of another schema version.
    """
    path = Path(folder) / "config.json"
    document = require_version(read_json(path), path)
    missing = {"study", "size", "seed", "config"} - document.keys()
    if missing:
        raise InputError(
            "a run's config.json names study, size, seed and config",
            expected=f"all four in {path}",
            got="none for " + ", ".join(sorted(missing)),
            next_step="The file was edited: start anew in another folder.",
        )
    return document


def read_result(folder: str | os.PathLike[str]) -> Result:
    """Return the run's finished result.

    Raises:
        InputError: the run is not finished, or its result is damaged or of another schema version.
    """
    path = Path(folder) / "result.json"
    document = require_version(read_json(path), path)
    try:
        return Result.model_validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            "a run's result.json follows the record schema",
            expected=f"a valid {'.'.join(map(str, first['loc']))} in {path}",
            got=first["msg"],
            next_step="Delete that file and run again with --resume.",
        ) from None


def read_environment(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the run's `env.json`: versions, CPUs and thread settings."""
    return dict(read_json(Path(folder) / "env.json"))


def read_timings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the run's `timings.json` (total and per cell, in seconds), or {} if it has none."""
    path = Path(folder) / "timings.json"
    return dict(read_json(path)) if path.exists() else {}
