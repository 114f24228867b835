"""The way of the data is one-directional: cli -> families -> core; studies -> families; records -> report."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import metier

SRC = Path(metier.__file__).parent
FAMILIES = ("forecast", "moe", "partners", "bilevel", "multi_index")
"""Rooms for all six systems; those not built yet are checked from their first file on."""

MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "data": {"core"},
    "records": {"core"},
    **{family: {"core", "records"} for family in FAMILIES},
    "runs": {"core", "records"},
    "report": {"core.errors", "records", "runs"},
    "cli": {"core", "data", "records", "runs", "report", *FAMILIES},
}


def imported_names(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Yield the modules that a file imports, relative imports resolved against its package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*parent, *([node.module] if node.module else [])))
            # `from metier import data` names a room, `from metier.core import x` a room's content.
            yield from (f"metier.{a.name}" for a in node.names) if module == "metier" else (module,)


def foreign_rooms(path: Path, root: Path = SRC) -> set[str]:
    """Return what a file imports of the rest of metier, as "room" or "room.module"."""
    parts = path.relative_to(root).parts
    names = imported_names(ast.parse(path.read_text(encoding="utf-8")), ("metier", *parts[:-1]))
    found = set(names)
    inside = {name.removeprefix("metier.") for name in found if name.startswith("metier.")}
    studies = {"metier_studies" for name in found if name.split(".")[0] == "metier_studies"}
    return studies | {n for n in inside if n.split(".")[0] != parts[0] and n != "__version__"}


def breaches(path: Path, root: Path = SRC) -> list[str]:
    """Return the imports of a file that its room may not have."""
    room = path.relative_to(root).parts[0]
    allowed = MAY_IMPORT[room]
    # A room's name allows all of it, except that the report reads of core the errors alone.
    return sorted(
        name
        for name in foreign_rooms(path, root)
        if name not in allowed and name.split(".")[0] not in allowed
    )


ROOM_FILES = sorted(path for path in SRC.rglob("*.py") if path.parent != SRC)


def test_every_room_should_be_known():
    rooms = {path.relative_to(SRC).parts[0] for path in ROOM_FILES}
    assert rooms <= set(MAY_IMPORT)
    assert {"core", "data", "forecast", "records", "runs", "report", "cli"} <= rooms


@pytest.mark.parametrize("path", ROOM_FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_should_respect_the_walls(path):
    assert breaches(path) == []


@pytest.mark.parametrize(
    ("place", "line", "broken"),
    [
        ("core/a.py", "from metier.data import load", ["data"]),
        ("core/a.py", "from metier import runs", ["runs"]),
        ("core/a.py", "from ..forecast import x", ["forecast"]),
        ("core/a.py", "def f():\n    import metier.cli.app", ["cli.app"]),
        ("core/a.py", "from .errors import InputError", []),
        ("data/a.py", "from metier.core.checks import one_of", []),
        ("data/a.py", "from metier.forecast import ClusterForecaster", ["forecast"]),
        ("forecast/a.py", "import metier.moe", ["moe"]),
        ("forecast/deep/a.py", "from ...runs import Run", ["runs"]),
        ("report/a.py", "from metier.core import Assignment", ["core"]),
        ("report/a.py", "from metier.records.results import Result", []),
        ("runs/a.py", "from metier_studies import execute", ["metier_studies"]),
        ("cli/a.py", "from metier_studies.lib.shares import share", ["metier_studies"]),
        ("cli/a.py", "from metier.runs import execute", []),
    ],
)
def test_breaches_should_be_found(tmp_path, place, line, broken):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert breaches(path, tmp_path) == broken


def test_the_front_door_should_import_rooms_only_on_demand():
    tree = ast.parse((SRC / "__init__.py").read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    eager = [ast.unparse(n) for n in imports if id(n) not in guarded]
    assert not [text for text in eager if "metier" in text]


STUDIES = SRC.parents[1] / "studies" / "metier_studies"
STUDY_FILES = sorted(path for path in STUDIES.rglob("*.py") if path.parent != STUDIES)
STILL_SHARED = {
    ("bilevel_iv", "bilevel_paper"),
    ("multilinear_minilm", "moe_upcycling"),
    ("multilinear_digits", "moe_balancing"),
}
"""Imports between studies that are still to go: (who, of whom)."""


def imports_of_a_study(path: Path) -> set[str]:
    package = ("metier_studies", *path.relative_to(STUDIES).parts[:-1])
    names = set(imported_names(ast.parse(path.read_text(encoding="utf-8")), package))
    return {
        ".".join(name.split(".")[:2]) for name in names if name.startswith(("metier.", "metier_studies."))
    }


@pytest.mark.parametrize("path", STUDY_FILES, ids=lambda path: str(path.relative_to(STUDIES)))
def test_a_study_should_import_the_library_and_no_other_study(path):
    own = path.relative_to(STUDIES).parts[0]
    allowed = {f"metier.{room}" for room in ("core", "data", "records", "runs", *FAMILIES)}
    allowed |= {"metier_studies.lib", f"metier_studies.{own}", *(f"metier.{name}" for name in metier.__all__)}
    others = imports_of_a_study(path) - allowed
    assert {(own, name.split(".")[1]) for name in others} <= STILL_SHARED, sorted(others)


def test_shared_studies_should_still_share():
    """The list above shrinks: an entry whose import is gone has to go too."""
    found = {
        (path.relative_to(STUDIES).parts[0], name.split(".")[1])
        for path in STUDY_FILES
        for name in imports_of_a_study(path)
        if name.startswith("metier_studies.")
    }
    assert found >= STILL_SHARED
