"""Bundled files are used only if every byte is as recorded."""

from __future__ import annotations

import hashlib
from pathlib import Path

from metier.core import InputError


def file_state(path: Path, digest: str | None) -> str:
    """Return "ok", "missing" or "changed", by the file's SHA-256."""
    if not path.is_file():
        return "missing"
    return "ok" if hashlib.sha256(path.read_bytes()).hexdigest() == digest else "changed"


def intact_bytes(path: Path, digest: str | None, *, rebuild: str) -> bytes:
    """Return a file's bytes.

    Args:
        path: the file.
        digest: its recorded SHA-256.
        rebuild: the command that makes it anew.

    Raises:
        InputError: it is missing or was changed.
    """
    content = path.read_bytes() if path.is_file() else None
    found = "no such file" if content is None else hashlib.sha256(content).hexdigest()
    if content is None or found != digest:
        raise InputError(
            f"bundled file {path.name} must be intact",
            expected=f"SHA-256 {digest}",
            got=found,
            next_step=f"Reinstall metier, or rebuild: {rebuild}",
        )
    return content
