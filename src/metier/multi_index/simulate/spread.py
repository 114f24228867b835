"""Mean and spread over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, standard deviation over seeds, standard error of the mean, and how many seeds.

    Example:
        >>> print(spread(np.array([1.0, 2.0, 3.0])))
        2.000 (sd 1.000, se 0.577, 3 seeds)
    """

    mean: float
    sd: float
    stderr: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} (sd {self.sd:.3f}, se {self.stderr:.3f}, {self.n} seeds)"


def spread(values: NDArray[np.float64]) -> Spread:
    """Return the mean of one number per seed with its finite-size spread; nan spread for a single seed."""
    n = int(values.size)
    sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
    return Spread(float(np.mean(values)), sd, sd / math.sqrt(n), n)
