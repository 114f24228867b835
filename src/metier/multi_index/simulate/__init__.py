"""Simulations that lie beside their theory: AMP, spectral start, online SGD, two-layer students."""

from __future__ import annotations

from .committee_amp import CommitteeRun as CommitteeRun, committee_amp as committee_amp
from .gamp import GampRun as GampRun, gamp as gamp, unexplained as unexplained
from .matching import (
    Baseline as Baseline,
    Specialization as Specialization,
    Spread as Spread,
    random_baseline as random_baseline,
    specialization as specialization,
    spread as spread,
)
from .sgd import SgdRun as SgdRun, online_sgd as online_sgd
from .spectral import SpectralRun as SpectralRun, spectral as spectral, spectral_overlap as spectral_overlap
from .students import StudentRun as StudentRun, train_student as train_student
from .teachers import Teacher as Teacher, plant as plant

__all__ = [
    "Baseline",
    "CommitteeRun",
    "GampRun",
    "SgdRun",
    "Specialization",
    "SpectralRun",
    "Spread",
    "StudentRun",
    "Teacher",
    "committee_amp",
    "gamp",
    "online_sgd",
    "plant",
    "random_baseline",
    "specialization",
    "spectral",
    "spectral_overlap",
    "spread",
    "train_student",
    "unexplained",
]
