"""A panel from parquet files, read one file at a time: what is held is the panel, never its long frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import InputError, require
from metier.forecast.panels.align import settle_frequency, to_grid
from metier.forecast.panels.frames import FrameTemplate, factorize, read_table, require_three_columns
from metier.forecast.panels.frequency import Frequency
from metier.forecast.panels.panel import Panel
from metier.forecast.panels.repair import Grid, Repairs, mend, named

Array = NDArray[Any]
SUFFIX = ".parquet"


def is_path(source: Any) -> bool:
    """Whether `source` names a file or a folder rather than being a frame."""
    return isinstance(source, (str, os.PathLike))


def panel_from_parquet(
    path: str | os.PathLike[str],
    *,
    id_col: str = "unique_id",
    time_col: str = "ds",
    target_col: str = "y",
    freq: str | int | None = None,
    repair: str | Sequence[str] = (),
    min_length: int = 1,
) -> Panel:
    """Read a parquet file, or a folder of them, into a panel.

    Each file holds whole series: the rows of one series lie in one file, in any order. Files may cover
    different stamps. A float32 target stays float32 in `Panel.values`, which halves the memory. The
    frequency is inferred from the first file and checked on all. Frames that come out are pandas.

    Args:
        path: a file, or a folder whose `*.parquet` files are read, subfolders included, in order of name.
        id_col, time_col, target_col, freq, repair, min_length: as in `panel_from_frame`.

    Raises:
        InputError: no such files, files of different columns, a series spread over files, and all errors of
            `panel_from_frame`.

    Example:
        >>> import tempfile, polars as pl
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in "ba":
        ...     rows = pl.DataFrame({"unique_id": [name] * 2, "ds": [1, 2], "y": [1.0, 2.0]})
        ...     rows.write_parquet(folder / f"{name}.parquet")
        >>> panel_from_parquet(folder).ids.tolist()
        ['a', 'b']
    """
    require_three_columns(id_col, time_col, target_col)
    repairs = Repairs.parse(repair)
    reader = _Reader(columns=(id_col, time_col, target_col), freq=freq, repairs=repairs)
    files = parquet_files(path)
    parts = [reader.read(file) for file in files]
    _refuse_split_series(parts, files)
    assert reader.frequency is not None
    assert reader.template is not None
    grid = mend(_joined(parts, reader.frequency), repairs, min_length=min_length)
    return Panel(
        ids=grid.ids,
        stamps=grid.stamps,
        values=grid.values,
        first=grid.first,
        stop=grid.stop,
        exog=grid.exog,
        exog_names=grid.exog_names,
        freq=reader.frequency,
        template=reader.template,
    )


def parquet_files(path: str | os.PathLike[str]) -> list[Path]:
    """The parquet files that `path` names, in order of name."""
    source = Path(path)
    files = sorted(source.rglob(f"*{SUFFIX}")) if source.is_dir() else [source]
    if not files or not files[0].is_file() or files[0].suffix != SUFFIX:
        found = (
            "a folder without them" if source.is_dir() else "nothing" if not source.exists() else source.name
        )
        raise InputError(
            "a path must name parquet files",
            expected=f"a file NAME{SUFFIX}, or a folder of them",
            got=f"{found} at {str(path)!r}",
            next_step="Check the path, or read the data into a frame and pass that.",
        )
    return files


@dataclass(slots=True)
class _Reader:
    """Reads files one by one; the first one settles columns, types, frequency and output frames."""

    columns: tuple[str, str, str]
    freq: str | int | None
    repairs: Repairs
    frequency: Frequency | None = None
    template: FrameTemplate | None = None
    schema: Any = None

    def read(self, file: Path) -> Grid:
        """The series of one file on their own grid."""
        id_col, time_col, target_col = self.columns
        names = {"id_col": id_col, "time_col": time_col, "target_col": target_col}
        rows = require("pyarrow.parquet").read_table(file)
        self._settle_schema(rows, file)
        try:
            table = read_table(rows, **names)
            codes, ids = factorize(table.ids)
            if self.frequency is None or self.template is None:
                self.frequency = settle_frequency(self.freq, table.stamps, codes)
                self.template = read_table(rows.slice(0, 1).to_pandas(), **names).template
            grid = to_grid(table, codes, ids, self.frequency, self.repairs)
        except InputError as error:
            error.add_note(f"in {file}")
            raise
        if str(rows.schema.field(target_col).type) == "float":
            return replace(grid, values=grid.values.astype(np.float32))
        return grid

    def _settle_schema(self, rows: Any, file: Path) -> None:
        schema = {field.name: str(field.type) for field in rows.schema}
        self.schema = schema if self.schema is None else self.schema
        if schema != self.schema:
            raise InputError(
                "all files of a panel have the same columns and types",
                expected=f"{self.schema} as in the first file",
                got=f"{schema} in {file.name!r}",
                next_step="Write the files alike, or read them into one frame.",
            )


def _refuse_split_series(parts: Sequence[Grid], files: Sequence[Path]) -> None:
    owner: dict[Any, int] = {}
    for place, part in enumerate(parts):
        for label in part.ids:
            first = owner.setdefault(label, place)
            if first != place:
                raise InputError(
                    "each file holds whole series",
                    expected="every series in one file",
                    got=f"series {label!r} in {files[first].name!r} and {files[place].name!r}",
                    next_step="Write each series into one file, or read the files into one frame.",
                )


def _joined(parts: list[Grid], freq: Frequency) -> Grid:
    """All series on one grid, sorted by id; `parts` is emptied on the way, so that memory stays level."""
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    place = np.empty(len(ids), dtype=np.intp)
    place[order] = np.arange(len(ids))
    out = _blank(parts, ids[order], freq)
    parts.reverse()
    done = 0
    while parts:
        part = parts.pop()
        rows = place[done : done + len(part.ids)]
        done += len(part.ids)
        columns = _columns(part, out.stamps[0], freq)
        out.values[rows, columns] = part.values
        out.exog[rows, columns] = part.exog
        if out.present.flags.writeable:
            out.present[rows, columns] = part.present
    return out


def _blank(parts: Sequence[Grid], ids: Array, freq: Frequency) -> Grid:
    """The common grid without values; `present` is a read-only True where every file covers all stamps."""
    stamps = freq.grid(min(part.stamps[0] for part in parts), max(part.stamps[-1] for part in parts))
    shape, names = (len(ids), len(stamps)), parts[0].exog_names
    whole = all(len(part.stamps) == len(stamps) and part.present.all() for part in parts)
    return Grid(
        ids=ids,
        stamps=stamps,
        values=np.full(shape, np.nan, dtype=parts[0].values.dtype),
        exog=np.full((*shape, len(names)), np.nan),
        exog_names=names,
        present=np.broadcast_to(np.True_, shape) if whole else np.zeros(shape, dtype=bool),
    )


def _columns(part: Grid, origin: Any, freq: Frequency) -> slice:
    index, on_grid = freq.index_of(part.stamps[:1], origin)
    if not on_grid[0]:
        raise InputError(
            f"all files lie on one grid of frequency {freq.name!r}",
            expected=f"whole steps from {origin}",
            got=f"{part.stamps[0]} in {named(part.ids, np.ones(len(part.ids), dtype=bool))}",
            next_step="Pass the right freq, or round the stamps.",
        )
    return slice(int(index[0]), int(index[0]) + len(part.stamps))
