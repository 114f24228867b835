"""The process that freezes and the one that compares compute in the same way: one thread, same compiler."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import jax
import threadpoolctl
import torch

import quick_xla
from metier.partners import dispatch_in_turn

dispatch_in_turn()
quick_xla.use_plain_loops()
quick_xla.keep_compiled()


@contextlib.contextmanager
def as_frozen() -> Iterator[None]:
    """Compute on one thread and without XLA's costly passes, whatever other tests have set."""
    quickly, threads = jax.config.values["jax_disable_most_optimizations"], torch.get_num_threads()
    variables = {name: os.environ.get(name) for name in ("JAX_DISABLE_MOST_OPTIMIZATIONS", "OMP_NUM_THREADS")}
    jax.config.update("jax_disable_most_optimizations", True)
    torch.set_num_threads(1)
    # For the processes that studies start.
    os.environ |= dict.fromkeys(variables, "1")
    try:
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        jax.config.update("jax_disable_most_optimizations", quickly)
        torch.set_num_threads(threads)
        for name, value in variables.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
