"""Install the wheel with every extra, in lowest and newest versions, on every Python here; then smoke.

    python tools/matrix.py                                      everything, to the screen
    python tools/matrix.py --extras bare,moe --pythons 3.11     some cells
    python tools/matrix.py --write            the cells into the record and the table of docs/installing.md

Each cell is a virtual environment outside of this checkout, made by uv from wheels only; `tools/smoke.py`
runs in it. Exits with 3 where a cell is wrong.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UV = [sys.executable, "-m", "uv", "--quiet"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
EXTRAS = ("bare", "forecast", "moe", "hf", "minilm", "partners", "multi-index", "dist", "all")
RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
# What a table shows; the record holds every package.
SHOWN = (
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "polars",
    "torch",
    "transformers",
    "jax",
    "optax",
    "numba",
    "typer",
)
RECORD = ROOT / "benchmarks" / "results" / "install-matrix.json"
PAGE = ROOT / "docs" / "installing.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"


@dataclass
class Cell:
    """One environment and its outcome: `state` is works, wrong, not installable, or untested."""

    python: str
    resolution: str
    extra: str
    state: str = "untested"
    date: str = ""
    constraints: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    tour: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return ([line for line in text.splitlines() if line.strip()] or [""])[-1].strip()


def build_wheels(folder: Path) -> list[str]:
    """Build the wheels of this checkout: metier and its studies."""
    for project in (ROOT, ROOT / "studies"):
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        done = run(build, cwd=project)
        if done.returncode:
            raise SystemExit(done.stderr)
    return sorted(map(str, folder.glob("*.whl")))


def install(cell: Cell, wheels: list[str], place: Path, constraints: list[str]) -> Path | None:
    """Make the cell's environment; None, with the reason in the cell, where it cannot be made."""
    made = run([*UV, "venv", "--python", cell.python, str(place / "venv")])
    if made.returncode:
        reason = last_line(made.stderr)
        cell.notes.append(f"no Python {cell.python} here" if "interpreter" in reason else reason)
        return None
    python = place / "venv" / "bin" / "python"
    (place / "constraints.txt").write_text("\n".join(constraints))
    extras = [] if cell.extra == "bare" else ["--extra", cell.extra]
    options = [
        "--resolution",
        RESOLUTIONS[cell.resolution],
        "--only-binary",
        ":all:",
        "--python",
        str(python),
    ]
    bounds = ["--constraints", str(place / "constraints.txt")]
    plan = place / "plan.txt"
    steps = [
        [*UV, "pip", "compile", *options, *extras, *bounds, "-o", str(plan), str(ROOT / "pyproject.toml")],
        [*UV, "pip", "install", "--only-binary", ":all:", "--python", str(python), "-r", str(plan)],
        [*UV, "pip", "install", "--no-deps", "--python", str(python), *wheels],
    ]
    for step in steps:
        done = run(step, cwd=place)
        if done.returncode:
            cell.state = "not installable"
            cell.notes.append(" ".join(done.stderr.split())[-400:])
            return None
    listed = json.loads(run([*UV, "pip", "list", "--format", "json", "--python", str(python)]).stdout)
    # What a CUDA build of torch brings says nothing about metier.
    plain = [package for package in listed if not package["name"].startswith("nvidia-")]
    cell.packages = {package["name"]: package["version"] for package in plain}
    return python


def smoke(cell: Cell, python: Path, tour: str, only: str) -> None:
    """Run the checks in the environment: all, or those that `only` names."""
    extras = "" if cell.extra == "bare" else cell.extra
    command = [str(python), str(ROOT / "tools" / "smoke.py"), "--extras", extras, "--tour", tour]
    command += ["--only", only] if only else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if not done.stdout.strip():
        cell.state, cell.wrong = "wrong", {"smoke": f"no answer, exit {done.returncode}"}
        return
    document = json.loads(done.stdout)
    cell.tour = document["tour"]
    cell.wrong = {name: check["wrong"] for name, check in document["checks"].items() if check["wrong"]}
    cell.state = "wrong" if cell.wrong else "works"


