"""Fill the API page with every public name of its rooms: signature, then docstring."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

MARK = re.compile(r"^<!-- api: (?P<room>[\w.]+) -->$", re.MULTILINE)
SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example|Source):[ ]*(?P<rest>.*)$")
ENTRY = re.compile(r"^(?P<name>[\w.*, ]+): (?P<text>.*)$")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page by the entries of the room they name."""
    return MARK.sub(lambda mark: "\n".join(room_entries(mark["room"])), markdown)


def room_entries(room: str) -> Iterator[str]:
    """Yield the entry of every name in a room's `__all__`."""
    module = importlib.import_module(room)
    for name in module.__all__:
        thing = getattr(module, name)
        if not inspect.ismodule(thing):
            yield from entry(name, thing, title=f"{room}.{name}")


def entry(name: str, thing: Any, *, title: str) -> Iterator[str]:
    """Yield one name's heading, signature and docstring, and those of its public methods."""
    yield f"\n### {title}\n"
    if not callable(thing):
        yield f"```python\n{name} = {value_text(thing)}\n```\n"
        return
    if not hides_parameters(thing):
        yield f"```python\n{signature_text(name, thing)}\n```\n"
    yield docstring_text(thing)
    if inspect.isclass(thing):
        for method_name, method in public_methods(thing):
            yield f"\n#### {name}.{method_name}\n"
            if not isinstance(method, property):
                yield f"```python\n{signature_text(method_name, method)}\n```\n"
            yield docstring_text(method)


def hides_parameters(thing: Any) -> bool:
    """Whether a class is made by its own methods rather than by its constructor."""
    if not inspect.isclass(thing) or issubclass(thing, Exception):
        return False
    return any(name.startswith("_") for name in inspect.signature(thing).parameters)


def public_methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the documented methods and properties that a class defines itself, bound as users see them."""
    for name, raw in vars(cls).items():
        method = raw if isinstance(raw, property) else getattr(cls, name)
        function = raw.fget if isinstance(raw, property) else method
        # Base classes of other libraries plant methods of their own.
        ours = callable(function) and getattr(function, "__module__", "").startswith("metier")
        if ours and not name.startswith("_") and method.__doc__:
            yield name, method


def value_text(value: Any) -> str:
    """Return a constant's value, or its keys where it is a mapping."""
    names = list(value) if hasattr(value, "keys") else value
    return textwrap.shorten(repr(names), 300)


def signature_text(name: str, thing: Any) -> str:
    """Return a signature without annotations, one parameter a line where it is long."""
    try:
        parameters = list(inspect.signature(thing).parameters.values())
    except ValueError:
        return f"{name}(...)"
    words = []
    for parameter in parameters:
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        words.append(f"{prefix}{parameter.name}{default}")
    line = f"{name}({', '.join(words)})"
    return line if len(line) <= 100 else f"{name}(\n    " + ",\n    ".join(words) + ",\n)"


def docstring_text(thing: Any) -> str:
    """Return a docstring as Markdown: sections as bold words, their entries as lists, examples as code."""
    parts, section, lines = [], "", []
    for line in (inspect.getdoc(thing) or "").splitlines():
        match = SECTION.match(line)
        if match:
            parts.append(section_text(section, lines))
            section, lines = match[1], [match["rest"]] if match["rest"] else []
        else:
            lines.append(line)
    return "\n\n".join([*(part for part in parts if part), section_text(section, lines)])


def section_text(section: str, lines: list[str]) -> str:
    """Return one section of a docstring as Markdown."""
    body = textwrap.dedent("\n".join(lines)).strip("\n")
    if not section or not body:
        return body
    if section == "Example":
        return f"**Example**\n\n```pycon\n{body}\n```"
    if section in ("Args", "Attributes", "Raises"):
        return f"**{section}**\n\n" + "\n".join(list_items(body))
    return f"**{section}:** {' '.join(body.split())}"


def list_items(body: str) -> Iterator[str]:
    """Yield a list item for every `name: text`, with its continuation lines."""
    item = ""
    for line in body.splitlines():
        match = ENTRY.match(line)
        if match and not line.startswith(" "):
            if item:
                yield item
            names = ", ".join(f"`{name.strip()}`" for name in match["name"].split(","))
            item = f"- {names}: {match['text']}"
        else:
            item = f"{item} {line.strip()}".rstrip()
    if item:
        yield item if item.startswith("- ") else f"- {item.strip()}"
