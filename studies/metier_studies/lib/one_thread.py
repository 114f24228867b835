"""Training whose sums do not depend on the machine: torch on one thread, and afterwards as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Give torch one thread; as a decorator, for a whole function.

    Processes share the cores, and sums in another order would be another result.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
