"""Where weak recovery starts to follow its asymptotic law."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .asymptotics import weak_recovery_values
from .channels import Array
from .kernels import SMALLEST_RATE

if TYPE_CHECKING:
    from .exponent_results import Exponents

WITHIN = 0.1
DECADES = (2.0, -12.0)
PER_DECADE = 8
BISECTIONS = 24


def onset_snr(found: Exponents) -> float:
    """Return the largest snr below which |alpha_WR / (beta*!/(c^2 snr^beta*)) - 1| <= 0.1 throughout.

    The grid has 8 points a decade from 1e2 to 1e-12; the crossing is bisected to 1e-6. nan where beta* is no
    known whole number, where c_{1,1} is not 0 (weak recovery is trivial), or where the law is not reached
    before floats end.
    """
    constant = found.constant
    if constant is None or not constant.mid or found.coefficient(1, 1).zero is not True:
        return math.nan
    beta = constant.power
    law = math.factorial(beta) / constant.mid**2

    def off(snrs: Array) -> NDArray[np.bool_]:
        values, _ = weak_recovery_values(found.activation, snrs)
        return np.asarray(np.abs(values * snrs**beta / law - 1.0) > WITHIN)

    start, end = DECADES
    grid = np.logspace(start, end, round((start - end) * PER_DECADE) + 1)
    # F'(0) ~ snr^beta / law sinks below what floats resolve.
    grid = grid[grid**beta / law > 100.0 * SMALLEST_RATE]
    missed = np.flatnonzero(off(grid))
    if missed.size == 0:
        return float(grid[0])
    if missed[-1] == grid.size - 1:
        return math.nan
    high, low = float(grid[missed[-1]]), float(grid[missed[-1] + 1])
    for _ in range(BISECTIONS):
        middle = math.sqrt(high * low)
        if off(np.array([middle]))[0]:
            high = middle
        else:
            low = middle
    return low
