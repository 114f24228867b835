"""The locks: complete for every extra, the same for everybody, and within the ranges of pyproject.toml."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = sorted((ROOT / "locks").glob("py*.txt"))
# The one this Python is installed from.
LOCK = ROOT / "locks" / f"py{sys.version_info[0]}.{sys.version_info[1]}.txt"


def lines_of(path):
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def versions_of(path):
    """Package -> its versions; there are several where a marker tells systems apart."""
    found = {}
    for requirement in map(Requirement, lines_of(path)):
        found.setdefault(canonicalize_name(requirement.name), []).append(
            str(requirement.specifier).removeprefix("==")
        )
    return found


def direct():
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    found = [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]
    return [requirement for requirement in found if requirement.name != "metier"]


def test_there_should_be_a_lock_for_every_python_that_the_project_names():
    named = {c.split(" :: ")[-1] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)}
    assert {path.stem.removeprefix("py") for path in LOCKS} == named


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_should_hold_names_and_exact_versions_only(path):
    for line in lines_of(path):
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert (specifier.operator, requirement.url) == ("==", None), line
    assert not re.search(r"https?:|file:|--|index", "\n".join(lines_of(path)))
    assert not any(name.startswith(("nvidia-", "cuda-", "triton")) for name in versions_of(path))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_should_cover_every_requirement_of_every_extra_within_its_range(path):
    versions = versions_of(path)
    for requirement in direct():
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is in no line of {path.name}: run `make lock`"
        assert all(requirement.specifier.contains(v) for v in versions[name]), f"{name} in {path.name}"


def test_the_lock_should_cover_what_the_requirements_need_in_turn():
    """Walk the metadata of what is installed; what is not installed here was locked with the rest."""
    locked = versions_of(LOCK)
    waiting = [(canonicalize_name(r.name), frozenset(r.extras)) for r in direct()]
    seen, uncovered = set(), set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name not in locked:
            uncovered.add(name)
        try:
            needed = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name == "simbench":
            continue  # installed without what its code needs
        for requirement in map(Requirement, needed):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    assert len(seen) > 100
    # A CUDA build of torch brings these where the index has no CPU build.
    cuda = {name for name in uncovered if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert uncovered == cuda


def test_doctor_should_know_the_locked_versions_of_what_users_install():
    tested = json.loads((ROOT / "src/metier/core/tested.json").read_text())
    locked = versions_of(LOCKS[0])
    assert all(version in locked[name] for name, version in tested.items())
    assert {"numpy", "torch", "transformers", "jax", "polars"} <= set(tested)


def test_the_build_tools_should_be_locked_too():
    assert "--no-build-isolation" in (ROOT / "Makefile").read_text()
    assert {"hatchling", "editables"} <= set(versions_of(LOCKS[0]))


def test_every_lower_bound_should_be_one_version_and_no_install_line_should_ask_for_constraints():
    for requirement in direct():
        assert any(s.operator in (">=", "==") for s in requirement.specifier), requirement
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for line in page.read_text().splitlines():
            if "pip install" in line and page.name not in ("lab_log.md",):
                assert " -c " not in line, f"{page.name}: {line}"
                assert "metier[" not in line, f"{page.name}: {line}"
