"""Factorized forms of the expert tensor, all under one contract."""

from __future__ import annotations

from .base import Form as Form, Rank as Rank, Shape as Shape
from .cp import CP as CP
from .mxd import MxD as MxD
from .ring import TensorRing as TensorRing, TensorTrain as TensorTrain
from .tucker import Tucker as Tucker

FORMS: dict[str, type[Form]] = {form.name: form for form in (CP, TensorRing, TensorTrain, Tucker, MxD)}
"""Forms by name."""

__all__ = ["CP", "FORMS", "Form", "MxD", "Rank", "Shape", "TensorRing", "TensorTrain", "Tucker"]
