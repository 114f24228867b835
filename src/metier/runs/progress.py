"""How long work shows how far it is: the command draws it, the library stays silent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """How a study tells a person what it is doing; the command draws it, the library stays silent."""

    def stage(self, text: str) -> None:
        """Announce what is tried now, and why."""

    def track(self, iterable: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
        """Yield from `iterable` while showing how far it is."""


class Silent:
    """The progress that shows nothing."""

    def stage(self, text: str) -> None:
        """Say nothing."""

    def track(self, iterable: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
        """Return the iterable itself."""
        return iterable


class FitBars:
    """Turns a fit's calls (stage, done, total) into stages and bars of a `Progress`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stage = ""
        self._bar: Iterator[int] | None = None
        self._done = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See `ClusterForecaster.fit`."""
        if stage != self._stage:
            self.close()
            self._stage, self._done = stage, 0
            steps: Iterable[int] = range(total)
            self._bar = iter(self._progress.track(steps, stage, total))
            next(self._bar, None)
        while self._bar is not None and self._done < done:
            self._done += 1
            next(self._bar, None)

    def close(self) -> None:
        """End the last bar."""
        if self._bar is not None:
            for _ in self._bar:
                pass
        self._bar = None
