"""Cheaper workers: bytecode is kept, and what collection imports is spared the garbage collector.

Not in the root's conftest.py, which is part of every record of evidence: this changes no test.
"""

from __future__ import annotations

import gc
import os
import sys

import pytest

# It has no doctests, and could not be imported for them: the folders below have modules of the same name.
collect_ignore = ["conftest.py"]

# Kept even where the environment turns it off, as many containers do: otherwise every worker and every
# process that a test starts compiles the sources, and pytest the assertions, anew in every run.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(hookwrapper=True)
def pytest_collection():
    """What is imported now stays to the end, so the garbage collector need not walk it, now or later."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()
