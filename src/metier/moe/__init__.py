"""Mixtures of experts: balance sparse routers, audit them, and build small inspectable experts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

# One line per module: its path below metier.moe, then the public names that live there. A module directly
# in this folder must not carry the name of a public function: importing it would hide the function.
_MODULES: dict[str, tuple[str, ...]] = {}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a name's module on first use: `import metier.moe` must not load torch (PEP 562)."""
    if name in _HOME:
        return getattr(importlib.import_module(f"metier.moe.{_HOME[name]}"), name)
    raise AttributeError(f"module 'metier.moe' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
