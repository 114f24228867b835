"""Contract tests compute as `freeze.py` does; what is slow of them, they leave to the slow suite."""

from __future__ import annotations

import pytest
from contract_differences import is_strict
from contract_environment import as_frozen


def pytest_configure(config):
    # A file that another process is writing, or was stopped while it wrote, cannot be read: compiled anew.
    for verb in ("reading", "writing"):
        config.addinivalue_line(
            "filterwarnings", f"ignore:Error {verb} persistent compilation cache entry:UserWarning"
        )


@pytest.fixture(scope="session")
def strict(request):
    return is_strict(request.config)


@pytest.fixture(scope="module", autouse=True)
def _as_frozen():
    with as_frozen():
        yield
