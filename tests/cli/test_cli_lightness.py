import json
import statistics
import subprocess
import sys

import pytest

HEAVY = ("numpy", "scipy", "torch", "jax", "sklearn", "pandas", "polars", "matplotlib", "rich", "jinja2")
PROBE = """
import json, resource, sys
from metier.cli import main
code = main(json.loads(sys.argv[1]))
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
print(json.dumps({"code": code, "cpu": used.ru_utime + used.ru_stime, "heavy": heavy}), file=sys.stderr)
"""


def probe(*words):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(words), json.dumps(HEAVY)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stderr.splitlines()[-1]), done.stdout


def test_help_should_be_quick_and_load_nothing_heavy():
    runs = [probe("--help") for _ in range(5)]
    cpu = statistics.median(report["cpu"] for report, _ in runs)
    print(f"metier --help: {cpu:.3f} s of CPU (the promise is 0.3)")
    assert all(report["heavy"] == [] and report["code"] == 0 for report, _ in runs)
    assert "compare" in runs[0][1]
    # Twice the promise, for noisy machines.
    assert cpu < 0.6


@pytest.mark.parametrize("words", [("run", "--help"), ("--version",), ("list",), ("list", "--json")])
def test_light_verbs_should_load_nothing_heavy(words):
    report, out = probe(*words)
    assert report["heavy"] == []
    assert report["code"] == 0
    assert out.strip()
