"""Evidence: recorded with its size and the hash of its sources, current until one of them changes."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import evidence_records

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / evidence_records.FOLDER).glob("*.json"))


@pytest.fixture
def tree(tmp_path):
    """A project with one source folder and one evidence test; its item as pytest would hand it over."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("x = 1\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("def test_it(): ...\n")
    mark = SimpleNamespace(args=("src",))
    return tmp_path, SimpleNamespace(
        path=tmp_path / "tests" / "test_a.py",
        name="test_it[3]",
        originalname="test_it",
        get_closest_marker=lambda name: mark if name == "evidence" else None,
    )


def reports_of(root, item, outcomes=("passed", "passed", "passed"), **amounts):
    """The reports of set-up, call and tear-down, as pytest would hand them over; phases may be missing."""
    evidence_records.source_hash.cache_clear()
    about = evidence_records.described(root, item)
    return [
        SimpleNamespace(
            user_properties=[("evidence", about), ("amounts", amounts)],
            when=phase,
            outcome=outcome,
            duration=1.0,
            nodeid=f"tests/test_a.py::{item.name}",
        )
        for phase, outcome in zip(("setup", "call", "teardown"), outcomes, strict=True)
        if outcome is not None
    ]


def current(root, item):
    evidence_records.source_hash.cache_clear()
    return evidence_records.is_current(root, item)


def test_a_record_should_be_current_until_a_source_changes(tree):
    root, item = tree
    assert not current(root, item)
    (written,) = evidence_records.write(root, reports_of(root, item, kills=30), "2026-01-02")
    record = json.loads((root / written).read_text())
    own = {key: record["cases"]["test_it[3]"].pop(key) for key in ("sources", "hash")}
    assert record["cases"]["test_it[3]"] == {
        "outcome": "passed",
        "seconds": 3.0,
        "date": "2026-01-02",
        "versions": evidence_records._versions(),
        "kills": 30,
    }
    assert set(own["sources"]) == {"src", "tests/test_a.py"}
    assert current(root, item)
    (root / "src" / "a.py").write_text("x = 2\n")
    assert not current(root, item)


def test_the_test_itself_should_count_as_a_source(tree):
    root, item = tree
    evidence_records.write(root, reports_of(root, item), "2026-01-02")
    item.path.write_text("def test_it(): assert True\n")
    assert not current(root, item)


@pytest.mark.parametrize(
    "outcomes",
    [
        ("passed", "failed", "passed"),
        ("passed", "passed", "failed"),
        ("failed", None, "passed"),
        ("skipped", None, "passed"),
    ],
)
def test_what_did_not_pass_clean_should_lose_the_place_of_an_earlier_pass(tree, outcomes):
    root, item = tree
    evidence_records.write(root, reports_of(root, item), "2026-01-02")
    assert current(root, item)
    evidence_records.write(root, reports_of(root, item, outcomes), "2026-01-03")
    assert not current(root, item)


def test_an_expected_failure_should_not_count_as_a_pass(tree):
    root, item = tree
    reports = reports_of(root, item)
    reports[1].wasxfail = "known"
    evidence_records.write(root, reports, "2026-01-02")
    assert not current(root, item)


def test_helpers_data_and_conftest_should_count_as_sources(tree):
    root, item = tree
    for name in ("conftest.py", "tests/helper.py", "src/table.csv"):
        (root / name).write_text("1\n")
        evidence_records.write(root, reports_of(root, item), "2026-01-02")
        assert current(root, item)
        (root / name).write_text("2\n")
        assert not current(root, item), name


def test_cases_of_older_sources_should_be_dropped(tree):
    root, item = tree
    evidence_records.write(root, reports_of(root, item), "2026-01-02")
    (root / "src" / "b.py").write_text("y = 1\n")
    item.name = "test_it[4]"
    (written,) = evidence_records.write(root, reports_of(root, item), "2026-01-03")
    assert list(json.loads((root / written).read_text())["cases"]) == ["test_it[4]"]


def test_cases_with_sources_of_their_own_should_stand_side_by_side(tree):
    root, item = tree
    evidence_records.write(root, reports_of(root, item), "2026-01-02")
    (root / "other").mkdir()
    (root / "other" / "b.py").write_text("y = 1\n")
    mark = SimpleNamespace(args=("other",))
    second = SimpleNamespace(**{**vars(item), "name": "test_it[4]"})
    second.get_closest_marker = lambda name: mark
    evidence_records.write(root, reports_of(root, second), "2026-01-02")
    assert current(root, item)
    assert current(root, second)
    (root / "other" / "b.py").write_text("y = 2\n")
    assert current(root, item)
    assert not current(root, second)


def test_what_runs_write_should_be_no_source(tree):
    root, item = tree
    item.get_closest_marker = lambda name: SimpleNamespace(args=("src", "benchmarks"))
    (root / "benchmarks" / "results").mkdir(parents=True)
    evidence_records.write(root, reports_of(root, item), "2026-01-02")
    (root / "benchmarks" / "results" / "a.json").write_text("{}")
    assert current(root, item)


def evidence_calls(node, named):
    """Every `pytest.mark.evidence(...)` within, looked up through the names that a file gives to marks."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and ast.unparse(inner.func) == "pytest.mark.evidence":
            yield inner
        elif isinstance(inner, ast.Name) and inner.id in named:
            yield from evidence_calls(named[inner.id], {})


def marked_tests():
    """`file::name` of every test that carries the mark, with the sources it names."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if "mark.evidence" not in path.read_text():
            continue
        body = ast.parse(path.read_text()).body
        named = {ast.unparse(n.targets[0]): n.value for n in body if isinstance(n, ast.Assign)}
        # Marks that a function gives to each parameter count as well.
        named |= {n.name: n for n in body if isinstance(n, ast.FunctionDef)}
        for node in body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                calls = [call for mark in node.decorator_list for call in evidence_calls(mark, named)]
                if calls:
                    name = f"{path.relative_to(ROOT).as_posix()}::{node.name}"
                    found[name] = [ast.unparse(argument) for argument in calls[0].args]
    return found


def test_every_piece_of_evidence_should_name_sources_that_exist():
    found = marked_tests()
    assert found
    for name, sources in found.items():
        plain = [ast.literal_eval(source) for source in sources if source.startswith(("'", '"'))]
        assert sources, name
        assert all((ROOT / source).exists() for source in plain), name


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_every_record_should_belong_to_a_test_and_hold_no_failure(path):
    record = json.loads(path.read_text())
    assert record["test"] in marked_tests()
    assert evidence_records.record_path(ROOT, record["test"]) == path
    assert {case["outcome"] for case in record["cases"].values()} == {"passed"}
