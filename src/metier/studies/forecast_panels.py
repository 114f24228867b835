"""Study `forecast-panels`: over many panels, how much is lost by not knowing the best candidate in advance?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.data import PanelData

Floats = NDArray[np.float64]
CANDIDATES = ("global", "local", "clustered", "feature", "random")


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelCase:
    """A panel and how it is forecast.

    Args:
        load: makes the panel from a seed (real panels ignore it).
        season: steps per season, for the seasonal naive forecast and the scaled errors.
        lags: lags 1..lags of the forecaster.
        far_lag: one more seasonal lag, or None.
        horizon: steps per origin.
        n_windows, step: origins and their distance in steps; every origin refits.
        max_series: the largest so many series, or None for all.
        max_steps: the newest so many steps, or None for all.
    """

    load: Callable[[int], PanelData]
    season: int
    lags: int
    far_lag: int | None = None
    horizon: int
    n_windows: int = 8
    step: int
    max_series: int | None = None
    max_steps: int | None = None
