"""The append-only journal of a run: one JSON line per finished cell or logged metric."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from metier.core.errors import InputError

JOURNAL_VERSION = 2


def to_json_value(value: Any, *, what: str) -> Any:
    """Return `value` as it reads back from JSON, so that fresh and resumed runs see the same thing.

    NumPy scalars and arrays become numbers and lists, tuples become lists, keys become text.

    Raises:
        InputError: the value holds NaN, an infinity, or something JSON cannot hold.
    """
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=_plain))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{what} must be JSON with finite numbers",
            expected="dicts, lists, text, Booleans, finite numbers and None",
            got=str(error),
            next_step="Return plain values, and None where a number is undefined.",
        ) from None


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"an object of type {type(value).__name__}")


class Journal:
    """Reads and appends the lines of `metrics.jsonl`; every append is flushed to disk before it returns.

    Every line ends with a checksum of the rest of it, so that no altered number is taken for a result. A
    process killed while appending leaves at most one torn line at the end, which opening drops.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self.dropped_torn_line = False
        if path.exists():
            self._read()

    def _read(self) -> None:
        raw = self.path.read_bytes()
        position = 0
        for number, line in enumerate(_split_lines(raw), start=1):
            record = _parse(line)
            if record is None:
                if position + len(line) == len(raw):
                    self._drop_from(position)
                    return
                raise self._damaged(number)
            if record.get("v") != JOURNAL_VERSION:
                raise self._wrong_version(number, record.get("v"))
            self.lines.append(record)
            position += len(line)

    def _drop_from(self, position: int) -> None:
        with self.path.open("r+b") as handle:
            handle.truncate(position)
            os.fsync(handle.fileno())
        self.dropped_torn_line = True

    def append(self, record: dict[str, Any]) -> None:
        """Append one line and wait until it is on disk."""
        record = {"v": JOURNAL_VERSION, **record}
        text = _text({**record, "crc": _checksum(record)}) + "\n"
        size = self.path.stat().st_size if self.path.exists() else 0
        with self.path.open("ab", buffering=0) as handle:
            try:
                _write_all(handle.fileno(), text.encode())
                os.fsync(handle.fileno())
            except OSError:
                # A full disk may have taken half a line; what was there before must stay readable.
                handle.truncate(size)
                raise
        self.lines.append(record)

    def _damaged(self, number: int) -> InputError:
        return InputError(
            "every line of a run's journal but the last must be whole",
            expected=f"a JSON record with its own checksum on line {number} of {self.path}",
            got="something else (the file was edited or the disk damaged it)",
            next_step=f"Remove line {number} to compute that cell again, or start anew in another folder.",
        )

    def _wrong_version(self, number: int, version: Any) -> InputError:
        return InputError(
            "a run is resumed by the journal version that wrote it",
            expected=f"version {JOURNAL_VERSION} on line {number} of {self.path}",
            got=f"version {version!r}",
            next_step="Start anew in another folder, or use the metier release that made this run.",
        )


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]


def _split_lines(raw: bytes) -> list[bytes]:
    # bytes.splitlines would also split at a carriage return inside a torn line.
    pieces = [piece + b"\n" for piece in raw.split(b"\n")]
    pieces[-1] = pieces[-1][:-1]
    return pieces if pieces[-1] else pieces[:-1]


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    checksum = record.pop("crc", None)
    # A line of another version is whole; that it cannot be read is said by its version.
    return record if record.get("v") != JOURNAL_VERSION or checksum == _checksum(record) else None


def _text(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False, separators=(",", ":"))


def _checksum(record: dict[str, Any]) -> int:
    return zlib.crc32(_text(record).encode())
