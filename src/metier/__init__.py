"""metier: divide the work among specialists, measure the division, prove that it pays."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metier import (
        bilevel as bilevel,
        data as data,
        forecast as forecast,
        moe as moe,
        multi_index as multi_index,
        partners as partners,
    )
    from metier.core import (
        Assignment as Assignment,
        Comparison as Comparison,
        Decision as Decision,
        Estimate as Estimate,
        Verdict as Verdict,
        compare_paired as compare_paired,
        information as information,
        judge as judge,
        specialize_or_fall_back as specialize_or_fall_back,
    )

__version__ = "0.1.0"

_CORE = (
    "Assignment",
    "Comparison",
    "Decision",
    "Estimate",
    "Verdict",
    "compare_paired",
    "information",
    "judge",
    "specialize_or_fall_back",
)
_PACKAGES = ("bilevel", "data", "forecast", "moe", "multi_index", "partners")

__all__ = [*_CORE, *_PACKAGES]


def __getattr__(name: str) -> Any:
    """Load core names and families on first use, so that `import metier` stays light (PEP 562)."""
    if name in _CORE:
        return getattr(importlib.import_module("metier.core"), name)
    if name in _PACKAGES:
        return importlib.import_module(f"metier.{name}")
    raise AttributeError(f"module 'metier' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
