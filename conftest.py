"""What every suite shares: CPU time instead of wall time, and evidence with records.

A test marked `evidence` shows something at full size: all kills, the whole fuzz, a published table.
`make slow` runs it on a sample; `make evidence` runs it whole and writes `benchmarks/evidence/FILE.json`,
with a hash of the sources it speaks for, and skips what has a record of the sources as they are.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import settings

import evidence_records

ROOT = Path(__file__).parent

# The default suite draws few examples of each property, `make fuzz` many; both the same ones every time.
settings.register_profile("fast", settings.get_profile("ci"), max_examples=15)
settings.register_profile("fuzz", settings.get_profile("ci"), max_examples=1000)


def pytest_addoption(parser):
    parser.addoption("--evidence", action="store_true", help="run evidence whole and write its records")
    parser.addoption("--again", action="store_true", help="with --evidence: also what has a current record")
    parser.addoption("--strict-contract", action="store_true", help="compare frozen values to ten digits")


class Reports:
    """The reports of set-up, call and tear-down of every test, from every worker."""

    def __init__(self) -> None:
        self.all: list[object] = []

    def pytest_runtest_logreport(self, report):
        self.all.append(report)


def pytest_configure(config):
    config.stash[REPORTS] = Reports()
    config.pluginmanager.register(config.stash[REPORTS], "reports-of-evidence")
    # Default tests compile much and compute little, so they skip XLA's costly passes; slow ones do not.
    if "not slow" in config.getoption("markexpr"):
        os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


def pytest_collection_modifyitems(config, items):
    """Under --evidence, leave out what has passed on these very sources."""
    if not config.getoption("--evidence") or config.getoption("--again"):
        return
    current = [item for item in items if evidence_records.is_current(ROOT, item)]
    config.hook.pytest_deselected(items=current)
    items[:] = [item for item in items if item not in current]


class Amounts:
    """How much a test runs: a sample, or all of it under --evidence; what was run is recorded."""

    def __init__(self, whole: bool) -> None:
        self.whole = whole
        self.used: dict[str, object] = {}

    def __call__(self, name: str, *, sample, whole):
        self.used[name] = whole if self.whole else sample
        return self.used[name]


@pytest.fixture
def amount(request):
    """`amount("kills", sample=2, whole=100)`: 2 in `make slow`, 100 in `make evidence`."""
    amounts = Amounts(request.config.getoption("--evidence"))
    # Before the test runs: its report is made when it ends, and this is the same dictionary.
    request.node.user_properties.append(("amounts", amounts.used))
    return amounts


@pytest.fixture
def quick_compiler():
    """What compiles much and computes little spares XLA its costly passes in the slow suite as well."""
    import jax

    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def _cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    return sum(os.times()[:4])


class Budget:
    """CPU seconds since its making; where time is what a test is about, it counts these."""

    def __init__(self) -> None:
        self._start = _cpu_seconds()

    @property
    def used(self) -> float:
        return _cpu_seconds() - self._start


@pytest.fixture
def cpu_budget():
    """CPU seconds used since the test began, by this process and its ended children: `cpu_budget.used`."""
    return Budget()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    start = _cpu_seconds()
    item.user_properties.append(("evidence", evidence_records.described(ROOT, item)))
    yield
    item.config.stash.setdefault(SPENT, {})[item.nodeid] = _cpu_seconds() - start


SPENT = pytest.StashKey[dict[str, float]]()
REPORTS = pytest.StashKey[Reports]()
WORKERS = pytest.StashKey[list[dict[str, float]]]()


def pytest_sessionfinish(session):
    """Workers send the CPU seconds of their longest tests to the process that started them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        spent = session.config.stash.get(SPENT, {})
        output["cpu"] = dict(sorted(spent.items(), key=lambda pair: -pair[1])[:30])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    node.config.stash.setdefault(WORKERS, []).append(getattr(node, "workeroutput", {}).get("cpu", {}))


def pytest_terminal_summary(terminalreporter, config):
    spent = dict(pair for worker in config.stash.get(WORKERS, []) for pair in worker.items())
    spent |= config.stash.get(SPENT, {})
    terminalreporter.write_line(f"{_cpu_seconds():.0f} CPU seconds in all, workers included; most of them:")
    for test, seconds in sorted(spent.items(), key=lambda pair: -pair[1])[:10]:
        terminalreporter.write_line(f"{seconds:8.1f}  {test}")
    if config.getoption("--evidence"):
        written = evidence_records.write(
            ROOT, config.stash[REPORTS].all, time.strftime("%Y-%m-%d", time.gmtime())
        )
        for path in written:
            terminalreporter.write_line(f"wrote {path}")
