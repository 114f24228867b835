"""Mixtures of experts: balance sparse routers, audit them, and build small inspectable experts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attachment.builtin_losses import BuiltinLoss as BuiltinLoss
    from .attachment.builtin_losses import builtin_losses as builtin_losses
    from .attachment.callback import BalancingCallback as BalancingCallback
    from .attachment.families import RouterFamily as RouterFamily
    from .attachment.families import router_families as router_families
    from .attachment.handle import Attachment as Attachment
    from .attachment.handle import attach as attach
    from .attachment.handle import set_selection_bias as set_selection_bias
    from .auditing.report import Audit as Audit
    from .auditing.report import RouterAudit as RouterAudit
    from .auditing.run import audit as audit

# One line per module: its path below metier.moe, then the public names that live there. A module directly
# in this folder must not carry the name of a public function: importing it would hide the function.
_MODULES: dict[str, tuple[str, ...]] = {
    "attachment.builtin_losses": ("BuiltinLoss", "builtin_losses"),
    "attachment.callback": ("BalancingCallback",),
    "attachment.families": ("RouterFamily", "router_families"),
    "attachment.handle": ("Attachment", "attach", "set_selection_bias"),
    "auditing.report": ("Audit", "RouterAudit"),
    "auditing.run": ("audit",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a name's module on first use: `import metier.moe` must not load torch (PEP 562)."""
    if name in _HOME:
        try:
            module = importlib.import_module(f"metier.moe.{_HOME[name]}")
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            from metier.core.errors import MissingExtraError

            raise MissingExtraError("torch", "moe") from error
        return getattr(module, name)
    raise AttributeError(f"module 'metier.moe' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
