"""How many files a call goes through: few, so that a reader can follow it."""

import subprocess
import sys
from pathlib import Path

import pytest

WAY = Path(__file__).parents[2] / "tools" / "way.py"
MOST_FILES = 10


@pytest.mark.slow
def test_thresholds_should_go_through_few_files():
    shown = subprocess.run(
        [sys.executable, str(WAY), "thresholds"], capture_output=True, text=True, check=True
    )
    head, *files = shown.stdout.splitlines()
    assert files[0] == "multi_index/thresholds.py"
    assert "multi_index/fixed_points.py" in files
    assert len(files) == len(set(files)) <= MOST_FILES
    assert head.startswith(f"thresholds: {len(files)} files, ")
