"""The regression a panel turns into: lags, known features and their valid rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError

Floats = NDArray[np.float64]
Index = slice | NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Design:
    """Rows `y[i, t] ~ x[i, t]` of a panel on one time grid.

    The columns of `x` are, in this order: lagged values, own known features (exogenous columns of the
    series), common known features (calendar), and the intercept.

    Args:
        values: (N, T) standardized values, zero where the series is not observed; float32 or float64.
        first: (N,) index of the first observed stamp of each series.
        stop: (N,) one past the last observed stamp.
        lags: increasing positive lags, in steps.
        season_length: steps per season; with `horizon` > 1 the seasonal lag stays a whole season back.
        common: (T, C) features shared by all series, without the intercept.
        own: (N, T, E) features of each series, or None.
        horizon: steps ahead that a row predicts from its own lags (1, or h for a direct model).
    """

    values: NDArray[np.floating]
    first: NDArray[np.intp]
    stop: NDArray[np.intp]
    lags: tuple[int, ...]
    season_length: int | None
    common: Floats
    own: Floats | None = None
    horizon: int = 1

    @property
    def n_series(self) -> int:
        """Number of series N."""
        return int(self.values.shape[0])

    @property
    def n_steps(self) -> int:
        """Length T of the time grid."""
        return int(self.values.shape[1])

    @property
    def n_own(self) -> int:
        """Number of own known features E."""
        return 0 if self.own is None else int(self.own.shape[2])

    @property
    def n_features(self) -> int:
        """Number of columns d, the intercept included."""
        return len(self.lags) + self.n_own + int(self.common.shape[1]) + 1

    @property
    def max_lag(self) -> int:
        """The longest lag, in steps."""
        return self.lags[-1] if self.lags else 0

    def at_horizon(self, horizon: int) -> Design:
        """The direct design that predicts `horizon` steps ahead of the last value it sees.

        Every lag moves back by `horizon - 1`; the seasonal lag moves to the nearest whole season seen.
        """
        base = [lag for lag in self.lags if lag != self.season_length]
        shifted = {lag + horizon - self.horizon for lag in base}
        if self.season_length in self.lags and self.season_length is not None:
            shifted.add(self.season_length * -(-horizon // self.season_length))
        return replace(self, lags=tuple(sorted(shifted)), horizon=horizon)

    def take(self, series: Index) -> Design:
        """The same design on some of the series."""
        own = None if self.own is None else self.own[series]
        return replace(
            self, values=self.values[series], first=self.first[series], stop=self.stop[series], own=own
        )

    def valid(self, series: Index, start: int, stop: int) -> NDArray[np.bool_]:
        """Which rows (n, stop - start) have a target and every lag observed."""
        t = np.arange(start, stop)
        begin = self.first[series][:, None] + self.max_lag
        return (t >= begin) & (t < self.stop[series][:, None])

    def rows(self, series: Index, start: int, stop: int) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Features (n, rows, d), targets (n, rows) and their validity; invalid rows are zero."""
        values = self.values[series]
        valid = self.valid(series, start, stop)
        X = np.empty((values.shape[0], stop - start, self.n_features))
        for j, lag in enumerate(self.lags):
            X[:, :, j] = shifted_view(values, start - lag, stop - lag)
        j = len(self.lags)
        if self.own is not None:
            X[:, :, j : j + self.n_own] = self.own[series, start:stop]
            j += self.n_own
        X[:, :, j:-1] = self.common[start:stop]
        X[:, :, -1] = 1.0
        y = np.where(valid, values[:, start:stop], 0.0)
        X *= valid[:, :, None]
        return X, y, valid


def shifted_view(values: NDArray[np.floating], start: int, stop: int) -> NDArray[np.floating]:
    """Columns start..stop of values, with zeros where the range leaves the grid on the left."""
    if start >= 0:
        return values[:, start:stop]
    out = np.zeros((values.shape[0], stop - start), dtype=values.dtype)
    if stop > 0:
        out[:, -stop:] = values[:, :stop]
    return out


MOST_LAGS = 10_000


def lag_set(lags: int | tuple[int, ...], season_length: int | None) -> tuple[int, ...]:
    """Lags 1..p (or the given ones), and the seasonal lag when it is not among them."""
    count = lags if isinstance(lags, int) else len(lags)
    if count > MOST_LAGS:
        raise InputError(
            "every lag is a column of the regression",
            expected=f"at most {MOST_LAGS} lags",
            got=f"lags={lags}" if isinstance(lags, int) else f"{count} lags",
            next_step="Pass a few lags and the season: lags=24, season_length=168, for example.",
        )
    base = set(range(1, lags + 1)) if isinstance(lags, int) else set(lags)
    if season_length is not None and season_length > 1:
        base.add(season_length)
    return tuple(sorted(base))
