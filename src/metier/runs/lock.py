"""One process writes a run at a time; the kernel frees the lock of a killed process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from metier.core.errors import InputError


class FolderLock:
    """An exclusive advisory lock on a run folder (`flock` on its `.lock` file), held until `release`."""

    def __init__(self, folder: Path) -> None:
        self._descriptor: int | None = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise InputError(
                "one process writes a run at a time",
                expected=f"a free run folder {folder}",
                got="a folder that another process is writing",
                next_step="Wait for it to end, or choose another folder with --out.",
            ) from None

    def release(self) -> None:
        """Free the folder; doing it twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
