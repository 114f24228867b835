"""No benchmark may fall behind the code that it times: each runs here, small, into a folder of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Rivals come with the extra `bench`; a script without an entry holds no benchmark of its own.
SMALL = {
    "multi_index.py --repeats 1": None,
    "multi_index_phase.py --size 4 --repeats 1 --quadrature": None,
    "bilevel.py figure4 --replicates 2": None,
    "bilevel.py million --rows 5000 --iv-rows 500 --repeats 1": None,
    "moe.py dispatch --repeats 1": None,
    "moe.py grid --sizes 1 --repeats 1": None,
    "moe_memory.py --seeds 1 --steps 3 --weights 0.2": None,
    "multilinear.py entmax --repeats 1": "entmax",
    "forecast.py iteration --n-series 200 --repeats 1": None,
    "forecast.py fit --n-series 200 --repeats 1": None,
    "forecast_panels.py --panels simulated_strong --budget 1 --ours-only": "statsforecast",
    "partners.py environment --repeats 1": None,
    "partners.py pipeline --share 1e-05": None,
    "first_result.py --repeats 1": None,
    "rival_genriesz.py --help": None,
    "partners.py --help": None,
    "first_result.py --help": None,
    "multi_index_phase.py --help": None,
}
PARTS = {"bench.py", "goals.py", "record.py", "rivals.py", "multilinear_rivals.py", "regime_panels.py"}


def run(line, folder):
    script, *options = shlex.split(line)
    return subprocess.run(
        [sys.executable, BENCHMARKS / script, *options],
        env={**os.environ, "METIER_RESULTS": str(folder)},
        capture_output=True,
        text=True,
        timeout=1200,
    )


def test_every_script_should_be_run_here_or_be_a_part():
    assert {line.split()[0] for line in SMALL} | PARTS == {path.name for path in BENCHMARKS.glob("*.py")}


def marked(line):
    """Slow; what compiles whole trainings for minutes, or times every family, is evidence."""
    long = (
        line.startswith(("partners.py", "first_result.py", "multi_index_phase.py")) and "--help" not in line
    )
    sources = ("benchmarks", "src/metier", "studies/metier_studies")
    return pytest.param(line, marks=pytest.mark.evidence(*sources) if long else pytest.mark.slow)


@pytest.mark.parametrize("line", [marked(line) for line in SMALL])
def test_benchmark_should_run_and_leave_a_record(line, tmp_path):
    if SMALL[line]:
        pytest.importorskip(SMALL[line])
    done = run(line, tmp_path)
    assert done.returncode == 0, done.stderr
    if "--help" not in line:
        record = json.loads(next(tmp_path.glob("*.json")).read_text())
        assert record["result"]
        assert record["command"] == f"python benchmarks/{line}"


def test_the_table_of_goals_should_need_records_alone(tmp_path):
    done = run("bench.py --records", BENCHMARKS / "results")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("met") >= 10
