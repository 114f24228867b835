"""metier: divide the work among specialists, measure the division, prove that it pays."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metier import bilevel as bilevel
    from metier import data as data
    from metier import forecast as forecast
    from metier import moe as moe
    from metier import multi_index as multi_index
    from metier import partners as partners
    from metier.core import Assignment as Assignment
    from metier.core import Comparison as Comparison
    from metier.core import Decision as Decision
    from metier.core import Estimate as Estimate
    from metier.core import Verdict as Verdict
    from metier.core import compare_paired as compare_paired
    from metier.core import information as information
    from metier.core import judge as judge
    from metier.core import specialize_or_fall_back as specialize_or_fall_back

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
