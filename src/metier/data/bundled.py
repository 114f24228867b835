"""The bundled panels: what they are, where they come from, and loading with a check of every byte."""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from metier.core.checks import one_of
from metier.data.intact import file_state, intact_bytes
from metier.data.panel import PanelData

FILES = Path(__file__).parent / "files"
SOURCE = "npm package vega-datasets 3.2.1, data/flights-3m.parquet (U.S. Bureau of Transportation Statistics)"
LICENSE = "package BSD-3-Clause; this file 'other-open' (U.S. DOT reports under 14 CFR Part 234)"
COMMAND = "python -m metier.data.build_flights flights-3m.parquet"
LOCAL_CLOCKS = "stamps are local time of the origin: 2001-04-01 02:00 hardly exists"
ACTUAL_TIMES = "`date` looks like the actual departure, not the schedule (inference)"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledPanel:
    """One bundled panel: its facts, its files with their SHA-256, how it was made, and its traps.

    Args:
        name: key in the registry.
        title: one line.
        shape: (n_series, n_steps).
        freq, seasons, unit: step, lengths of the seasons in steps, unit of the values.
        files: file name -> SHA-256 of its bytes.
        source, license, command: where the numbers come from, their license, how the files are rebuilt.
        traps: what to know before modeling.
    """

    name: str
    title: str
    shape: tuple[int, int]
    freq: str
    seasons: tuple[int, ...]
    unit: str
    files: Mapping[str, str]
    traps: tuple[str, ...]
    source: str = SOURCE
    license: str = LICENSE
    command: str = COMMAND

    @property
    def provenance(self) -> str:
        """Source, license and recipe in one paragraph."""
        return f"{self.title}. Source: {self.source}. License: {self.license}. Made by: {self.command}."

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain values."""
        return {**{key: getattr(self, key) for key in self.__slots__}, "files": dict(self.files)}


_ENTRIES = (
    BundledPanel(
        name="flights_hourly",
        title="Departures per airport and hour, 229 US airports, January to June 2001",
        shape=(229, 4344),
        freq="h",
        seasons=(24, 168),
        unit="departures",
        files={
            "flights_hourly.npy.xz": "4f4e9cf7d8792a07ee37f2cf04ab6aba6a4a756383096d314911b7862a0f3f04",
            "flights_hourly.json": "73e6aade07c0e7c22b066031c1b149de50f24912429e507f13df3596332106aa",
        },
        traps=(
            LOCAL_CLOCKS,
            ACTUAL_TIMES,
            "GST and LWB are all zero in the first 60 % of the hours, ACY has one departure there",
            "daily and weekly cycle; 34.1 % of the hours of the 120 busiest airports are zero",
        ),
    ),
    BundledPanel(
        name="flights_delay",
        title="Mean delay per airport and 8 hours, the 70 US airports with 3 flights in every block, 2001",
        shape=(70, 543),
        freq="8h",
        seasons=(3, 21),
        unit="minutes",
        files={
            "flights_delay.npy.xz": "ecbef686db4cee32f70d34d0590d550d37e235cf7e1794b991a010ee59a03b52",
            "flights_delay.json": "29a18c3799da6f05d3714f2e25bfdf959479878458ffc28565131db717679b33",
        },
        traps=(
            LOCAL_CLOCKS,
            ACTUAL_TIMES,
            "heavy tails: single delays reach -1,116 and 1,688 minutes, unclipped; use huber or pinball",
            "1 % of all delays are below -30, so this is rather the arrival's delay (inference)",
            "means of as few as 3 flights: the noise level differs across airports and parts of the day",
        ),
    ),
    BundledPanel(
        name="flights_routes",
        title="Departures per route and day, the 2,818 US routes with a flight a day on average, 2001",
        shape=(2818, 181),
        freq="D",
        seasons=(7,),
        unit="departures",
        files={
            "flights_routes.npy.xz": "e321d6c73dbef90b6f9c2c6d61153b5f4500c13681b5ccebf0393df00f55bb8d",
            "flights_routes.json": "5c32466fa562a663560154baa540068f88b278251cd2a5759a84c047959b4c8b",
        },
        traps=(
            ACTUAL_TIMES,
            "schedules step up or down on single days, so levels jump",
            "kept by the mean over all 181 days, the newest included",
        ),
    ),
)
registry: Mapping[str, BundledPanel] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def names() -> tuple[str, ...]:
    """Names of the bundled panels.

    Example:
        >>> names()
        ('flights_hourly', 'flights_delay', 'flights_routes')
    """
    return tuple(registry)


def load(name: str, *, folder: str | Path = FILES) -> PanelData:
    """Load a bundled panel after checking the SHA-256 of its files.

    Args:
        name: one of `names()`.
        folder: where the files lie; the package's own by default.

    Returns:
        PanelData, values float64 in the entry's unit.

    Raises:
        InputError: unknown name, or a file is missing or was changed.

    Example:
        >>> panel = load("flights_hourly")
        >>> panel.values.shape, int(panel.values.sum()), panel.season_length
        ((229, 4344), 2999994, 24)
    """
    entry = registry[one_of("name", name, registry)]
    contents = {
        Path(file).suffix: intact_bytes(Path(folder) / file, digest, rebuild=COMMAND)
        for file, digest in entry.files.items()
    }
    sidecar = json.loads(contents[".json"])
    stored = np.load(io.BytesIO(lzma.decompress(contents[".xz"])), allow_pickle=False)
    step = np.timedelta64(sidecar["step_hours"], "h")
    return PanelData(
        name=name,
        ids=tuple(sidecar["ids"]),
        stamps=np.datetime64(sidecar["start"], "ns") + np.arange(stored.shape[1]) * step,
        values=stored / sidecar["divisor"],
        freq=entry.freq,
        seasons=entry.seasons,
        provenance=entry.provenance,
    )


def verify(*, folder: str | Path = FILES) -> dict[str, str]:
    """State of every bundled file: "ok", "missing" or "changed".

    Example:
        >>> set(verify().values())
        {'ok'}
    """
    return {
        file: file_state(Path(folder) / file, digest)
        for entry in _ENTRIES
        for file, digest in entry.files.items()
    }
