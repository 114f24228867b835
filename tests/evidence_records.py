"""Records of evidence: which test, at what size, on which sources, with what outcome."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

FOLDER = "benchmarks/evidence"
RESULTS = ("benchmarks/evidence", "benchmarks/results")
"""What runs write is no source, even where a whole folder around it is named."""
PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "jax",
    "numba",
    "python-flint",
    "transformers",
    "polars",
)


@functools.cache
def source_hash(root: Path, sources: tuple[str, ...]) -> str:
    """SHA-256 of the names and bytes of all files that `sources` (files or folders) hold."""
    files: set[Path] = set()
    written = [root / folder for folder in RESULTS]
    for source in sources:
        inside = (root / source).rglob("*") if (root / source).is_dir() else [root / source]
        files |= {file for file in inside if file.is_file() and "__pycache__" not in file.parts}
    files = {file for file in files if not any(file.is_relative_to(folder) for folder in written)}
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def described(root: Path, item: Any) -> dict[str, Any] | None:
    """Name, sources and their hash of a test that is marked `evidence(source, ...)`; None of any other."""
    mark = item.get_closest_marker("evidence")
    if mark is None:
        return None
    own = Path(item.path).relative_to(root).as_posix()
    # What the test imports beside itself lies in its own folder; conftest.py decides how much is run.
    helpers = {path.relative_to(root).as_posix() for path in Path(item.path).parent.glob("*.py")}
    helpers = {path for path in helpers if not Path(path).name.startswith("test_")}
    sources = tuple(
        sorted({*mark.args, own, *helpers, *({"conftest.py"} & {p.name for p in root.iterdir()})})
    )
    name = item.originalname or item.name
    return {"test": f"{own}::{name}", "sources": list(sources), "hash": source_hash(root, sources)}


def record_path(root: Path, test: str) -> Path:
    """One file per test function, named after its file and itself."""
    file, name = test.split("::", 1)
    return root / FOLDER / f"{Path(file).stem.removeprefix('test_')}-{name.removeprefix('test_')}.json"


def is_current(root: Path, item: Any) -> bool:
    """Whether this very case has passed on the sources as they are."""
    now = described(root, item)
    path = record_path(root, now["test"]) if now else None
    if now is None or path is None or not path.exists():
        return False
    case = json.loads(path.read_text())["cases"].get(item.name, {})
    return case.get("hash") == now["hash"] and case.get("outcome") == "passed"


def write(root: Path, reports: list[Any], date: str) -> list[str]:
    """Merge the outcomes of `reports` into one record per test; cases of older sources are dropped.

    Each case names its own sources, since the cases of one test may speak for different ones. A case has
    passed only where set-up, call and tear-down all have; a case that did anything else loses its place,
    whatever it did before.
    """
    cases: dict[str, list[Any]] = {}
    for report in reports:
        if dict(report.user_properties).get("evidence") is not None:
            cases.setdefault(report.nodeid, []).append(report)
    written = []
    for nodeid, phases in cases.items():
        properties = dict(phases[0].user_properties)
        about = properties["evidence"]
        path = record_path(root, about["test"])
        record = json.loads(path.read_text()) if path.exists() else {"cases": {}}
        name = nodeid.split("::")[-1]
        kept = {
            key: case
            for key, case in record["cases"].items()
            if key != name and source_hash(root, tuple(case["sources"])) == case["hash"]
        }
        clean = {"setup", "call", "teardown"} == {phase.when for phase in phases if phase.outcome == "passed"}
        if clean and not any(hasattr(phase, "wasxfail") for phase in phases):
            seconds = round(sum(phase.duration for phase in phases), 1)
            own = {"sources": about["sources"], "hash": about["hash"]}
            case = {"outcome": "passed", "seconds": seconds, "date": date, **own, "versions": _versions()}
            kept[name] = {**case, **properties.get("amounts", {})}
        path.parent.mkdir(parents=True, exist_ok=True)
        if kept:
            record = {"test": about["test"], "cases": dict(sorted(kept.items()))}
            path.write_text(json.dumps(record, indent=1) + "\n")
        else:
            path.unlink(missing_ok=True)
        written.append(path.relative_to(root).as_posix())
    return sorted(set(written))


@functools.cache
def _versions() -> dict[str, str]:
    present = {d.metadata["Name"].lower() for d in metadata.distributions()}
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in PACKAGES if p in present}
