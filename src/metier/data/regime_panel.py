"""RegimePanel: a simulated panel that knows the regime of every series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.data.oracle import oracle_gain
from metier.data.panel import PanelData

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegimePanel:
    """Simulated series with their regimes and the splits TRAIN | VAL | TEST, in this order in time.

    Args:
        name: name of the design.
        values: (N, T) float64, T = n_train + n_val + n_test, in the generator's own units.
        labels: (N,) int64, the regime of each series, in 0..n_regimes-1.
        coefficients: (n_regimes, p) autoregressive coefficients, most recent lag first; p = 0 if none.
        profiles: (n_regimes, season_length) expected seasonal pattern; zero columns if there is none.
        n_train, n_val, n_test: number of steps in each part.

    Example:
        >>> from metier.data import simulate_regimes
        >>> panel = simulate_regimes("medium", rng=0)
        >>> panel.values.shape, panel.n_regimes
        ((100, 580), 2)
    """

    name: str
    values: FloatArray
    labels: NDArray[np.int64]
    coefficients: FloatArray
    profiles: FloatArray
    n_train: int
    n_val: int
    n_test: int

    @property
    def n_series(self) -> int:
        """Number of series N."""
        return int(self.values.shape[0])

    @property
    def n_regimes(self) -> int:
        """Number of regimes the design can draw (some may have no series in a small panel)."""
        return int(self.coefficients.shape[0])

    @property
    def shares(self) -> FloatArray:
        """Realized share of the series in each regime, shape (n_regimes,), sums to 1."""
        return np.bincount(self.labels, minlength=self.n_regimes) / self.n_series

    @property
    def season_length(self) -> int:
        """Length of the seasonal pattern in steps; 1 without one."""
        return max(int(self.profiles.shape[1]), 1)

    @property
    def train(self) -> FloatArray:
        """View of the TRAIN part, (N, n_train)."""
        return self.values[:, : self.n_train]

    @property
    def val(self) -> FloatArray:
        """View of the VAL part, (N, n_val)."""
        return self.values[:, self.n_train : self.n_train + self.n_val]

    @property
    def test(self) -> FloatArray:
        """View of the TEST part, (N, n_test)."""
        return self.values[:, self.n_train + self.n_val :]

    def oracle_gain(self, *, lags: int | None = None) -> float:
        """Relative gain of the true partition at the realized shares; see `metier.data.oracle_gain`."""
        return oracle_gain(self.coefficients, self.shares, lags=lags)

    def to_panel(self) -> PanelData:
        """The same series as PanelData, hourly from 2000-01-01, named s0000, s0001, ..."""
        n_series, n_steps = self.values.shape
        width = max(4, len(str(n_series - 1)))
        start = np.datetime64("2000-01-01T00", "ns")
        return PanelData(
            name=f"simulated_{self.name}",
            ids=tuple(f"s{i:0{width}d}" for i in range(n_series)),
            stamps=start + np.arange(n_steps) * np.timedelta64(1, "h"),
            values=self.values,
            freq="h",
            seasons=(self.season_length,),
            provenance="simulated by metier.data",
        )

    def to_dict(self) -> dict[str, Any]:
        """The facts of the design, without the values."""
        return {
            "name": self.name,
            "n_series": self.n_series,
            "n_regimes": self.n_regimes,
            "shares": self.shares.tolist(),
            "coefficients": self.coefficients.tolist(),
            "season_length": self.season_length,
            "n_train": self.n_train,
            "n_val": self.n_val,
            "n_test": self.n_test,
        }
