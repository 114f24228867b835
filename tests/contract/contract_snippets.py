"""Code that uses each public name, and the values that it gives.

The code stands in the frozen file, so that a later edit of a docstring changes nothing. It names no module:
"uses" says which public name each of its own stands for, found today where `intended.toml` puts it.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import functools
import importlib
import io
import random
import re
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from contract_handwritten import SNIPPETS, UNEXECUTED
from contract_names import PACKAGES, is_builtin, locate, place_of, public_name_of, public_names
from contract_summary import summary


def collected() -> dict[str, dict[str, Any]]:
    """Return code and uses of every snippet, from docstrings and from `contract_handwritten`."""
    found = {}
    for name, home, code in (*_docstring_examples(), *_handwritten()):
        if name not in UNEXECUTED:
            found[name] = resolved(name, home, code)
    return found


def _docstring_examples() -> Iterator[tuple[str, dict[str, Any], str]]:
    parser, seen = doctest.DocTestParser(), set()
    for name, value in public_names().items():
        if id(value) in seen or not callable(value):
            continue
        seen.add(id(value))
        parts = [(name, value)]
        if isinstance(value, type):
            parts += [(f"{name}.{k}", v) for k, v in vars(value).items() if not k.startswith("_")]
        for label, part in parts:
            examples = (
                parser.get_examples(getattr(part, "__doc__", None) or "") if label not in SNIPPETS else []
            )
            code = "".join(example.source for example in examples if example.exc_msg is None)
            module = getattr(part, "__module__", None) or getattr(value, "__module__", None)
            if code:
                yield label, vars(importlib.import_module(module)), code


def _handwritten() -> Iterator[tuple[str, dict[str, Any], str]]:
    every = {name.rpartition(".")[2]: value for name, value in public_names().items()}
    for name, code in SNIPPETS.items():
        package = next(p for p in sorted(PACKAGES, key=len, reverse=True) if name.startswith(f"{p}."))
        yield name, every | vars(importlib.import_module(place_of(package))) | {"np": np}, code.strip() + "\n"


def resolved(name: str, home: dict[str, Any], code: str) -> dict[str, Any]:
    """Return code without imports of ours, and the public name that each free name of it stands for."""
    near = next((p for p in sorted(PACKAGES, key=len, reverse=True) if name.startswith(f"{p}.")), "metier")
    tree, wanted = ast.parse(code), {}
    for node in [n for n in tree.body if _is_ours(n)]:
        module = importlib.import_module("." * node.level + (node.module or ""), home.get("__package__"))
        for alias in node.names:
            found = getattr(module, alias.name, None)
            found = found or importlib.import_module(f"{module.__name__}.{alias.name}")
            wanted[alias.asname or alias.name] = found
    tree.body = [node for node in tree.body if not _is_ours(node)]
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    kinds = ast.FunctionDef | ast.ClassDef
    bound |= {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    for free in sorted({node.id for node in names} - bound - wanted.keys()):
        if free in home:
            wanted[free] = home[free]
        elif not is_builtin(free):
            raise LookupError(f"{name}: nothing is called {free!r}")
    used = {node.id for node in names}
    uses = {free: public_name_of(value, near) for free, value in sorted(wanted.items()) if free in used}
    private = sorted(free for free, found in uses.items() if found is None)
    if private:
        raise LookupError(f"{name}: not public: {', '.join(private)}; write a snippet by hand")
    return {"uses": uses, "code": [ast.unparse(node) for node in tree.body]}


def _is_ours(node: ast.stmt) -> bool:
    ours = isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] == "metier")
    return bool(ours)


def values_of(snippet: dict[str, Any]) -> dict[str, Any]:
    """Run a snippet and describe what its expressions give and its assignments bind, by line."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - for code that draws from it unasked
    with contextlib.suppress(ImportError):
        import torch

        torch.manual_seed(0)
    space = {"__name__": "contract"} | {free: locate(public) for free, public in snippet["uses"].items()}
    found: dict[str, Any] = {}
    ours = {free for free, public in snippet["uses"].items() if public.startswith("metier")}
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        warnings.simplefilter("ignore")
        for k, line in enumerate(snippet["code"]):
            (node,) = ast.parse(line).body
            results: dict[str, Any] = {}
            space[RECORDER] = functools.partial(_recorded, results)
            node = ast.fix_missing_locations(_Recording(ours).visit(node))
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                found |= {f"{k} {name}".strip(): summary(value) for name, value in _ran(node, space)}
            found |= {f"{k} {call}": value for call, value in results.items()}
            if numbers := _numbers(printed.getvalue()):
                found[f"{k} printed"] = numbers
    return found


RECORDER = "_contract_recorder"
UNRECORDED = {
    "capture_environment": "describes the machine and its packages",
    "read_environment": "describes the machine and its packages",
    "rebuild": "its weights are whatever the memory held until a state is loaded",
}


class _Recording(ast.NodeTransformer):
    """Hand what public names return to the recorder: examples often show one attribute of it only."""

    def __init__(self, ours: set[str]) -> None:
        self.ours = ours

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        # What a name is bound to is described as that name.
        inner = self.generic_visit if isinstance(node.value, ast.Call) else self.visit
        node.value = inner(node.value)
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        called = ast.unparse(node.func)
        if not called.replace(".", "").replace("_", "").isalnum() or called.split(".")[0] not in self.ours:
            return node
        return ast.Call(ast.Name(RECORDER, ast.Load()), [ast.Constant(called), node], [])


def _recorded(results: dict[str, Any], called: str, value: Any) -> Any:
    if called not in results and value is not None and called not in UNRECORDED:
        results[called] = summary(value)
    return value


def _ran(node: ast.stmt, space: dict[str, Any]) -> list[tuple[str, Any]]:
    if isinstance(node, ast.Expr):
        value = eval(compile(ast.Expression(node.value), "<contract>", "eval"), space)
        return [] if value is None else [("", value)]
    exec(compile(ast.Module([node], []), "<contract>", "exec"), space)
    if not isinstance(node, ast.Assign):
        return []
    names = [n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
    return [(name, space[name]) for name in names if name != "_"]


def _numbers(printed: str) -> list[float]:
    """Return what was printed where it is numbers alone; text is no contract."""
    words = printed.split()
    return (
        [float(word) for word in words] if all(re.fullmatch(r"-?\d+(\.\d+)?", word) for word in words) else []
    )
