"""What a run ran on: versions and threads. Neither host names nor folders, so that a run can be shared."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "narwhals",
    "safetensors",
    "pydantic",
    "matplotlib",
    "pandas",
    "polars",
    "pyarrow",
    "lightgbm",
    "torch",
    "transformers",
    "jax",
    "optax",
    "numba",
    "python-flint",
    "joblib",
    "dask",
    "ray",
)
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
)


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the versions of those of `names` that are installed, without importing any."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def usable_cpus() -> int:
    """Return the number of CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def source_commit() -> str | None:
    """Return the commit of the source tree metier runs from ("+changes" if edited); None if installed."""
    root = Path(__file__).resolve().parents[3]
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    head = _git(git, root, "rev-parse", "HEAD")
    if head is None or not re.fullmatch(r"[0-9a-f]{40,64}", head):
        return None
    return head + ("+changes" if _git(git, root, "status", "--porcelain", "--", "src") else "")


def _git(git: str, root: Path, *arguments: str) -> str | None:
    done = subprocess.run(
        [git, "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def capture_environment() -> dict[str, Any]:
    """Return what could change a number: metier, Python, platform, packages, CPUs, thread settings.

    Returns:
        A JSON-ready dict with keys metier, commit, python, platform, machine, cpus, threads, packages.

    Example:
        >>> sorted(capture_environment())
        ['commit', 'cpus', 'machine', 'metier', 'packages', 'platform', 'python', 'threads']
    """
    from metier import __version__

    return {
        "metier": __version__,
        "commit": source_commit(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpus": usable_cpus(),
        "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        "packages": package_versions(),
    }
