"""Does an installation work? Every verb and family once, in an empty folder, by the Python that runs this.

    python tools/smoke.py --extras forecast,moe --tour all

Standard library only. Prints one JSON document: per check the exit code, CPU seconds, and what is wrong.
A check is wrong when it ends with a traceback or an exit code other than 0, 2 or 3; with 2 or 3 where the
extras given bring all it needs; or when what it asks a person to install is not a command.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
METIER = [sys.executable, "-m", "metier"]
VERBS = ("tour", "list", "run", "forecast", "exponents", "iv", "report", "compare", "doctor", "data")
ALL = {"forecast", "moe", "hf", "minilm", "partners", "multi-index", "dist"}

PARTNERS = """
from metier import partners
game = partners.games.LeverGame()
team = partners.train_self_play(game, n_members=2, steps=512, rng=0)
print(partners.cross_play(team, game, episodes=8).returns)
"""
DIST = """
from metier.core import map_tasks
if __name__ == "__main__":
    for backend in ("joblib", "dask", "ray"):
        assert map_tasks(abs, [-1, 2], backend=backend, n_workers=1) == [1, 2]
"""
FRAMES = """
import importlib, sys
from metier import data
from metier.forecast import ClusterForecaster
panel = data.load("flights_hourly").top(6).steps(-600)
for backend in ("pandas", "polars"):
    frame = panel.to_frame(backend=backend)
    forecaster = ClusterForecaster(lags=24, season_length=24, horizon=4, n_clusters=2).fit(frame)
    found = forecaster.predict(level=[80])
    assert type(found) is type(frame) and len(found) == 24
