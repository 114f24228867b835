"""One process writes a run at a time; the system frees the lock of a killed process."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from metier.core.errors import InputError


class FolderLock:
    """An exclusive lock on a run folder (on its `.lock` file) until `release`."""

    def __init__(self, folder: Path) -> None:
        self._lock = FileLock(folder / ".lock", timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                "one process writes a run at a time",
                expected=f"a free run folder {folder}",
                got="a folder that another process is writing",
                next_step="Wait for it to end, or choose another folder with --out.",
            ) from None

    def release(self) -> None:
        """Free the folder; doing it twice is harmless."""
        self._lock.release()
