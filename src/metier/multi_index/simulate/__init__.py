"""Simulations that lie beside their theory: AMP, spectral start, online SGD, two-layer students."""

from __future__ import annotations

from .committee_amp import CommitteeRun as CommitteeRun
from .committee_amp import committee_amp as committee_amp
from .gamp import GampRun as GampRun
from .gamp import gamp as gamp
from .gamp import unexplained as unexplained
from .matching import Baseline as Baseline
from .matching import Specialization as Specialization
from .matching import random_baseline as random_baseline
from .matching import specialization as specialization
from .sgd import SgdRun as SgdRun
from .sgd import online_sgd as online_sgd
from .spectral import SpectralRun as SpectralRun
from .spectral import spectral as spectral
from .spectral import spectral_overlap as spectral_overlap
from .spread import Spread as Spread
from .spread import spread as spread
from .students import StudentRun as StudentRun
from .students import train_student as train_student
from .teachers import Teacher as Teacher
from .teachers import plant as plant

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
