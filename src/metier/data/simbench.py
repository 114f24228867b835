"""Load and renewable profiles of the PyPI package simbench (data ODbL): a year in quarters of an hour."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metier.core import InputError, require
from metier.core.checks import one_of
from metier.data.located import FloatArray, data_file
from metier.data.panel import PanelData

FOLDER = "networks/1-complete_data-mixed-all-0-sw"
FILES = {"loads": "LoadProfile.csv", "renewables": "RESProfile.csv"}
SAME_ABOVE = 0.9999


def load_simbench(panel: str = "loads", *, path: str | Path | None = None) -> PanelData:
    """Load simbench's profiles: relative power, 2016, every 15 minutes.

    "loads": active power of consumers, without constant profiles and without those that correlate above
    0.9999 with an earlier one (95 of 96). "renewables": the 42 generation profiles. They are
    constructed profiles, not raw measurements. Local clocks repeat an hour in October; steps are
    counted regularly from the first stamp.

    Args:
        panel: "loads" | "renewables".
        path: LoadProfile.csv or RESProfile.csv (";"-separated); the installed package's own by default.

    Returns:
        PanelData of 35,136 steps for the package's own files.

    Raises:
        InputError: unknown panel, no file at `path`, or not a file of this format.
        MissingExtraError: the package is not installed and no path is given.

    Example:
        >>> load_simbench("renewables").n_series  # doctest: +SKIP
        42
    """
    name = FILES[one_of("panel", panel, FILES)]
    file = data_file(path, package="simbench", inside=f"{FOLDER}/{name}")
    table = require("pandas").read_csv(file, sep=";")
    if "time" not in table.columns:
        raise InputError(
            f"{file.name} must be a profile table of simbench",
            expected='columns separated by ";", the first named time',
            got=", ".join(map(str, table.columns[:3])),
            next_step=f"Pass the package's {name}.",
        )
    ids = [
        key for key in table.columns if key != "time" and (panel == "renewables" or key.endswith("_pload"))
    ]
    values = table[ids].to_numpy(dtype=float).T
    kept = distinct_rows(values) if panel == "loads" else list(range(len(ids)))
    day, clock = str(table["time"].iloc[0]).split(" ")
    first = np.datetime64("-".join(reversed(day.split("."))) + "T" + clock, "ns")
    return PanelData(
        name=f"simbench_{panel}",
        ids=tuple(ids[row].removesuffix("_pload") for row in kept),
        stamps=first + np.arange(values.shape[1]) * np.timedelta64(15, "m"),
        values=values[kept],
        freq="15min",
        seasons=(96, 672),
        provenance=f"PyPI package simbench 1.6.3 (data ODbL), {FOLDER}/{name}; constructed profiles.",
    )


def distinct_rows(values: FloatArray) -> list[int]:
    """Rows that vary and do not correlate above 0.9999 with an earlier row that is kept."""
    varying = np.flatnonzero(values.std(axis=1) > 0)
    correlation = np.atleast_2d(np.corrcoef(values[varying]))
    kept: list[int] = []
    for row in range(varying.size):
        if not (correlation[row, kept] > SAME_ABOVE).any():
            kept.append(row)
    return [int(row) for row in varying[kept]]
