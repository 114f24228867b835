"""How the public names are called: parameters with kinds and defaults, members of classes, keys of tables."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import PurePath
from typing import Any

from contract_differences import MISSING, Difference
from contract_names import public_names, public_types
from contract_summary import summary

OUR_ROOTS = ("metier", "metier_studies")
SPECIAL = (
    "__call__",
    "__len__",
    "__iter__",
    "__getitem__",
    "__contains__",
    "__enter__",
    "__exit__",
    "__add__",
    "__mul__",
)
POSITIONAL = ("POSITIONAL_ONLY", "POSITIONAL_OR_KEYWORD")
VARIADIC = ("VAR_POSITIONAL", "VAR_KEYWORD")


def signatures() -> dict[str, Any]:
    """Return the description of every public name."""
    return {name: described(value) for name, value in public_names().items()}


def described(value: Any) -> dict[str, Any]:
    """Describe one public object."""
    if isinstance(value, types.ModuleType):
        return {"kind": "module"}
    if isinstance(value, type):
        return _class(value)
    if callable(value):
        return {"kind": "function", "parameters": parameters(value)}
    if isinstance(value, Mapping):
        return {"kind": "mapping", "keys": sorted(map(str, value))}
    return {"kind": "value", "value": summary(value)}


def parameters(value: Any) -> list[dict[str, str]] | None:
    """Return name, kind and default of every parameter; None for what has no signature."""
    try:
        found = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return None
    return [
        {"name": p.name, "kind": p.kind.name}
        | ({} if p.default is p.empty else {"default": shown(p.default)})
        for p in found
    ]


def shown(value: Any) -> str:
    """Return a default as text, without addresses and without the places of private classes."""
    if isinstance(value, type):
        return f"class {value.__qualname__}"
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType):
        return f"function {value.__qualname__}"
    if isinstance(value, PurePath):
        return "a path"
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if type(value).__repr__ is object.__repr__:
        return f"a {type(value).__name__}"
    # A dataclass without a default for a field that a factory makes.
    return "factory" if repr(value) == "<factory>" else repr(value)


def _class(kind: type) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": "class", "is": _bases(kind), "parameters": parameters(kind)}
    if dataclasses.is_dataclass(kind):
        found["fields"] = [f.name for f in dataclasses.fields(kind) if not f.name.startswith("_")]
    elif hasattr(kind, "_fields"):
        found["fields"] = list(kind._fields)
    elif hasattr(kind, "model_fields"):
        found["fields"] = list(kind.model_fields)
    found["members"] = {name: _member(kind, name) for name in sorted(_names(kind))}
    return found


def _bases(kind: type) -> list[str]:
    """Public bases and those of others: what `isinstance` and `except` of other programs rely on."""
    bases = [base for base in kind.__mro__[1:] if base is not object]
    public = [public_types()[base] for base in bases if base in public_types()]
    others = [
        f"{b.__module__}.{b.__qualname__}"
        for b in bases
        if b.__module__ in ("builtins", "torch.nn.modules.module")
    ]
    return sorted({*public, *others})


def _names(kind: type) -> set[str]:
    """Names of the members that metier's own classes define."""
    own = [base for base in kind.__mro__ if base.__module__.split(".")[0] in OUR_ROOTS]
    found = {name for base in own for name in vars(base)}
    fields = {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    fields |= set(getattr(kind, "_fields", ())) | set(getattr(kind, "model_fields", ()))
    return {
        n
        for n in found
        if (not n.startswith("_") or n in SPECIAL) and n not in fields and n != "model_config"
    }


def _member(kind: type, name: str) -> dict[str, Any]:
    member = inspect.getattr_static(kind, name)
    if isinstance(member, property | cached_property | types.MemberDescriptorType):
        return {"kind": "property"}
    if isinstance(member, staticmethod):
        return {"kind": "static method", "parameters": parameters(member.__func__)}
    if isinstance(member, classmethod):
        return {"kind": "class method", "parameters": (parameters(member.__func__) or [])[1:]}
    if callable(member) and not isinstance(member, type):
        return {"kind": "method", "parameters": (parameters(member) or [])[1:]}
    return {"kind": "attribute"}


def signature_differences(expected: Any, value: Any) -> Iterator[Difference]:
    """Yield what was accepted when frozen and is not any more; what was added is no difference."""
    got = described(value)
    if expected["kind"] != got["kind"]:
        yield Difference("kind", expected["kind"], got["kind"])
        return
    if "value" in expected and expected["value"] != got["value"]:
        yield Difference("value", expected["value"], got["value"])
    for key in ("is", "fields", "keys"):
        yield from (
            Difference(f"{key}.{item}", item, MISSING) for item in _gone(expected.get(key), got.get(key))
        )
    yield from calls_refused(expected.get("parameters"), got.get("parameters"), "parameters")
    for name, member in expected.get("members", {}).items():
        other = got["members"].get(name)
        if other is None and name in got.get("fields", ()):
            other = {"kind": "property"}
        if other is None:
            yield Difference(f"members.{name}", member["kind"], MISSING)
        elif not _serves(member["kind"], other["kind"]):
            yield Difference(f"members.{name}.kind", member["kind"], other["kind"])
        else:
            yield from calls_refused(member.get("parameters"), other.get("parameters"), f"members.{name}")


def _gone(expected: Any, got: Any) -> list[str]:
    return [item for item in expected or () if item not in (got or ())]


def _serves(expected: str, got: str) -> bool:
    """Whether the new kind of a member serves every use of the old one."""
    return expected == got or (expected, got) in {
        ("property", "attribute"),
        ("attribute", "property"),
        ("class method", "static method"),
        ("static method", "class method"),
    }


def calls_refused(expected: Any, got: Any, path: str) -> Iterator[Difference]:
    """Yield which calls that were accepted are refused, or mean something else."""
    if expected is None:
        return
    if got is None:
        yield Difference(path, "a signature", MISSING)
        return
    old, new = ({p["name"]: p for p in every} for every in (expected, got))
    variadic = {p["kind"] for p in got}
    for name, parameter in old.items():
        other = new.get(name)
        if other is None:
            if parameter["kind"] not in VARIADIC or parameter["kind"] not in variadic:
                yield Difference(f"{path}.{name}", parameter["kind"], MISSING)
        elif not _takes(parameter["kind"], other["kind"]):
            yield Difference(f"{path}.{name}.kind", parameter["kind"], other["kind"])
        elif "default" in parameter and parameter["default"] != other.get("default"):
            yield Difference(f"{path}.{name}.default", parameter["default"], other.get("default", MISSING))
    order = [p["name"] for p in expected if p["kind"] in POSITIONAL]
    now = [p["name"] for p in got if p["kind"] in POSITIONAL]
    if order != now[: len(order)] and set(order) <= set(now):
        yield Difference(f"{path}.order", order, now)
    for name, parameter in new.items():
        if name not in old and "default" not in parameter and parameter["kind"] not in VARIADIC:
            yield Difference(f"{path}.{name}", MISSING, "a parameter without a default")


def _takes(expected: str, got: str) -> bool:
    """Whether a parameter of the new kind takes every call of the old one."""
    return expected == got or (
        got == "POSITIONAL_OR_KEYWORD" and expected in ("POSITIONAL_ONLY", "KEYWORD_ONLY")
    )
