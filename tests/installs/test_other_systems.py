"""Windows and macOS: no module and no call that only POSIX has."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
POSIX_MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog", "crypt"}
POSIX_CALLS = {
    "fork",
    "forkpty",
    "getuid",
    "geteuid",
    "killpg",
    "setsid",
    "uname",
    "statvfs",
    "mkfifo",
    "chown",
}
TOY = ROOT / "tests" / "cli" / "toy_study.py"

# Only what metier itself imports is blocked; other libraries have code of their own for those systems.
ELSEWHERE = """
import builtins, os, sys
plain = builtins.__import__
def without(name, globals=None, locals=None, fromlist=(), level=0):
    if name.split(".")[0] in MODULES and (globals or {}).get("__name__", "").split(".")[0] == "metier":
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return plain(name, globals, locals, fromlist, level)
builtins.__import__ = without
for call in ("fork", "forkpty", "sched_getaffinity"):
    if hasattr(os, call):
        delattr(os, call)
"""


def test_the_source_should_import_and_call_nothing_that_only_posix_has():
    found = set()
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module.split(".")[0]} if node.module and not node.level else set()
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os":
                names = {f"os.{node.attr}"}
            else:
                continue
            wrong = names & (POSIX_MODULES | {f"os.{call}" for call in POSIX_CALLS})
            found |= {f"{path.relative_to(ROOT)}:{node.lineno} {name}" for name in wrong}
    assert not found


def run_elsewhere(folder, script):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(TOY.parent)])}
    code = f"MODULES = {POSIX_MODULES!r}\n{ELSEWHERE}\n{script}"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment, check=False
    )


def test_doctor_forecast_and_a_study_should_run_without_posix_modules(tmp_path):
    rows = "\n".join(f"s{k},{i},{(i * 7 + k) % 11}.5" for k in range(4) for i in range(140))
    (tmp_path / "shop.csv").write_text(f"unique_id,ds,y\n{rows}\n")
    script = """
import json
from toy_study import ENTRY
from metier.cli import main
from metier.core.registry import registry
registry()["toy"] = ENTRY
codes = {
    "doctor": main(["doctor"]),
    "run": main(["run", "toy", "--out", "t"]),
    "again": main(["run", "toy", "--out", "t", "--resume"]),
    "forecast": main(["forecast", "shop.csv", "--horizon", "5", "--out", "f"]),
}
print(json.dumps(codes))
"""
    done = run_elsewhere(tmp_path, script)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == dict.fromkeys(
        ("doctor", "run", "again", "forecast"), 0
    )
    assert (tmp_path / "t" / "report.html").exists()


def test_the_block_should_block(tmp_path):
    done = run_elsewhere(tmp_path, "exec('import fcntl', {'__name__': 'metier.runs.lock'})")
    assert "No module named 'fcntl'" in done.stderr
