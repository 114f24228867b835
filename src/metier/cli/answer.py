"""What a verb hands back, and how it reaches the person or the program that asked."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

OK, FAILED, USAGE, CHECK_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A verb's answer: `document` for programs, `text` for people, and the exit code."""

    document: dict[str, Any]
    text: str
    as_json: bool
    code: int = OK


class RunInterruptedError(Exception):
    """Ctrl-C during a run; carries the command that goes on with it."""

    def __init__(self, resume: str) -> None:
        self.resume = resume
        super().__init__(f"interrupted; everything finished is saved. Go on with: {resume}")


@contextmanager
def only_stderr() -> Iterator[int]:
    """Send everything written to stdout, by C code too, to stderr; yield a descriptor of the real stdout."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield real
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)


def write_document(descriptor: int, document: dict[str, Any]) -> None:
    """Write one JSON document to the real stdout."""
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as out:
        out.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def say(text: str) -> None:
    """Tell a person something on stderr."""
    print(text, file=sys.stderr, flush=True)


def columns(rows: Sequence[Sequence[str]], *, gap: int = 2) -> str:
    """Return rows as aligned text columns.

    Example:
        >>> print(columns([["a", "bb"], ["ccc", "d"]]))
        a    bb
        ccc  d
    """
    widths = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))] if rows else []
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append((" " * gap).join(cells).rstrip())
    return "\n".join(lines)
