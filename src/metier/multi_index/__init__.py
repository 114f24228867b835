"""When can specialists be learned? Exponents, thresholds and the specialization transition, certified."""

from __future__ import annotations

from . import simulate as simulate
from .activations import Activation as Activation, as_activation as as_activation
from .asymptotics import (
    Asymptotics as Asymptotics,
    LocalExponent as LocalExponent,
    RecoveryCurve as RecoveryCurve,
    asymptotics as asymptotics,
    local_exponent as local_exponent,
    recovery_curve as recovery_curve,
)
from .certify.coefficients import Coefficient as Coefficient
from .committee import (
    Committee as Committee,
    committee as committee,
    committee_thresholds as committee_thresholds,
)
from .exponents import (
    Exponents as Exponents,
    TableRow as TableRow,
    exponents as exponents,
    nse_table as nse_table,
)
from .fixed_points import FixedPointCurve as FixedPointCurve
from .hierarchical import Hierarchical as Hierarchical, hierarchical as hierarchical
from .overlap import OverlapFunction as OverlapFunction
from .phase_diagram import PhaseDiagram as PhaseDiagram, phase_diagram as phase_diagram
from .profile import AtLeast as AtLeast, Certificate as Certificate
from .registry import activation_names as activation_names
from .step_activation import step_activation as step_activation
from .thresholds import Thresholds as Thresholds, thresholds as thresholds

__all__ = [
    "Activation",
    "Asymptotics",
    "AtLeast",
    "Certificate",
    "Coefficient",
    "Committee",
    "Exponents",
    "FixedPointCurve",
    "Hierarchical",
    "LocalExponent",
    "OverlapFunction",
    "PhaseDiagram",
    "RecoveryCurve",
    "TableRow",
    "Thresholds",
    "activation_names",
    "as_activation",
    "asymptotics",
    "committee",
    "committee_thresholds",
    "exponents",
    "hierarchical",
    "local_exponent",
    "nse_table",
    "phase_diagram",
    "recovery_curve",
    "simulate",
    "step_activation",
    "thresholds",
]
