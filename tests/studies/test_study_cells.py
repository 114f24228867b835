"""Cells that other processes compute: journaled once, with the time they took there."""

import time

import pytest

from metier.records.results import Result
from metier.runs import Run, Silent, read_timings
from metier_studies.lib.cells import journaled


def slow_square(x):
    time.sleep(0.2)
    return x * x


@pytest.mark.parametrize("workers", [1, 2])
def test_cells_should_be_journaled_with_the_time_of_their_own_process(tmp_path, workers):
    work = [(f"cell-{x}", x) for x in range(3)]
    with Run.create(tmp_path / "r", study="toy", size="tour", config={}, seed=0) as run:
        options = {"workers": workers, "words": "squaring"}
        found = journaled(slow_square, work, run, Silent(), **options)
        assert found == [0, 1, 4]
        # All are known now: nothing is computed again.
        assert journaled(_fail, work, run, Silent(), **options) == found
        run.finish(Result(study="toy", family="core", size="tour", seed=0, title="Toy", question="?"))
    seconds = read_timings(tmp_path / "r")["cells"]
    assert all(seconds[key] >= 0.2 for key, _ in work)


def _fail(x):
    raise AssertionError("computed twice")
