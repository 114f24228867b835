"""Inside a package no two files import each other, by whatever way: what two files need goes below both."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

import metier

SRC = Path(metier.__file__).parent
STUDIES = SRC.parents[1] / "studies"
PACKAGES = [*sorted(path.parent.name for path in SRC.glob("*/__init__.py")), "metier_studies"]
STILL_CIRCULAR: dict[str, tuple[str, ...]] = {
    "forecast": ("backtest", "forecaster", "persistence", "settings", "words.describe"),
    "partners": (
        "games.cooking",
        "games.cooking_view",
        "pairing",
        "pictures",
        "training.progress",
        "training.xp_terms",
        "training.xp_trainer",
    ),
    "metier_studies": (
        "bilevel_iv.findings",
        "bilevel_iv.study",
        "bilevel_paper.findings",
        "bilevel_paper.study",
        "bilevel_warnings.findings",
        "bilevel_warnings.study",
        "exponents.claims",
        "exponents.findings",
        "exponents.half_figures",
        "exponents.measures",
        "exponents.study",
        "forecast_flights.result",
        "forecast_flights.study",
        "forecast_gate.findings",
        "forecast_gate.study",
        "moe_balancing.findings",
        "moe_balancing.study",
        "multilinear_digits.findings",
        "multilinear_digits.study",
        "partners_pipeline.findings",
        "partners_pipeline.study",
    ),
}
"""Files on a circle, by package. A circle that is gone leaves this table; a new one never enters it."""


def imported_modules(path: Path, root: Path, files: Collection[str]) -> Iterator[str]:
    """Yield what a file imports of its own tree, as "package.module", whether for types or in a function."""
    package = path.relative_to(root).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name.removeprefix("metier.") for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join((*parent, *([node.module] if node.module else []))).removeprefix("metier.")
            # `from . import b` asks for a file, `from .folder import x` for what its `__init__` holds.
            yield from (full if (full := f"{name}.{a.name}") in files else name for a in node.names)


def import_graph(package: str, root: Path = SRC) -> dict[str, set[str]]:
    """Return which files of a package each of its files imports.

    The package's own `__init__` re-exports everything and is left out; that of a folder in it is a file.
    """
    files = {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (root / package).rglob("*.py")
    }
    del files[package]
    return {
        name: {module for module in imported_modules(path, root, files) if module in files and module != name}
        for name, path in files.items()
    }


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of files that reach each other, largest first."""
    reached = {name: _reachable(name, graph) for name in graph}
    groups = {
        frozenset({other for other in reached[name] if name in reached[other]})
        for name in graph
        if name in reached[name]
    }
    return sorted((set(group) for group in groups), key=lambda group: (-len(group), sorted(group)))


def _reachable(start: str, graph: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    queue = list(graph[start])
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += graph[name]
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_files_of_a_package_should_form_no_circle(package):
    root = STUDIES if package == "metier_studies" else SRC
    on_a_circle = set().union(*circles(import_graph(package, root)))
    # Equality, so that a circle that was removed cannot come back.
    assert on_a_circle == {f"{package}.{name}" for name in STILL_CIRCULAR.get(package, ())}


def test_the_table_should_name_packages():
    assert set(STILL_CIRCULAR) <= set(PACKAGES)


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for place, text in files.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    ("there", "back"),
    [
        ("from .b import x", "from .a import y"),
        ("from . import b", "from .a import y"),
        ("from . import c, b", "from .a import y"),
        ("import metier.family.b", "from metier.family.a import y"),
        ("from metier.family import b", "from metier.family.a import y"),
        ("def f():\n    from .b import x", "def g():\n    from .a import y"),
        ("if TYPE_CHECKING:\n    from .b import x", "from .a import y"),
    ],
)
def test_a_circle_of_two_should_be_found(tmp_path, there, back):
    root = write_tree(tmp_path, {"family/__init__.py": "", "family/a.py": there, "family/b.py": back})
    assert circles(import_graph("family", root)) == [{"family.a", "family.b"}]


def test_a_long_circle_through_a_folder_should_be_found_apart_from_a_short_one(tmp_path):
    files = {
        "family/__init__.py": "from .a import x",
        "family/a.py": "from .deep.b import x",
        "family/deep/b.py": "from ..c import x",
        "family/c.py": "from metier.family.a import x",
        "family/d.py": "from .e import x\nfrom .a import x",
        "family/e.py": "from .d import x",
    }
    found = circles(import_graph("family", write_tree(tmp_path, files)))
    assert found == [{"family.a", "family.deep.b", "family.c"}, {"family.d", "family.e"}]


def test_the_init_of_a_folder_should_count_as_a_file(tmp_path):
    files = {
        "family/a.py": "from .deep import x",
        "family/deep/__init__.py": "from .b import x",
        "family/deep/b.py": "from ..a import y",
        "family/deep/c.py": "from . import b",
    }
    found = circles(import_graph("family", write_tree(tmp_path, {"family/__init__.py": "", **files})))
    assert found == [{"family.a", "family.deep", "family.deep.b"}]


def test_trees_without_a_circle_should_pass(tmp_path):
    files = {
        "family/__init__.py": "from .a import x",
        "family/a.py": "import metier\nfrom metier.family import y\nfrom .b import x\nfrom .c import x",
        "family/b.py": "from .c import x\nfrom metier.other.a import b",
        "family/c.py": "import numpy",
        "other/a.py": "from metier.family.a import x",
    }
    root = write_tree(tmp_path, files)
    assert import_graph("family", root)["family.a"] == {"family.b", "family.c"}
    assert circles(import_graph("family", root)) == []
