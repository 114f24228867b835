"""Routers of the installed transformers that work like one we know but have a name we do not know."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

from .routers import router_families

# To the next line that begins at the margin; a header over several lines closes there with a parenthesis.
_CLASS = re.compile(r"^class (\w*(?:Router|Gate)\w*)\b.*?(?=^[^\s)]|\Z)", re.MULTILINE | re.DOTALL)


def unregistered_routers(folder: str | Path | None = None) -> tuple[str, ...]:
    """Return names of router classes whose forward reads as that of a registered one; nothing is imported.

    Args:
        folder: One folder per model with `modeling_*.py` in it; by default the installed transformers.

    Returns:
        Sorted class names; empty where transformers is not installed.
    """
    forwards = {name: text for name, text in _forwards(_models() if folder is None else Path(folder)) if text}
    registered = router_families()
    known = {text for name, text in forwards.items() if name in registered}
    return tuple(sorted(name for name, text in forwards.items() if text in known and name not in registered))


def _models() -> Path | None:
    spec = importlib.util.find_spec("transformers")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) / "models" if places else None


def _forwards(folder: Path | None) -> list[tuple[str, str | None]]:
    """(class name, its forward without annotations) of every class that is called a router or a gate."""
    classes = []
    for path in sorted(folder.glob("*/modeling_*.py")) if folder is not None else ():
        for match in _CLASS.finditer(path.read_text(encoding="utf-8")):
            try:
                tree = ast.parse(match[0]).body[0]
            except SyntaxError:
                continue
            if isinstance(tree, ast.ClassDef):
                classes.append((match[1], _forward(tree)))
    return classes


def _forward(tree: ast.ClassDef) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "forward":
            node.returns = None
            for argument in node.args.args:
                argument.annotation = None
            return ast.unparse(node)
    return None
