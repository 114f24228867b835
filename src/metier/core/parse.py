"""Texts to values by their types, as `--set key=value` needs them."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from .errors import InputError


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the next step for an unknown name: its nearest neighbors, if any are near."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else "Choose one of those."


def parse_value(text: str, hint: Any, *, key: str) -> Any:
    """Parse one `--set` text by its field's type: bool, int, float, str, Literal, tuple, or optional."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _parse_union(text, args, key=key)
    if origin is Literal:
        matches = [choice for choice in args if str(choice) == text]
        if not matches:
            raise _unreadable(key, text, "one of " + ", ".join(map(str, args)))
        return matches[0]
    if origin is tuple:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        kinds = [args[0]] * len(parts) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(parts):
            raise _unreadable(key, text, f"{len(kinds)} comma-separated values")
        return tuple(parse_value(part, kind, key=key) for part, kind in zip(parts, kinds, strict=True))
    return _parse_scalar(text, hint, key=key)


def _parse_union(text: str, kinds: tuple[Any, ...], *, key: str) -> Any:
    if type(None) in kinds and text.lower() == "none":
        return None
    failures = []
    for kind in kinds:
        if kind is not type(None):
            try:
                return parse_value(text, kind, key=key)
            except ValueError as error:
                failures.append(getattr(error, "expected", str(error)))
    raise _unreadable(
        key, text, " or ".join([*map(str, failures), *(["none"] if type(None) in kinds else [])])
    )


def _parse_scalar(text: str, kind: Any, *, key: str) -> Any:
    if kind is str:
        return text
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if text.lower() not in words:
            raise _unreadable(key, text, "true or false")
        return words[text.lower()]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise _unreadable(key, text, "a whole number" if kind is int else "a number") from None
    raise _unreadable(key, text, f"nothing: a field of type {kind} cannot be set from the command line")


def _unreadable(key: str, text: str, expected: str) -> InputError:
    return InputError(
        f"--set {key} must match the field's type",
        expected=expected,
        got=repr(text),
        next_step=f"Write --set {key}=VALUE with such a value.",
    )
