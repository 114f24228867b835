"""PanelData: a rectangular panel of series with names, time stamps and provenance."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError, require
from metier.core.checks import one_of, positive_int

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PanelData:
    """N series on one common time axis; NaN marks a value that was not observed.

    Args:
        name: name of the panel.
        ids: N distinct names of the series, in the order of the rows.
        stamps: (T,) datetime64[ns], strictly increasing.
        values: (N, T) float64; made read-only.
        freq: step of the time axis in pandas' words: "h", "D", "MS", "5min", ...
        seasons: lengths of the known seasons in steps, shortest first; (1,) without one.
        provenance: where the numbers come from and how they were made, in one paragraph.

    Raises:
        InputError: shapes disagree, names repeat, or stamps do not increase.

    Example:
        >>> from metier.data import load
        >>> panel = load("flights_hourly").top(2)
        >>> panel.ids, panel.values.shape
        (('ORD', 'DFW'), (2, 4344))
        >>> panel.to_frame().head(2).columns.tolist()
        ['unique_id', 'ds', 'y']
    """

    name: str
    ids: tuple[str, ...]
    stamps: NDArray[np.datetime64]
    values: FloatArray
    freq: str
    seasons: tuple[int, ...] = (1,)
    provenance: str = ""

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float64)
        stamps = np.array(self.stamps, dtype="datetime64[ns]")
        if values.shape != (len(self.ids), stamps.size):
            raise InputError(
                f"values of panel {self.name!r} must have one row per series and one column per stamp",
                expected=f"shape {(len(self.ids), stamps.size)}",
                got=f"shape {values.shape}",
                next_step="Give every row a name and every column a stamp.",
            )
        _check_axes(self.name, self.ids, stamps)
        for key, array in (("values", values), ("stamps", stamps)):
            array.setflags(write=False)
            object.__setattr__(self, key, array)
        object.__setattr__(self, "ids", tuple(self.ids))

    @property
    def n_series(self) -> int:
        """Number of series N."""
        return len(self.ids)

    @property
    def n_steps(self) -> int:
        """Number of time steps T."""
        return self.stamps.size

    @property
    def season_length(self) -> int:
        """Length of the shortest season in steps; 1 without one."""
        return self.seasons[0]

    def select(self, ids: Iterable[str]) -> PanelData:
        """The named series, in the order asked for; InputError if one is unknown or asked for twice."""
        rows = {key: row for row, key in enumerate(self.ids)}
        wanted = tuple(ids)
        for key in wanted:
            if key not in rows:
                raise _unknown_series(self, key)
        return self._rows([rows[key] for key in wanted])

    def head(self, n: int = 5) -> PanelData:
        """The first n series (all of them if there are fewer)."""
        return self._rows(list(range(self.n_series))[: positive_int("n", n)])

    def top(self, n: int) -> PanelData:
        """The n series with the largest totals, largest first; ties keep the panel's order."""
        order = np.argsort(-np.nansum(self.values, axis=1), kind="stable")
        return self._rows(order[: positive_int("n", n)].tolist())

    def steps(self, start: int | None = None, stop: int | None = None) -> PanelData:
        """The time steps start..stop-1 of all series, with the meaning of a Python slice."""
        window = slice(start, stop)
        return replace(self, stamps=self.stamps[window], values=self.values[:, window])

    def to_frame(self, backend: str = "pandas") -> Any:
        """Long frame with columns unique_id, ds, y: series by series, in time; NaN rows are left out.

        Args:
            backend: "pandas" | "polars".

        Returns:
            A frame of that library, n_series * n_steps rows less the missing values.

        Raises:
            InputError: unknown backend.
            MissingExtraError: the library is not installed.
        """
        one_of("backend", backend, ("pandas", "polars"))
        library = require(backend)
        seen = ~np.isnan(self.values).ravel()
        columns = {
            "unique_id": np.repeat(np.array(self.ids, dtype=object), self.n_steps)[seen],
            "ds": np.tile(self.stamps, self.n_series)[seen],
            "y": self.values.ravel()[seen],
        }
        if backend == "polars":
            return library.DataFrame(columns, schema_overrides={"unique_id": library.String})
        return library.DataFrame(columns)

    def to_dict(self) -> dict[str, Any]:
        """The facts of the panel, without the values."""
        return {
            "name": self.name,
            "n_series": self.n_series,
            "n_steps": self.n_steps,
            "first": str(self.stamps[0]),
            "last": str(self.stamps[-1]),
            "freq": self.freq,
            "seasons": list(self.seasons),
            "missing": int(np.isnan(self.values).sum()),
            "provenance": self.provenance,
        }

    def summary(self) -> str:
        """One line: size, time span, share of zeros and of missing values."""
        zeros, missing = np.mean(self.values == 0), np.isnan(self.values).mean()
        return (
            f"{self.name}: {self.n_series} series x {self.n_steps} steps ({self.freq}), "
            f"{np.datetime_as_string(self.stamps[0], 'm')} to {np.datetime_as_string(self.stamps[-1], 'm')}, "
            f"{zeros:.1%} zeros, {missing:.1%} missing"
        )

    def _rows(self, rows: list[int]) -> PanelData:
        return replace(self, ids=tuple(self.ids[row] for row in rows), values=self.values[rows])


def _check_axes(name: str, ids: tuple[str, ...], stamps: NDArray[np.datetime64]) -> None:
    if len(set(ids)) != len(ids):
        twice = next(key for row, key in enumerate(ids) if key in ids[:row])
        raise InputError(
            f"series of panel {name!r} must have distinct names",
            expected="every name once",
            got=f"{twice!r} more than once",
            next_step="Rename or aggregate the repeated series.",
        )
    steps = np.diff(stamps)
    if np.isnat(stamps).any() or not (steps > np.timedelta64(0)).all():
        at = next((i for i, step in enumerate(steps) if not step > np.timedelta64(0)), 0)
        raise InputError(
            f"stamps of panel {name!r} must increase strictly",
            expected="each stamp later than the one before",
            got=f"{stamps[at : at + 2].astype(str).tolist()} at positions {at} and {at + 1}",
            next_step="Sort the time axis and drop repeated stamps.",
        )


def _unknown_series(panel: PanelData, key: str) -> InputError:
    near = difflib.get_close_matches(str(key), panel.ids, n=3, cutoff=0.4)
    return InputError(
        f"series must belong to panel {panel.name!r}",
        expected=f"one of its {panel.n_series} ids",
        got=repr(key),
        next_step=f"Did you mean {' or '.join(map(repr, near))}?" if near else "See panel.ids.",
    )
