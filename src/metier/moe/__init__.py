"""Mixtures of experts: balance sparse routers, audit them, and build small inspectable experts."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any


def _homes() -> dict[str, str | None]:
    """Module of every public name, as the stub beside this file imports them; None for a module itself."""
    # The module `ast` would cost more time than the reading: a compiler flag gives the same tree.
    tree: Any = compile(pkgutil.get_data(__name__, "__init__.pyi") or b"", "__init__.pyi", "exec", 1 << 10)
    return {alias.name: node.module for node in tree.body[1:] for alias in node.names}


_HOMES = _homes()
# A module directly in this folder must not carry the name of a public function: importing it would hide it.
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Load a name's module on first use: `import metier.moe` must not load torch (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metier.moe' has no attribute {name!r}; it has {', '.join(__all__)}")
    from metier.core.extras import naming_extras

    with naming_extras():
        module = importlib.import_module(f"metier.moe.{_HOMES[name] or name}")
    globals()[name] = found = module if _HOMES[name] is None else getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
