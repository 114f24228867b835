"""Training on CPU wants JAX to dispatch in turn, and that before the first computation of the process.

What XLA compiles is kept, see `quick_xla`.

The same bits for the same seed, and after an interruption, are shown of every trainer in
test_partner_checkpoints.py and test_self_play.py; of full-size training by
benchmarks/results/partners-self_play.json (four teams, four seeds).
"""

from __future__ import annotations

import jax
import pytest

import quick_xla
from metier.partners import dispatch_in_turn

dispatch_in_turn()


def pytest_configure(config):
    """Most tests compile much and compute little: they spare XLA its costly passes; evidence does not."""
    if "not slow" in config.getoption("markexpr"):
        jax.config.update("jax_disable_most_optimizations", True)
    if not config.getoption("--evidence"):
        quick_xla.use_plain_loops()
    quick_xla.keep_compiled()
    # A file that another process is writing, or was stopped while it wrote, cannot be read: compiled anew.
    for verb in ("reading", "writing"):
        config.addinivalue_line(
            "filterwarnings", f"ignore:Error {verb} persistent compilation cache entry:UserWarning"
        )


@pytest.fixture(autouse=True)
def _cheap_compilation(request):
    """Slow tests of this folder are small too; those of other folders in the process may be not."""
    if request.config.getoption("--evidence") or "not slow" in request.config.getoption("markexpr"):
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
