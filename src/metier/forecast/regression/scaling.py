"""Scale each series by what its TRAIN part shows, so that one model can serve many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metier.forecast.regression.threads import chunks, over_blocks

Floats = NDArray[np.float64]

CONSTANT = 1e-9
"""A series whose scale is below this share of its level (or below this, at level zero) is constant."""

MANY_VALUES = 100_000_000
"""Values beyond which standardized panels are kept in float32; sums stay in float64."""

NORMAL_MAD = 1.4826022185056018
"""1 / Phi^-1(3/4): makes the median absolute deviation estimate a Gaussian standard deviation."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scaling:
    """y = center + scale * standardized, per series.

    Args:
        center: (N,) in the unit of the target.
        scale: (N,) in the unit of the target; 1 for constant series.
        constant: (N,) whether the TRAIN part does not vary; such series are served by the global model.
    """

    center: Floats
    scale: Floats
    constant: NDArray[np.bool_]

    def apply(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Standardize (N, T) values; unobserved entries become zero.

        Computed in float64, stored in float32 beyond `MANY_VALUES` values.
        """
        out = np.empty(values.shape, dtype=np.float32 if values.size > MANY_VALUES else np.float64)

        def standardize(part: slice) -> None:
            scaled = (values[part] - self.center[part, None]) / self.scale[part, None]
            out[part] = np.nan_to_num(scaled, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)

        over_blocks(standardize, chunks(len(values)))
        return out

    def invert(self, standardized: Floats, series: slice | NDArray[np.intp] = slice(None)) -> Floats:
        """Back to the unit of the target; the first axis runs over `series`.

        A constant series has no scale, so that every forecast and bound of it is its level.
        """
        shape = (-1,) + (1,) * (standardized.ndim - 1)
        scale = np.where(self.constant, 0.0, self.scale)[series]
        return self.center[series].reshape(shape) + scale.reshape(shape) * standardized


def fit_scaling(values: NDArray[np.floating], stop: int, *, kind: str = "standard") -> Scaling:
    """Center and scale of the observed values before index `stop`.

    Args:
        values: (N, T), NaN where not observed.
        stop: end of TRAIN; later values are not looked at.
        kind: "standard" (mean and standard deviation), "robust" (median and scaled median absolute
            deviation), or "mean" (divide by the mean of a non-negative series, no centering).
    """
    parts = over_blocks(lambda part: _moments(values[part, :stop], kind), chunks(len(values)))
    center, spread = (np.concatenate([part[i] for part in parts]) for i in range(2))
    constant = spread <= CONSTANT * np.maximum(np.abs(center), CONSTANT)
    if kind == "mean":
        scale = np.where(constant | (center <= 0), 1.0, center)
        return Scaling(center=np.zeros_like(center), scale=scale, constant=constant)
    return Scaling(center=center, scale=np.where(constant, 1.0, spread), constant=constant)


def _moments(train: NDArray[np.floating], kind: str) -> tuple[Floats, Floats]:
    """Center and spread of some series; zero where nothing is observed."""
    train = np.asarray(train, dtype=np.float64)
    observed = ~np.isnan(train).all(axis=1)
    center, spread = np.zeros(len(train)), np.zeros(len(train))
    seen = train[observed]
    if kind == "robust":
        center[observed] = np.nanmedian(seen, axis=1)
        spread[observed] = NORMAL_MAD * np.nanmedian(np.abs(seen - center[observed, None]), axis=1)
        flat = observed & (spread == 0)
        if flat.any():
            spread[flat] = np.nanstd(train[flat], axis=1)
    else:
        center[observed] = np.nanmean(seen, axis=1)
        spread[observed] = np.nanstd(seen, axis=1)
    return center, spread


RARE = 0.1
"""Share of steps with a change of value below which few changes count as barely varying."""


def barely_varies(values: Floats, stop: int, *, changes: int) -> NDArray[np.bool_]:
    """(N,) series that change their value in fewer than `changes` steps, and in few steps, before `stop`.

    A standard deviation from a handful of events is no scale: once such a series wakes up, its squared errors
    count hundreds of standard deviations and drown those of all others (measured on the flights panel, where
    two airports with eight departures in TRAIN decided the whole gate). Our choice of `changes` is the number
    of coefficients.
    """
    steps = np.diff(values[:, :stop], axis=1)
    seen = ~np.isnan(steps)
    moved = ((steps != 0) & seen).sum(axis=1)
    return np.asarray((moved < changes) & (moved < RARE * seen.sum(axis=1)))
