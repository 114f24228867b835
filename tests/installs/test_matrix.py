"""Two cells of the matrix of installs: the wheel bare and with one extra, outside of the checkout."""

from __future__ import annotations

import subprocess
import sys

import pytest
from test_locks import LOCK, ROOT

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


# Bare, every check runs, with one study of the tour that runs and two that are skipped; with the extra, what
# it changes. `make matrix` runs every check and study in each cell.
CELLS = [
    ("bare", "iv,exponents,partners", ""),
    ("multi-index", "exponents", "import,doctor,list,exponents,thresholds,tour"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("extra", "tour", "checks"), CELLS, ids=[extra for extra, *_ in CELLS])
def test_an_install_should_work_or_name_what_it_lacks(extra, tour, checks):
    options = ["--extras", extra, "--pythons", VERSION, "--resolutions", "newest", "--tour", tour]
    options += ["--checks", checks]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "matrix.py"), *options, "--lock", str(LOCK)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"| {extra} | not run | works; tour ran " in done.stdout


def test_a_check_that_does_not_exist_should_be_refused():
    """A cell without checks would work whatever was wrong with it."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "smoke.py"), "--only", "doctor,physician"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no check is named physician" in done.stderr
