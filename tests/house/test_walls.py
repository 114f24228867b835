"""The way of the data is one-directional: cli -> studies -> families -> core; `report` reads records only."""

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
    "studies": {"core", "data", "records", "runs", *FAMILIES},
    "cli": {"core", "data", "records", "runs", "report", "studies", *FAMILIES},
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
    inside = {name.removeprefix("metier.") for name in names if name.startswith("metier.")}
    return {name for name in inside if name.split(".")[0] != parts[0] and name != "__version__"}


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
    assert {"core", "data", "forecast", "records", "runs", "report", "studies", "cli"} <= rooms


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
        ("runs/a.py", "from metier.studies import execute", ["studies"]),
        ("studies/a.py", "from metier.cli.answer import say", ["cli.answer"]),
        ("studies/a.py", "from metier.report import write_report", ["report"]),
        ("cli/a.py", "from metier.studies import execute", []),
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
