"""A test that cannot fail is a defect: no test without a check, no dropped comparison, no constant check."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.rglob("*.py"))

CHECKING_CONTEXTS = {"raises", "warns"}
BOOLEAN_CALLS = {
    "all",
    "any",
    "allclose",
    "array_equal",
    "array_equiv",
    "equals",
    "isclose",
    "isfinite",
    "isinstance",
    "isnan",
    "issubclass",
}


def called_name(call: ast.Call) -> str:
    """Return the last word of what is called: `np.testing.assert_allclose` -> "assert_allclose"."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def checks_itself(function: ast.AST) -> bool:
    """Whether a function asserts, expects an exception, or calls something that says it asserts."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = called_name(node)
            if name in CHECKING_CONTEXTS or name.startswith(("assert_", "fail")):
                return True
    return False


def callables_of(tree: ast.Module) -> dict[str, ast.AST]:
    """Return all functions and classes of a file by name: calling a class runs its checks too."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {node.name: node for node in ast.walk(tree) if isinstance(node, kinds)}


def unchecked_tests(tree: ast.Module) -> list[str]:
    """Return the tests that check nothing, neither themselves nor through helpers of their own file."""
    functions = callables_of(tree)
    checking = {name for name, function in functions.items() if checks_itself(function)}
    while True:
        more = {
            name
            for name, function in functions.items()
            if name not in checking
            and any(isinstance(n, ast.Call) and called_name(n) in checking for n in ast.walk(function))
        }
        if not more:
            break
        checking |= more
    return [name for name in functions if name.startswith("test_") and name not in checking]


def is_dropped_truth(value: ast.expr) -> bool:
    """Whether an expression statement computes a truth value that nobody looks at."""
    if isinstance(value, ast.Compare | ast.BoolOp):
        return True
    if isinstance(value, ast.UnaryOp):
        return isinstance(value.op, ast.Not)
    return isinstance(value, ast.Call) and called_name(value) in BOOLEAN_CALLS


def is_constant_check(test: ast.expr) -> bool:
    """Whether an assertion cannot fail: `assert True`, `assert (condition, message)`, `assert x == x`."""
    if isinstance(test, ast.Tuple):
        return bool(test.elts)
    if isinstance(test, ast.Constant):
        return bool(test.value)
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
        same = ast.dump(test.left) == ast.dump(test.comparators[0])
        return same and not any(isinstance(n, ast.Call) for n in ast.walk(test.left))
    return False


def inside_expected_error(tree: ast.Module) -> set[int]:
    """Return the ids of nodes inside `pytest.raises` or `warns`, where an expression may stand alone."""
    return {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        and any(
            isinstance(item.context_expr, ast.Call) and called_name(item.context_expr) in CHECKING_CONTEXTS
            for item in node.items
        )
        for inner in ast.walk(node)
    }


def faults(tree: ast.Module) -> Iterator[str]:
    """Yield every vacuous test, dropped truth value and constant check of a file."""
    yield from (f"{name} checks nothing" for name in unchecked_tests(tree))
    excused = inside_expected_error(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and is_dropped_truth(node.value) and id(node) not in excused:
            yield f"line {node.lineno} drops a truth value: {ast.unparse(node)}"
        if isinstance(node, ast.Assert) and is_constant_check(node.test):
            yield f"line {node.lineno} cannot fail: {ast.unparse(node)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_should_be_vacuous(path):
    assert list(faults(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("def test_a():\n    f()", "test_a checks nothing"),
        ("class TestA:\n    def test_b(self):\n        f()", "test_b checks nothing"),
        ("def helper():\n    f()\ndef test_a():\n    helper()", "test_a checks nothing"),
        ("def test_a():\n    assert f()\n    x == 1", "line 3 drops a truth value: x == 1"),
        ("def test_a():\n    assert f()\n    not x", "line 3 drops a truth value: not x"),
        (
            "def test_a():\n    assert f()\n    np.allclose(x, y)",
            "line 3 drops a truth value: np.allclose(x, y)",
        ),
        ("def test_a():\n    assert (x == 1, 'm')", "line 2 cannot fail: assert (x == 1, 'm')"),
        ("def test_a():\n    assert True", "line 2 cannot fail: assert True"),
        ("def test_a():\n    assert x == x", "line 2 cannot fail: assert x == x"),
    ],
)
def test_faults_should_be_found(code, fault):
    assert list(faults(ast.parse(code))) == [fault]


@pytest.mark.parametrize(
    "code",
    [
        "def test_a():\n    assert f() == 1",
        "def helper(x):\n    assert x\ndef test_a():\n    helper(1)",
        "def test_a():\n    with pytest.raises(ValueError, match='x'):\n        a < b",
        "def test_a():\n    np.testing.assert_allclose(x, y)",
        "def test_a():\n    assert f(0) == f(0)",
        "class Page:\n    def __init__(self, x):\n        assert x\ndef test_a():\n    Page(1)",
        "def helper():\n    f()",
    ],
)
def test_honest_tests_should_pass(code):
    assert list(faults(ast.parse(code))) == []
