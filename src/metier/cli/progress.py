"""Progress on stderr: stages as lines, and bars where a person is watching a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")


class LiveProgress:
    """Shows stages and bars; off a terminal the stages are plain lines and bars are left out."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._bars = Progress(
            TextColumn("    {task.description}"),
            BarColumn(bar_width=32, complete_style="cyan", finished_style="green"),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def heading(self, text: str) -> None:
        """Announce a study."""
        self.console.print(f"\n{text}", style="bold", markup=False)

    def stage(self, text: str) -> None:
        """Announce what is tried now, and why."""
        self.console.print(f"  - {text}", markup=False)

    def track(self, iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield from `iterable` under a bar."""
        if total is None and isinstance(iterable, Sized):
            total = len(iterable)
        task = self._bars.add_task(description, total=total)
        try:
            for item in iterable:
                yield item
                self._bars.advance(task)
        finally:
            self._bars.remove_task(task)
            self._bars.refresh()
