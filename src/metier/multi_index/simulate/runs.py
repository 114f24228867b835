"""What runs on committees and hierarchies have in common: one `Specialization` per seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .matching import Specialization
from .spread import Spread, spread

Floats = NDArray[np.float64]


class SpecializedRun:
    """The numbers per seed of a run that holds `specializations`."""

    __slots__ = ()

    specializations: tuple[Specialization, ...]

    @property
    def index(self) -> Floats:
        """Specialization index per seed."""
        return np.array([found.index for found in self.specializations])

    @property
    def excess(self) -> Floats:
        """Index per seed above the mean of random rotations of the same span: telling units apart."""
        return np.array([found.index - found.rotated.mean for found in self.specializations])

    @property
    def subspace_error(self) -> Floats:
        """Subspace error per seed."""
        return np.array([found.subspace_error for found in self.specializations])

    @property
    def recovered(self) -> Floats:
        """1 - subspace error per seed."""
        return 1.0 - self.subspace_error

    @property
    def spread(self) -> Spread:
        """Mean and spread of the index."""
        return spread(self.index)
