"""What is published names no machine: no private path, no package index of ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRIVATE = re.compile(
    r"(?<![\w.$~/*-])/(?:work|root|tmp|home|mnt|Users)/[\w.-]"
    r"|\b(?:artifactory|devpi|nexus|verdaccio)\b"
    r"|(?:--index-url|--extra-index-url|--trusted-host|PIP_INDEX_URL)\b"
    r"|\b(?:10\.\d{1,3}|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}\b",
    re.IGNORECASE,
)
THIS = Path(__file__).name
TOP = "/"
"""Kept apart from the folders below, so that this file names none either."""


def tracked_files() -> list[Path]:
    """Return the files under version control, or all of them in an unpacked archive."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        names = [name for name in listed.stdout.split("\0") if name]
        return [ROOT / name for name in names if (ROOT / name).is_file()]
    folders = ("src", "tests", "docs", "examples", "benchmarks")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in found if "__pycache__" not in path.parts]


def private_words(text: str) -> list[str]:
    """Return the lines that name a machine."""
    return [line.strip() for line in text.splitlines() if PRIVATE.search(line)]


def test_tracked_files_should_name_no_machine():
    named = {}
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" in content[:4096] or path.name == THIS:
            continue
        lines = private_words(content.decode("utf-8"))
        if lines:
            named[str(path.relative_to(ROOT))] = lines
    assert named == {}


@pytest.mark.parametrize(
    "text",
    [
        f"see {TOP}work/x/notes",
        f"open('{TOP}tmp/a.csv')",
        f"cd {TOP}root/.cache",
        f"in {TOP}home/ann/metier",
        "pip install --index-url https://x",
        "https://artifactory.example.com/pypi",
        "http://192.168.0.7:3141/simple",
    ],
)
def test_private_words_should_be_found(text):
    assert private_words(text) == [text]


@pytest.mark.parametrize(
    "text",
    [f"https://example.com{TOP}work/of/art", f"src{TOP}tmp/x", "127.0.0.1", f"a{TOP}root/b"],
)
def test_public_words_should_pass(text):
    assert private_words(text) == []
