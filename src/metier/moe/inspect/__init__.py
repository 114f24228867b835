"""Look into experts: who uses them, what they span, what they do to classes; pictures of all that."""

from __future__ import annotations

from metier.core.extras import naming_extras

with naming_extras():
    import torch  # noqa: F401

from .pictures import class_map as class_map, expert_sheet as expert_sheet, load_histogram as load_histogram
from .polysemanticity import (
    Polysemanticity as Polysemanticity,
    class_polysemanticity as class_polysemanticity,
    mass_matched_groups as mass_matched_groups,
    polysemanticity as polysemanticity,
)
from .probing import Probe as Probe, class_information as class_information, sparse_probe as sparse_probe
from .similarity import (
    expert_gram as expert_gram,
    expert_similarity as expert_similarity,
    span_dimension as span_dimension,
)
from .usage import ExpertWatch as ExpertWatch, Usage as Usage, watch as watch

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
