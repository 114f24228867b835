"""How long a newcomer waits for a first result: each front door, in a new process and an empty folder.

    python benchmarks/first_result.py
    python benchmarks/first_result.py --repeats 5

A page's door is its first Python block as it stands there; a verb's is the command on a small file. Starting
Python and importing are counted, as they are for the newcomer. Writes benchmarks/results/first-result.json.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from record import table, write

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("forecasting", "bilevel", "balancing", "moe_attach", "multilinear", "multi_index", "partners")
VERBS = {
    "metier forecast FILE": ("forecast", "shop.csv", "--horizon", "7"),
    "metier iv FILE": ("iv", "wages.csv", "--outcome", "y", "--treatment", "x", "--instruments", "z"),
    "metier exponents tanh": ("exponents", "tanh"),
}
METIER = "import sys; from metier.cli import main; sys.exit(main())"


def first_block(page: str) -> str:
    """The first Python block of a page."""
    found = re.search(r"^```python\n(.*?)^```$", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"docs/{page}.md has no Python block")
    return found[1]


def entrances() -> dict[str, list[str]]:
    """Every door's name and the arguments of its Python."""
    pages = {f"docs/{page}.md": ["-c", first_block(page)] for page in PAGES}
    return pages | {name: ["-c", METIER, *words] for name, words in VERBS.items()}


def write_files(folder: Path) -> None:
    """Small tables of one's own: 20 shops over 200 days, 500 wages with an instrument."""
    g = np.random.default_rng(0)
    days = np.arange("2025-01-01", "2025-07-20", dtype="datetime64[D]")
    rows = [
        f"shop{k},{day},{v:.3f}" for k in range(20) for day, v in zip(days, g.normal(size=200), strict=True)
    ]
    (folder / "shop.csv").write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    z, u = g.normal(size=(2, 500))
    x = z + u
    lines = [f"{a},{b},{c}" for a, b, c in zip(x + u, x, z, strict=True)]
    (folder / "wages.csv").write_text("\n".join(["y,x,z", *lines]) + "\n")


def once(arguments: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of one new process in an empty folder."""
    with tempfile.TemporaryDirectory() as name:
        write_files(Path(name))
        before, start = os.times(), time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=name, check=True, capture_output=True)
        wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = {}
    for name, arguments in entrances().items():
        once(arguments)
        times = [once(arguments) for _ in range(options.repeats)]
        print(name, f"{times[0][0]:.1f} s", flush=True)
        found[name] = {
            "wall_seconds": statistics.median(wall for wall, _ in times),
            "cpu_seconds": statistics.median(cpu for _, cpu in times),
        }
    print(
        table(
            [("door", "wall s", "CPU s"), *((k, *(f"{x:.2f}" for x in v.values())) for k, v in found.items())]
        )
    )
    path = write("first-result", {"repeats": options.repeats, "first result": found}, seed=0)
    print(path)


if __name__ == "__main__":
    main()