"""
THRESHOLDS = """
from metier import multi_index
print(multi_index.thresholds("tanh", snr=1.0).weak_recovery, multi_index.exponents("relu").information)
"""
BILEVEL = """
import numpy as np
from metier.bilevel import IVBilevel
g = np.random.default_rng(0)
z, u = g.normal(size=(2, 400))
iv = IVBilevel(folds=2).fit(z + 2 * u, z + u, z)
assert abs(iv.coef_[0] - 1) < 5 * iv.stderr_[0]
"""


class Check(NamedTuple):
    """One command: its words, the extras without which it may refuse, and the exit code that is right."""

    words: list[str]
    needs: frozenset[str] = frozenset()
    code: int = 0


def checks(folder: Path, tour: list[str], extras: set[str]) -> dict[str, Check]:
    """Every check by name; writes the files that they read into `folder`."""
    write_files(folder)
    python = [sys.executable, "-c"]
    found = {
        "import": Check(
            [*python, "import metier; metier.specialize_or_fall_back([1.0, 2.0, 1.5], [2.0, 2.5, 2.0])"]
        )
    }
    found["help"] = Check([*METIER, "--help"])
    found |= {f"{verb} --help": Check([*METIER, verb, "--help"]) for verb in VERBS}
    misused = {"forecast": [], "iv": ["wages.csv"], "nosuchverb": [], "run": ["nosuchstudy"]}
    found |= {f"{v}, misused": Check([*METIER, v, *words], code=2) for v, words in misused.items()}
    found["doctor"] = Check([*METIER, "doctor"])
    found["list"] = Check([*METIER, "list"])
    found["data"] = Check([*METIER, "data"])
    found["forecast"] = Check(
        [*METIER, "forecast", "shop.csv", "--horizon", "7", "--out", "f"], frozenset({"forecast"})
    )
    found["iv"] = Check(
        [*METIER, "iv", "wages.csv", "--outcome", "y", "--treatment", "x", "--instruments", "z", "--out", "i"]
    )
    found["exponents"] = Check([*METIER, "exponents", "x**4 - 6*x**2 + 3"], frozenset({"multi-index"}))
    scripts = {
        "bilevel": (BILEVEL, ()),
        "frames": (FRAMES, ("forecast",)),
        "partners": (PARTNERS, ("partners",)),
    }
    scripts |= {"dist": (DIST, ("dist",)), "thresholds": (THRESHOLDS, ("multi-index",))}
    for name, (text, needs) in scripts.items():
        (folder / f"smoke_{name}.py").write_text(text)
        found[name] = Check([sys.executable, f"smoke_{name}.py"], frozenset(needs))
    examples = {
        "moe_sparse_layer": ("moe",),
        "moe_plain_loop": ("moe", "hf"),
        "counts_with_lightgbm": ("forecast",),
    }
    examples |= {"scikit_learn_model": ("forecast",), "multilinear_demonstration": ("moe", "hf", "minilm")}
    for name, needs in examples.items():
        if not extras.issuperset(needs):
            continue  # their own `import torch` is the reader's
        shutil.copy(EXAMPLES / f"{name}.py", folder)
        found[f"examples/{name}"] = Check([sys.executable, f"{name}.py"], frozenset(needs))
    only = [word for study in tour if study != "all" for word in ("--only", study)]
    found["tour"] = Check([*METIER, "tour", *only, "--out", "t", "--json"])
    found["report"] = Check([*METIER, "report", "i", "--out", "page.html"])
    return found


def write_files(folder: Path) -> None:
    """A panel of 6 shops over 120 days, and 300 rows with an instrument."""
    days = [f"2025-{month:02}-{day:02}" for month in (1, 2, 3, 4) for day in range(1, 32)]
    days = [day for day in days if day not in ("2025-02-29", "2025-02-30", "2025-02-31", "2025-04-31")]
    rows = [
        f"shop{k},{day},{(i * 7 + k * 3) % 11 + (i % 7)}.5" for k in range(6) for i, day in enumerate(days)
    ]
    (folder / "shop.csv").write_text("\n".join(["unique_id,ds,y", *rows]) + "\n")
    state, lines = 1, []
    for _ in range(300):
        numbers = []
        for _ in range(3):
            state = (1_103_515_245 * state + 12_345) % 2**31
            numbers.append(state / 2**31 - 0.5)
        z, u, e = numbers
        lines.append(f"{z + 2 * u + e},{z + u},{z}")
    (folder / "wages.csv").write_text("\n".join(["y,x,z", *lines]) + "\n")


def judged(name: str, check: Check, code: int, out: str, err: str, extras: set[str], folder: Path) -> str:
    """What is wrong, in words; empty where nothing is."""
    if name == "tour":
        return tour_faults(code, out, err, folder)
    script = check.words[1:3] != ["-m", "metier"]
    missing = "MissingExtraError" in err if script else code == 2
    if check.needs <= extras:
        right = code == check.code and not (code and "Traceback" in err)
        return "" if right else f"exit {code}: {last_line(err)}"
    if code == 0:
        return ""
    if not missing or (not script and "Traceback" in err):
        return f"exit {code}: {last_line(err)}"
    return "" if advice(err) else f"no command to install what is missing: {last_line(err)}"


def tour_faults(code: int, out: str, err: str, folder: Path) -> str:
    """A tour ends with 0 or 3, a report, and a command for each study that it skips before it begins."""
    if code not in (0, 3) or "Traceback" in err:
        return f"exit {code}: {last_line(err)}"
    skipped = json.loads(out)["skipped"]
    if not (folder / "t" / "report.html").exists():
        return "no report"
    silent = [study for study, reason in skipped.items() if not advice(reason)]
    late = [study for study in skipped if (folder / "t" / study).exists()]
    faults = [f"skipped without advice: {silent}"] if silent else []
    return "; ".join([*faults, *([f"skipped after it had begun: {late}"] if late else [])])


def advice(text: str) -> bool:
    """Whether the text holds a command of pip or uv that installs packages by name, and not metier."""
    found = re.search(r"pip install (?:--python \S+ |--no-deps )*((?:\"[^\"]+\" ?)+)", text)
    return found is not None and "metier" not in found[1]


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return ([line for line in text.splitlines() if line.strip()] or ["(silent)"])[-1][:300]


def main() -> int:
    """Run the checks and print the document; exit 3 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extras", default="", help="extras that are installed, comma-separated; or all")
    parser.add_argument("--tour", default="all", help="studies of the tour, comma-separated; or all")
    parser.add_argument("--only", default="", help="names of checks, comma-separated")
    arguments = parser.parse_args()
    extras = ALL if arguments.extras == "all" else set(filter(None, arguments.extras.split(",")))
    only = set(filter(None, arguments.only.split(",")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    environment.pop("PYTHONPATH", None)
    results, tour = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = checks(folder, arguments.tour.split(","), extras)
        if only - set(known):
            parser.error(
                f"no check is named {', '.join(sorted(only - set(known)))}; there are: {', '.join(known)}"
            )
        for label, check in known.items():
            if only and label not in only:
                continue
            before, began = os.times(), time.perf_counter()
            done = subprocess.run(
                check.words, cwd=folder, capture_output=True, text=True, env=environment, check=False
            )
            after = os.times()
            spent = (
                after.children_user + after.children_system - before.children_user - before.children_system
            )
            wrong = judged(label, check, done.returncode, done.stdout, done.stderr, extras, folder)
            spent = spent or time.perf_counter() - began
            results[label] = {"exit": done.returncode, "cpu_seconds": round(spent, 1), "wrong": wrong}
            print(
                f"{'WRONG' if wrong else 'ok':6}{spent:7.1f} s  {label}  {wrong}", file=sys.stderr, flush=True
            )
            if label == "tour" and not wrong:
                document = json.loads(done.stdout)
                tour = {"ran": len(document["results"]), "skipped": sorted(document["skipped"])}
    print(json.dumps({"checks": results, "tour": tour}))
    return 3 if any(result["wrong"] for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
