"""`import metier` stays light: nothing heavy is loaded until it is used."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = (
    "torch",
    "jax",
    "scipy",
    "scipy.stats",
    "sklearn",
    "pandas",
    "polars",
    "matplotlib",
    "lightgbm",
    "ray",
)


def loaded_by(code):
    program = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_of_metier_and_core_loads_nothing_heavy():
    assert loaded_by("import metier, metier.core").isdisjoint(HEAVY)


def test_errors_load_without_numpy():
    assert loaded_by("from metier.core import InputError").isdisjoint({*HEAVY, "numpy"})


def test_a_decision_needs_no_scipy_stats():
    code = "import metier\nmetier.specialize_or_fall_back([1., 2., 3.], [2., 2.5, 3.], dependence='time')"
    assert loaded_by(code).isdisjoint({"scipy.stats", "sklearn", "pandas", "matplotlib", "torch", "jax"})


def test_every_public_name_of_core_resolves():
    import metier.core

    assert all(getattr(metier.core, name).__doc__ for name in metier.core.__all__)
    assert callable(metier.core.information)
