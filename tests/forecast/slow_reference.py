"""The engine's quantities once more, by loops over series and stamps: slow, obvious, for comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.forecast.regression.design import Design
from metier.forecast.regression.gram import GramTable

Floats = NDArray[np.float64]


def random_design(
    seed: int = 0,
    *,
    n_series: int = 6,
    n_steps: int = 60,
    lags: tuple[int, ...] = (1, 2, 3),
    season_length: int | None = None,
    ragged: bool = False,
    n_common: int = 0,
    n_own: int = 0,
) -> Design:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_series, n_steps))
    for t in range(1, n_steps):
        values[:, t] += 0.5 * values[:, t - 1]
    first, stop = np.zeros(n_series, dtype=np.intp), np.full(n_series, n_steps, dtype=np.intp)
    if ragged:
        first[1::2] = rng.integers(1, n_steps // 3, size=len(first[1::2]))
        stop[2::3] = n_steps - rng.integers(1, n_steps // 4, size=len(stop[2::3]))
    t = np.arange(n_steps)
    values[(t < first[:, None]) | (t >= stop[:, None])] = 0.0
    return Design(
        values=values,
        first=first,
        stop=stop,
        lags=lags,
        season_length=season_length,
        common=rng.normal(size=(n_steps, n_common)),
        own=rng.normal(size=(n_series, n_steps, n_own)) if n_own else None,
    )


def naive_row(design: Design, i: int, t: int) -> tuple[list[float], float] | None:
    """Features and target of series i at t, or None where a lag or the target is missing."""
    back = [t - lag for lag in design.lags]
    if t >= design.stop[i] or t < design.first[i] or min(back) < design.first[i]:
        return None
    x = [float(design.values[i, b]) for b in back]
    if design.own is not None:
        x += design.own[i, t].tolist()
    return [*x, *design.common[t].tolist(), 1.0], float(design.values[i, t])


def naive_data(design: Design, i: int, spans: Any) -> tuple[Floats, Floats]:
    """All complete rows of series i in the spans: X (rows, d), y (rows,)."""
    rows = [naive_row(design, i, t) for start, stop in spans for t in range(start, stop)]
    kept = [row for row in rows if row is not None]
    X = np.array([x for x, _ in kept]).reshape(-1, design.n_features)
    return X, np.array([y for _, y in kept])


def naive_recursion(design: Design, i: int, origin: int, steps: int, theta: Floats) -> list[float]:
    """Recursive forecasts of series i from an origin: earlier forecasts stand in for unseen values."""
    seen = {t: float(design.values[i, t]) for t in range(origin)}
    out = []
    for t in range(origin, origin + steps):
        x = [seen[t - lag] for lag in design.lags]
        if design.own is not None:
            x += design.own[i, t].tolist()
        x += [*design.common[t].tolist(), 1.0]
        seen[t] = float(np.dot(x, theta))
        out.append(seen[t])
    return out


def table_of(design: Design, split: int, *folds: Any, active: NDArray[np.bool_] | None = None) -> GramTable:
    """TRAIN up to `split`, all of VAL, then further windows."""
    everyone = np.ones(design.n_series, dtype=bool) if active is None else active
    windows = [((design.max_lag, split),), ((split, design.n_steps),), *folds]
    return GramTable.build(design, windows, active=everyone)


def dense_sums(X: Floats, y: Floats) -> tuple[Floats, Floats, float]:
    return X.T @ X, X.T @ y, float(y @ y)
