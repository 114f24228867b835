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
    """SHA-256 of the names and bytes of all Python files that `sources` (files or folders) hold."""
    files = {
        file
        for source in sources
        for file in ((root / source).rglob("*.py") if (root / source).is_dir() else [root / source])
    }
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
    sources = tuple(sorted({*mark.args, own}))
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
    record = json.loads(path.read_text())
    return bool(
        record["hash"] == now["hash"] and record["cases"].get(item.name, {}).get("outcome") == "passed"
    )


def write(root: Path, reports: list[Any], date: str) -> list[str]:
    """Merge the outcomes of `reports` into one record per test; cases of older sources are dropped."""
    written = []
    for report in reports:
        properties = dict(report.user_properties)
        about = properties.get("evidence")
        if (
            about is None
            or report.when not in ("call", "setup")
            or (report.when == "setup" and report.passed)
        ):
            continue
        path = record_path(root, about["test"])
        record = json.loads(path.read_text()) if path.exists() else {}
        cases = record["cases"] if record.get("hash") == about["hash"] else {}
        case = {"outcome": report.outcome, "seconds": round(report.duration, 1), "date": date}
        cases[report.nodeid.split("::")[-1]] = {**case, **properties.get("amounts", {})}
        content = {**about, "versions": _versions(), "cases": dict(sorted(cases.items()))}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n")
        written.append(path.relative_to(root).as_posix())
    return sorted(set(written))


@functools.cache
def _versions() -> dict[str, str]:
    present = {d.metadata["Name"].lower() for d in metadata.distributions()}
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in PACKAGES if p in present}
