"""When can specialists be learned? Exponents, thresholds and the specialization transition, certified."""

from __future__ import annotations

from .activations import Activation as Activation
from .activations import as_activation as as_activation
from .registry import activation_names as activation_names

__all__ = ["Activation", "activation_names", "as_activation"]
