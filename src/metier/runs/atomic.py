"""Write files so that a crash leaves either the old content or the new, never a part."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def atomic_write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` through a temporary neighbor, fsync, and `os.replace`.

    Args:
        path: the file to write; its folder must exist.
        content: the whole new content.

    Raises:
        OSError: the folder is missing, read-only or full; the old file is then unchanged.

    Example:
        >>> import tempfile, pathlib
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     atomic_write_bytes(pathlib.Path(folder, "a.txt"), b"new")
        ...     pathlib.Path(folder, "a.txt").read_bytes()
        b'new'
    """
    target = Path(path)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        # mkstemp makes files private to the user; a report is meant to be shared.
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    fsync_folder(target.parent)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 `text` to `path` as `atomic_write_bytes` does.

    Args:
        path: the file to write; its folder must exist.
        text: the whole new content; newlines are written as given.
    """
    atomic_write_bytes(path, text.encode("utf-8"))


def fsync_folder(folder: str | os.PathLike[str]) -> None:
    """Make a rename inside `folder` durable, where the system lets folders be opened (Windows does not)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
