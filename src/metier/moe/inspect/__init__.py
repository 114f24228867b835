"""Look into experts: who uses them, what they span, what they do to classes; pictures of all that."""

from __future__ import annotations

from metier.core.extras import naming_extras

with naming_extras():
    import torch  # noqa: F401

from .information import class_information as class_information
from .pictures import class_map as class_map
from .pictures import expert_sheet as expert_sheet
from .pictures import load_histogram as load_histogram
from .polysemanticity import Polysemanticity as Polysemanticity
from .polysemanticity import class_polysemanticity as class_polysemanticity
from .polysemanticity import mass_matched_groups as mass_matched_groups
from .polysemanticity import polysemanticity as polysemanticity
from .probing import Probe as Probe
from .probing import sparse_probe as sparse_probe
from .similarity import expert_gram as expert_gram
from .similarity import expert_similarity as expert_similarity
from .similarity import span_dimension as span_dimension
from .usage import ExpertWatch as ExpertWatch
from .usage import Usage as Usage
from .usage import watch as watch

__all__ = [
    "ExpertWatch",
    "Polysemanticity",
    "Probe",
    "Usage",
    "class_information",
    "class_map",
    "class_polysemanticity",
    "expert_gram",
    "expert_sheet",
    "expert_similarity",
    "load_histogram",
    "mass_matched_groups",
    "polysemanticity",
    "span_dimension",
    "sparse_probe",
    "watch",
]