def markdown(cells: list[Cell]) -> str:
    """The table of all cells, and what each version meant."""
    dates = sorted({cell.date for cell in cells if cell.state != "untested"})
    lines = [f"Run on {' and '.join(dates)}, {platform.system()} {platform.machine()}.", ""]
    for python in dict.fromkeys(cell.python for cell in cells):
        names = [cell for cell in cells if cell.python == python]
        if all(cell.state == "untested" for cell in names):
            lines += [f"Python {python}: untested, {names[0].notes[0]}.", ""]
            continue
        lines += [f"| Python {python} | lowest | newest |", "|---|---|---|"]
        for extra in dict.fromkeys(cell.extra for cell in names):
            row = {cell.resolution: cell for cell in names if cell.extra == extra}
            lines.append(f"| {extra} | {_outcome(row.get('lowest'))} | {_outcome(row.get('newest'))} |")
        lines.append("")
    for resolution in RESOLUTIONS:
        whole = [c for c in cells if c.resolution == resolution and c.packages]
        if whole:
            most = max(whole, key=lambda cell: len(cell.packages))
            versions = ", ".join(f"{name} {most.packages[name]}" for name in SHOWN if name in most.packages)
            lines += [f"*{resolution}* on Python {most.python}: {versions}.", ""]
    return "\n".join(lines)


def _outcome(cell: Cell | None) -> str:
    if cell is None:
        return "not run"
    if cell.state == "works":
        tour = cell.tour
        return f"works; tour ran {tour['ran']}, skipped {len(tour['skipped'])}" if tour else "works"
    reasons = [f"{name}: {text}" for name, text in cell.wrong.items()] or cell.notes
    return f"{cell.state}: {'; '.join(reasons)[:160]}".replace("|", "/")


def write_record(cells: list[Cell]) -> None:
    """Put the cells into the record, beside those of earlier runs, and its table into the docs."""
    earlier = [Cell(**cell) for cell in json.loads(RECORD.read_text())["cells"]] if RECORD.exists() else []
    known = {(cell.python, cell.resolution, cell.extra): cell for cell in [*earlier, *cells]}
    order = [(p, r, e) for p in PYTHONS for r in RESOLUTIONS for e in EXTRAS]
    kept = [known[key] for key in order if key in known]
    RECORD.write_text(json.dumps({"cells": [asdict(cell) for cell in kept]}, indent=1) + "\n")
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{markdown(kept)}\n{END}{rest.split(END)[1]}")


def main() -> int:
    """Run the cells; exit 3 where one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pythons", default=",".join(PYTHONS))
    parser.add_argument("--resolutions", default="lowest,newest")
    parser.add_argument("--extras", default=",".join(EXTRAS))
    parser.add_argument("--tour", default="all", help="studies of the tour, comma-separated; or all")
    parser.add_argument(
        "--checks", default="", help="names of checks of tools/smoke.py, comma-separated; all if empty"
    )
    parser.add_argument(
        "--constraint", action="append", default=[], help="of a version, for example torch==2.13.0"
    )
    parser.add_argument("--lock", type=Path, help="a file of locks/ whose versions are used")
    parser.add_argument("--doctor", action="store_true", help="print what `metier doctor` says in each cell")
    parser.add_argument("--write", action="store_true", help="write the record and the table in the docs")
    arguments = parser.parse_args()
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    cells = [
        Cell(python, resolution, extra, date=date, constraints=arguments.constraint)
        for python in arguments.pythons.split(",")
        for resolution in arguments.resolutions.split(",")
        for extra in arguments.extras.split(",")
    ]
    bounds = [*arguments.constraint, *(arguments.lock.read_text().splitlines() if arguments.lock else [])]
    with tempfile.TemporaryDirectory() as name:
        wheels = build_wheels(Path(name))
        for number, cell in enumerate(cells):
            print(f"== Python {cell.python}, {cell.resolution}, {cell.extra}", file=sys.stderr, flush=True)
            place = Path(name) / str(number)
            place.mkdir()
            python = install(cell, wheels, place, bounds)
            if python is None:
                print(cell.state, cell.notes, file=sys.stderr, flush=True)
                if arguments.write:
                    write_record(cells[: number + 1])
                continue
            smoke(cell, python, arguments.tour, arguments.checks)
            if arguments.write:
                write_record(cells[: number + 1])
            if arguments.doctor:
                print(run([str(python), "-m", "metier", "doctor"]).stdout)
            run(["rm", "-rf", str(place)])
    print(markdown(cells))
    bad = any(cell.state in ("wrong", "not installable") for cell in cells)
    return 3 if bad or not any(cell.state == "works" for cell in cells) else 0


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    os.environ["UV_PYTHON_DOWNLOADS"] = "never"
    sys.exit(main())
