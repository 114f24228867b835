"""What the tests of multi_index share: slow examples, and one computation of what many results contain."""

from __future__ import annotations

from importlib import import_module

import pytest
import solved

# Each takes a second or more. In the fast suite, dense grids guard the overlap function of two units, He4 at
# another width the committee, and its tests the hierarchy.
SLOW_EXAMPLES = (
    "metier.multi_index.committee.committee_thresholds",
    "metier.multi_index.committee.Committee.summary",
    "metier.multi_index.hierarchical.hierarchical",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.name in SLOW_EXAMPLES:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def shared_parts():
    """The signal function of an activation and the theory beside a simulation, once per process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("asymptotics", "committee", "hierarchical"):
            # Not by attributes of the package: those are the functions called like their modules.
            module = import_module(f"metier.multi_index.{name}")
            patch.setattr(module, "signal_function", solved.signal_function)
        gamp, committee = (
            import_module(f"metier.multi_index.{name}") for name in ("simulate.gamp", "committee")
        )
        patch.setattr(gamp, "thresholds", solved.thresholds)
        patch.setattr(committee, "committee", solved.committee)
        yield
