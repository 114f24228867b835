"""Training on CPU wants JAX to dispatch in turn, and that before the first computation of the process.

What XLA compiles is kept in `.jax_cache` of the checkout, so that the next run, another worker and the
subprocesses of these tests load it instead. The folder may be removed at any time.

The same bits for the same seed, and after an interruption, are shown of every trainer in
test_partner_checkpoints.py and test_self_play.py; of full-size training by
benchmarks/results/partners-self_play.json (four teams, four seeds).
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import jax
import jaxlib
import pytest

from metier.partners import dispatch_in_turn

dispatch_in_turn()

CACHE = {
    "jax_compilation_cache_dir": str(Path(__file__).parents[2] / ".jax_cache"),
    # Small functions too: there are a thousand of them, each some 50 ms.
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
# Halves the time of compilation on CPU, and costs speed that tests of small sizes do not need.
PLAIN_LOOPS = "xla_cpu_use_fusion_emitters"


def pytest_configure(config):
    """Most tests compile much and compute little: they spare XLA its costly passes; evidence does not."""
    if "not slow" in config.getoption("markexpr"):
        jax.config.update("jax_disable_most_optimizations", True)
    if not config.getoption("--evidence"):
        # Workers inherit it; twice the same flag would be another key of the cache.
        flags = os.environ.get("XLA_FLAGS", "")
        if PLAIN_LOOPS not in flags and _xla_knows(PLAIN_LOOPS):
            os.environ["XLA_FLAGS"] = f"{flags} --{PLAIN_LOOPS}=false".strip()
    for name, value in CACHE.items():
        jax.config.update(name, value)
        os.environ.setdefault(name.upper(), str(value))
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


def _xla_knows(flag):
    """Whether this jaxlib has the flag: one that it does not know ends the process."""
    for path in Path(jaxlib.__file__).parent.glob("libjax_common.*"):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(flag.encode() + b"\0") >= 0
    return False
