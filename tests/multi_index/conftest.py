"""Examples of src/metier/multi_index that take seconds run with the slow tests."""

from __future__ import annotations

import pytest

# Two units on a product grid; the fast suite compares its overlap function with dense grids instead.
SLOW_EXAMPLES = ("metier.multi_index.committee_thresholds.committee_thresholds",)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.name in SLOW_EXAMPLES:
            item.add_marker(pytest.mark.slow)
