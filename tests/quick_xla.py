"""Settings of JAX for tests: what XLA compiles is kept, and its costly passes are left out.

What XLA compiles is kept in `.jax_cache` of the checkout, so that the next run, another worker and the
subprocesses of these tests load it instead. The folder may be removed at any time.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import jax
import jaxlib

CACHE = {
    "jax_compilation_cache_dir": str(Path(__file__).parents[1] / ".jax_cache"),
    # Small functions too: there are a thousand of them, each some 50 ms.
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
# Halves the time of compilation on CPU, and costs speed that tests of small sizes do not need.
PLAIN_LOOPS = "xla_cpu_use_fusion_emitters"


def keep_compiled() -> None:
    """Keep what XLA compiles in the checkout; the environment hands the settings to subprocesses."""
    for name, value in CACHE.items():
        jax.config.update(name, value)
        os.environ.setdefault(name.upper(), str(value))


def use_plain_loops() -> None:
    """Set the flag, if this jaxlib has it, before JAX computes for the first time."""
    # Workers inherit it; twice the same flag would be another key of the cache.
    flags = os.environ.get("XLA_FLAGS", "")
    if PLAIN_LOOPS not in flags and _xla_knows(PLAIN_LOOPS):
        os.environ["XLA_FLAGS"] = f"{flags} --{PLAIN_LOOPS}=false".strip()


def _xla_knows(flag: str) -> bool:
    """Whether this jaxlib has the flag: one that it does not know ends the process."""
    for path in Path(jaxlib.__file__).parent.glob("libjax_common.*"):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(flag.encode() + b"\0") >= 0
    return False
