"""The studies of the distributions that are installed, found by the entry points `metier.studies`.

An entry point names a dict from a study's name to its `Entry`: text only, so that `metier list` and
`metier --help` load no study.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import shlex
import sys
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InputError, MetierError
from .extras import naming_extras, require_extras
from .parse import nearest

GROUP = "metier.studies"


class Entry(NamedTuple):
    """Where a study lives and what it is, without importing it."""

    target: str
    family: str
    title: str
    extras: tuple[str, ...] = ()
    in_tour: bool = True


@functools.cache
def registry() -> dict[str, Entry]:
    """Return every study that an installed distribution registers: name -> entry.

    Example:
        >>> isinstance(registry(), dict)
        True
    """
    points = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name)
    return {name: entry for point in points for name, entry in _loaded(point).items()}


def _loaded(point: importlib.metadata.EntryPoint) -> dict[str, Entry]:
    try:
        return dict(point.load())
    except Exception as error:  # whatever another distribution's module raises
        cause = f"{type(error).__name__}: {error}"
        raise MetierError(
            f"the studies of {point.name!r} ({point.value}) cannot be loaded: {cause}. "
            "Mend or uninstall that distribution."
        ) from error


def check_name(name: str) -> None:
    """Raise `InputError`, with near names, unless a study is called `name`.

    Raises:
        MetierError: no study is installed at all; the message says how to get them.
    """
    studies = registry()
    if not studies:
        raise MetierError(f"metier itself holds no studies. {how_to_install()}")
    if name not in studies:
        raise InputError(
            f"no study is called {name!r}",
            expected="one of " + ", ".join(studies),
            got=repr(name),
            next_step=nearest(name, studies),
        )


def load_study(name: str) -> Any:
    """Import and return the study `name`, a `metier.runs.Study`.

    Raises:
        InputError: no study has this name; the message suggests near ones.
        MissingExtraError: the study needs an extra that is not installed.
    """
    check_name(name)
    require_extras(*registry()[name].extras)
    module, attribute = registry()[name].target.split(":")
    with naming_extras():
        return getattr(importlib.import_module(module), attribute)


def how_to_install() -> str:
    """Return what brings metier's own studies: a command where the repository is at hand.

    Example:
        >>> "metier-studies" in how_to_install()
        True
    """
    clone = Path(__file__).parents[3] / "studies"
    if (clone / "pyproject.toml").is_file():
        words = [sys.executable or "python", "-m", "pip", "install", str(clone)]
        return f"Install metier-studies: {shlex.join(words)}"
    return "Install metier-studies from a clone of metier's repository: pip install ./studies"
