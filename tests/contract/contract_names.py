"""The public names that the contract covers, and where each one is today."""

from __future__ import annotations

import builtins
import functools
import importlib
import tomllib
import types
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FROZEN = HERE / "frozen"
PACKAGES = (
    "metier",
    "metier.core",
    "metier.data",
    "metier.forecast",
    "metier.bilevel",
    "metier.moe",
    "metier.moe.inspect",
    "metier.partners",
    "metier.partners.games",
    "metier.multi_index",
    "metier.multi_index.simulate",
    "metier.runs",
    "metier.report",
    "metier.studies",
)


@cache
def intended() -> dict[str, Any]:
    """Return `intended.toml`: "moved" (old name -> new place and reason) and "difference" (a list)."""
    return tomllib.loads((HERE / "intended.toml").read_text(encoding="utf-8"))


def place_of(name: str) -> str:
    """Return where a frozen name is now: itself, or what `intended.toml` says of it or of its package."""
    moved = intended().get("moved", {})
    at, rest = name, ""
    while at:
        if at in moved:
            return moved[at]["to"] + rest
        at, _, last = at.rpartition(".")
        rest = f".{last}{rest}"
    return name


def locate(name: str) -> Any:
    """Return the object of a frozen dotted name, or raise LookupError if it is gone."""
    place = place_of(name)
    package, _, rest = place.rpartition(".")
    # A package's attribute before its module of the same name: metier.multi_index.exponents is a function.
    for module, parts in ((package, [rest]), (place, [])):
        if not module:
            continue
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            continue
        try:
            return functools.reduce(getattr, parts, found)
        except AttributeError:
            continue
    raise LookupError(f"{name} is gone: nothing is called {place}")


@cache
def public_names() -> dict[str, Any]:
    """Return every public name with its object, package by package."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(place_of(package))
        found |= {f"{package}.{name}": getattr(module, name) for name in sorted(module.__all__)}
    return found


@cache
def public_types() -> dict[type, str]:
    """Return every public class with its short name; the names of private ones are no contract."""
    return {
        value: name.rpartition(".")[2] for name, value in public_names().items() if isinstance(value, type)
    }


def public_name_of(value: Any, near: str) -> str | None:
    """Return the public name of an object, preferably in package `near`; modules by their own name."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    same = [name for name, other in public_names().items() if other is value]
    same.sort(key=lambda name: (name.rpartition(".")[0] != near, name))
    if same:
        return same[0]
    module, own = getattr(value, "__module__", None) or "", getattr(value, "__qualname__", "")
    if module and not module.startswith("metier") and own and "." not in own and "<" not in own:
        outside = getattr(importlib.import_module(module), own, None)
        return f"{module}.{own}" if outside is value else None
    return None


def is_builtin(name: str) -> bool:
    """Whether Python itself has the name."""
    return hasattr(builtins, name)
