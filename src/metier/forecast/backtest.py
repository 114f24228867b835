"""Rolling-origin cross-validation: every window fits afresh on what came before its cutoff."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError
from metier.forecast.panels.panel import Panel, frame_like, require_length
from metier.forecast.panels.repair import Repairs

if TYPE_CHECKING:
    from metier.forecast.forecaster import ClusterForecaster

Fit = Callable[[Panel], "ClusterForecaster"]


def cutoffs_of(n_steps: int, *, steps: int, n_windows: int, step_size: int, min_length: int) -> list[int]:
    """Index of the first forecast stamp of each window, oldest first.

    Raises:
        InputError: no history before the first cutoff.
    """
    cutoffs = [n_steps - steps - step_size * back for back in reversed(range(n_windows))]
    if cutoffs[0] < min_length:
        raise InputError(
            "cross-validation needs a history before its first cutoff",
            expected=f"at least {min_length} stamps before {n_windows} windows of {steps} steps",
            got=f"{max(cutoffs[0], 0)} stamps",
            next_step="Use fewer windows, a shorter h or step_size, or fewer lags.",
        )
    return cutoffs


def backtest(
    panel: Panel,
    cutoffs: Sequence[int],
    *,
    steps: int,
    level: Sequence[float] | None,
    min_length: int,
    repair: str | Sequence[str],
    fit: Fit,
    progress: Callable[[str, int, int], None],
) -> Any:
    """One frame of forecasts beside the values that came, for every cutoff; see `cross_validation`.

    Args:
        fit: fits a fresh forecaster on the panel before a cutoff.
    """
    _refuse_interpolation(repair)
    parts = []
    for w, cutoff in enumerate(cutoffs):
        progress("cross-validation", w, len(cutoffs))
        past = require_length(panel.until(cutoff), min_length, repair=repair)
        parts.append(_window(panel, past, cutoff, steps, level, fit(past)))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    codes, stamps = columns.pop("codes"), columns.pop("stamps")
    return frame_like(panel, columns, codes=codes, stamps=stamps)


def _refuse_interpolation(repair: str | Sequence[str]) -> None:
    if Repairs.parse(repair).fill == "interpolate":
        raise InputError(
            "cross-validation must not see beyond a cutoff",
            expected="a repair that fills holes from earlier values",
            got="repair='interpolate', which also reads the value after a hole",
            next_step="Pass repair='fill_forward' or 'fill_zero', or mend the frame before.",
        )


def _window(
    panel: Panel,
    past: Panel,
    cutoff: int,
    steps: int,
    level: Sequence[float] | None,
    fitted: ClusterForecaster,
) -> dict[str, NDArray[Any]]:
    """Forecasts of one cutoff beside the values that came, by column; ended series are left out."""
    served = fitted.served_
    rows = np.flatnonzero(np.isin(panel.ids, past.ids))
    exog = np.nan_to_num(panel.exog[rows, cutoff : cutoff + steps])
    actual = panel.values[rows, cutoff : cutoff + steps]
    columns = {
        "codes": np.repeat(rows, steps),
        "stamps": np.broadcast_to(panel.stamps[cutoff : cutoff + steps], actual.shape).ravel(),
        "cutoff": np.full(actual.size, panel.stamps[cutoff - 1]),
        panel.template.target_col: actual.ravel(),
        **{name: column.ravel() for name, column in served.columns(steps, exog, level).items()},
    }
    for name in served.models:
        forecast = served.forecast(served.candidate(name), steps, exog)
        columns[name] = served.scaling.invert(forecast).ravel()
    keep = (~np.isnan(actual) & (past.stop == cutoff)[:, None]).ravel()
    return {name: column[keep] for name, column in columns.items()}
