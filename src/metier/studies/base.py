"""What a study is: a frozen configuration per size, a function that runs it, the claims it tests."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from metier.core.errors import InputError
    from metier.runs import Result, Run

T = TypeVar("T")
SIZES = ("tour", "standard", "full")


def input_error(rule: str, *, expected: str, got: str, next_step: str) -> InputError:
    """Make an `InputError`, loading `metier.core` only now: listing studies must not load NumPy."""
    from metier.core.errors import InputError

    return InputError(rule, expected=expected, got=got, next_step=next_step)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the next step for an unknown name: its nearest neighbors, if any are near."""
    import difflib

    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else "Choose one of those."


class Progress(Protocol):
    """How a study tells a person what it is doing; the command draws it, the library stays silent."""

    def stage(self, text: str) -> None:
        """Announce what is tried now, and why."""

    def track(self, iterable: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
        """Yield from `iterable` while showing how far it is."""


class Silent:
    """The progress that shows nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def track(self, iterable: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
        """Return the iterable itself."""
        return iterable


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
                raise input_error(
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
    return input_error(
        f"--set {key} must match the field's type",
        expected=expected,
        got=repr(text),
        next_step=f"Write --set {key}=VALUE with such a value.",
    )


def _unknown(what: str, name: str, known: Iterable[str], study: Study) -> InputError:
    known = list(known)
    return input_error(
        f"study {study.name} has no {what} {name!r}",
        expected="one of " + ", ".join(known),
        got=repr(name),
        next_step=nearest(name, known),
    )
