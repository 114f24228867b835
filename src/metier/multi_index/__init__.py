"""When can specialists be learned? Exponents, thresholds and the specialization transition, certified."""

from __future__ import annotations

from .activations import Activation as Activation
from .activations import as_activation as as_activation
from .certify.coefficient import Coefficient as Coefficient
from .exponents import AtLeast as AtLeast
from .exponents import Certificate as Certificate
from .exponents import Exponents as Exponents
from .exponents import TableRow as TableRow
from .exponents import exponents as exponents
from .exponents import nse_table as nse_table
from .registry import activation_names as activation_names
from .step_activation import step_activation as step_activation

__all__ = [
    "Activation",
    "AtLeast",
    "Certificate",
    "Coefficient",
    "Exponents",
    "TableRow",
    "activation_names",
    "as_activation",
    "exponents",
    "nse_table",
    "step_activation",
]
