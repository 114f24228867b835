"""Importing a room loads what it needs and nothing more."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FRAMEWORKS = {"torch", "jax", "tensorflow", "lightgbm", "dask", "distributed", "ray", "numba"}
FRAMES = {"pandas", "polars", "pyarrow"}
DRAWING = {"matplotlib", "jinja2", "pydantic", "rich", "typer"}
ARRAYS = {"numpy", "scipy", "sklearn"}


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after `code`."""
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import metier", FRAMEWORKS | FRAMES | DRAWING | ARRAYS),
        ("import metier; dir(metier); metier.__version__", FRAMEWORKS | FRAMES | DRAWING | ARRAYS),
        ("import metier.cli", FRAMEWORKS | FRAMES | ARRAYS | {"matplotlib", "jinja2", "pydantic"}),
        ("import metier_studies", FRAMEWORKS | FRAMES | DRAWING | ARRAYS),
        ("import metier.core; metier.core.Assignment", FRAMEWORKS | FRAMES | DRAWING | {"scipy", "sklearn"}),
        ("import metier.data", FRAMEWORKS | FRAMES | DRAWING | {"scipy.stats", "sklearn"}),
        ("import metier.runs", FRAMEWORKS | FRAMES | {"matplotlib", "jinja2", "scipy.stats", "sklearn"}),
        ("import metier.moe; dir(metier.moe)", FRAMEWORKS | FRAMES | DRAWING | ARRAYS),
        (
            "import metier.multi_index",
            (FRAMEWORKS - {"numba"}) | FRAMES | DRAWING | {"scipy.stats", "sklearn"},
        ),
        # scikit-learn is the estimators' base; where pandas is installed, it brings that too.
        ("import metier.bilevel, metier.forecast", FRAMEWORKS | {"polars", "matplotlib", "jinja2", "typer"}),
    ],
)
def test_import_should_load_nothing_heavy(code, absent):
    assert sorted(loaded_by(code) & absent) == []
