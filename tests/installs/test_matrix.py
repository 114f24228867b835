"""Two cells of the matrix of installs: the wheel bare and with one extra, outside of the checkout."""

from __future__ import annotations

import subprocess
import sys

import pytest
from test_locks import LOCK, ROOT

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


# Of the tour one study that runs and two that are skipped; `make matrix` takes all.
@pytest.mark.slow
@pytest.mark.parametrize(("extra", "tour"), [("bare", "iv,exponents,partners"), ("multi-index", "exponents")])
def test_an_install_should_work_or_name_what_it_lacks(extra, tour):
    options = ["--extras", extra, "--pythons", VERSION, "--resolutions", "newest", "--tour", tour]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "matrix.py"), *options, "--lock", str(LOCK)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"| {extra} | not run | works; tour ran " in done.stdout
