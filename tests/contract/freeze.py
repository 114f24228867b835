"""Freeze the contract from the sources as they are, whole or in parts.

    python tests/contract/freeze.py [PART ...] [--only NAME]

Without parts it writes signatures, snippets (code from docstrings, with its values), verbs, files (what the
committed ones give) and records. Two parts are by request only: "values" computes the values of the code that
is frozen, and "saved" writes the committed files anew. `--only` keeps to the frozen names that begin so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
for variable in ("OMP_NUM_THREADS", "JAX_DISABLE_MOST_OPTIMIZATIONS"):
    os.environ.setdefault(variable, "1")
sys.path[:0] = [str(HERE), str(HERE.parent)]

import contract_files  # noqa: E402
from contract_environment import as_frozen  # noqa: E402 - after the threads are set
from contract_names import FROZEN  # noqa: E402
from contract_records import SETTINGS, record_of  # noqa: E402
from contract_signatures import signatures  # noqa: E402
from contract_snippets import collected, values_of  # noqa: E402
from contract_verbs import SCENARIOS, answers  # noqa: E402

PARTS = ("signatures", "snippets", "verbs", "files", "records")


def write(part: str, found: dict[str, Any], only: str) -> None:
    """Write a part, one line per frozen name; under --only, the other names stay."""
    path = FROZEN / f"{part}.json"
    if only and path.exists():
        found = json.loads(path.read_text(encoding="utf-8")) | found
    text = json.JSONEncoder(sort_keys=True, allow_nan=False).encode
    lines = [f"{text(name)}: {text(value)}" for name, value in sorted(found.items())]
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{path.name}: {len(found)} names, {path.stat().st_size:,} bytes", file=sys.stderr)


def timed(names: Iterable[str], only: str, work: Callable[[str], Any]) -> dict[str, Any]:
    """Return what `work` gives for every name that begins with `only`, and report what takes long."""
    found = {}
    for name in names:
        if not name.startswith(only):
            continue
        start = sum(os.times()[:4])
        with as_frozen():
            found[name] = work(name)
        if (spent := sum(os.times()[:4]) - start) > 0.2:
            print(f"{spent:7.2f} CPU s  {name}", file=sys.stderr)
    return found


def frozen_snippets() -> dict[str, Any]:
    """Return the code that is frozen."""
    found: dict[str, Any] = json.loads((FROZEN / "snippets.json").read_text(encoding="utf-8"))
    return found


def freeze(part: str, only: str) -> None:
    """Freeze one part."""
    if part == "signatures":
        write(part, {name: value for name, value in signatures().items() if name.startswith(only)}, only)
    elif part in ("snippets", "values"):
        snippets = collected() if part == "snippets" else frozen_snippets()
        code = {name: {key: snippet[key] for key in ("uses", "code")} for name, snippet in snippets.items()}
        write(
            "snippets", timed(code, only, lambda name: code[name] | {"values": values_of(code[name])}), only
        )
    elif part == "verbs":
        write(part, timed(SCENARIOS, only, answers), only)
    elif part == "saved":
        timed(contract_files.KINDS, only, contract_files.save)
    elif part in ("files", "records"):
        work = (
            contract_files.read if part == "files" else lambda name, folder: record_of(name, folder / "run")
        )
        folder = Path(tempfile.mkdtemp())
        try:
            names = contract_files.KINDS if part == "files" else SETTINGS
            found = timed(names, only, lambda name: work(name, Path(tempfile.mkdtemp(dir=folder))))
            write(part, found, only)
        finally:
            shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*PARTS, "values", "saved", []], metavar="PART")
    parser.add_argument("--only", default="", metavar="NAME")
    options = parser.parse_args()
    start = time.process_time()
    for part in options.parts or PARTS:
        freeze(part, options.only)
    print(f"{time.process_time() - start:.0f} CPU seconds", file=sys.stderr)


if __name__ == "__main__":
    main()
