"""Write `locks/pyX.Y.txt`, every package of development and CI, and the versions metier was tested with.

    python tools/lock.py              keep what is locked, add what is new
    python tools/lock.py --upgrade    take the newest releases that fit

Names and versions only: no address of an index, and no hashes, because pip wants them for all packages or for
none, and torch comes as another file from every index (CPU, CUDA, macOS). Resolves with uv, from the metadata
of releases; nothing is installed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
HEAD = "# Made by `make lock`; do not edit. Used as constraints: pip install -c locks/py{python}.txt ...\n"
OF_USERS = ("forecast", "moe", "hf", "minilm", "partners", "multi-index", "dist")


def lock(python: str, *, upgrade: bool) -> Path:
    """Resolve all extras for one Python, on every platform, and write the lock."""
    path = ROOT / "locks" / f"py{python}.txt"
    options = ["--universal", "--python-version", python, "--all-extras"]
    quiet = ["--no-header", "--no-annotate", "--no-emit-index-url", "--quiet", "--output-file", str(path)]
    command = [sys.executable, "-m", "uv", "pip", "compile", "--config-file", str(ROOT / "tools/lock.toml")]
    subprocess.run(
        [*command, *options, *quiet, *(["--upgrade"] if upgrade else []), str(ROOT / "pyproject.toml")],
        cwd=ROOT,
        check=True,
    )
    path.write_text(HEAD.format(python=python) + path.read_text())
    return path


def locked(path: Path) -> dict[str, str]:
    """Package -> version of a lock; of several lines for one package, the last."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in map(Requirement, lines)
    }


def write_tested(versions: dict[str, str]) -> None:
    """The versions of what users install, into the package, where `metier doctor` reads them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    lines += [line for extra in OF_USERS for line in project["optional-dependencies"][extra]]
    names = sorted({canonicalize_name(Requirement(line).name) for line in lines})
    text = json.dumps({name: versions[name] for name in names}, indent=1)
    (ROOT / "src/metier/core/tested.json").write_text(text + "\n")


def main() -> None:
    """Lock every Python."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest releases that fit")
    arguments = parser.parse_args()
    paths = [lock(python, upgrade=arguments.upgrade) for python in PYTHONS]
    write_tested(locked(paths[0]))
    for path in paths:
        print(f"{path.relative_to(ROOT)}: {len(locked(path))} packages")


if __name__ == "__main__":
    main()
