"""Every script in examples/ runs as it stands and says what it is there to say."""

from __future__ import annotations

import ast
import importlib
import re
import runpy

import pytest
from markdown_blocks import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

SAYS = {
    "moe_plain_loop.py": r"MaxVio of the worst router: 1\.\d\d before, 0\.\d\d after",
    "moe_trainer.py": r"steps of the first run: 4[\s\S]*steps after resuming: 6",
    "moe_optimizer_hook.py": r"balancer steps: 100\nlargest bias: 0\.\d+",
    "moe_own_potential.py": r"step   1: .*\nstep 400: .*gate entropy 0\.9[5-9]",
    "moe_sparse_layer.py": r"MaxVio 0\.\d\d, worst layer [01]\.\d\d\n\['balancer', 'blocks'\]",
    "multilinear_demonstration.py": r"kept: embeddings change by \de-0[5-9][\s\S]*off: changes least",
    "own_frame.py": r"Specializing pays|generalist stays",
    "gates.py": r"crossfit .*\n.*mean .*\n.*paper .*\n.*none ",
    "exogenous_and_calendar.py": r"with promotions.*\n.*without",
    "counts_with_lightgbm.py": r"lightgbm-poisson",
    "scikit_learn_model.py": r"splines in every lag\n.*candidate",
    "cross_validation.py": r"ClusterForecaster.*",
    "partners_five_minutes.py": r"the planner with secretive: \d% from the start[\s\S]*wrote episode.gif",
    "partners_own_game.py": r"left +0\.\d+ +100 %[\s\S]*robustness",
    "iv_labor_supply.py": r"Anderson-Rubin 95 % set: \[-(.|\n)*gradient at 0: 0\.",
}


def test_every_example_should_be_known():
    assert {path.name for path in EXAMPLES} == set(SAYS)


# Games compiled for every pair, a language model; tests/partners and tests/moe test what they call.
LONG = {"partners_five_minutes.py", "multilinear_demonstration.py"}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if path.name in LONG else []) for path in EXAMPLES],
    ids=lambda path: path.name,
)
def test_example_should_run(path, tmp_path, monkeypatch, capsys, request):
    if path.name.startswith("partners"):
        request.getfixturevalue("quick_compiler")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert re.search(SAYS[path.name], capsys.readouterr().out)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_should_say_what_it_shows(path):
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert f"python examples/{path.name}" in doc


def missing_names(code):
    """What a script takes from metier and metier does not have."""
    tree = ast.parse(code)
    rooms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "metier" in node.module]
    known = {a.asname or a.name: f"{node.module}.{a.name}" for node in rooms for a in node.names}
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    paths = [*known.values(), *(known[name] + rest for name, rest in split_names(used) if name in known)]
    return [path for path in paths if not exists(path)]


def split_names(chains):
    """`a.b.c` as ("a", ".b.c"); chains through calls and subscripts are left out."""
    plain = [chain for chain in chains if re.fullmatch(r"[\w.]+", chain)]
    return [(chain.split(".")[0], chain[len(chain.split(".")[0]) :]) for chain in plain]


def exists(path):
    thing = importlib.import_module("metier")
    for name in path.split(".")[1:]:
        thing = getattr(thing, name, None)
    return thing is not None


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_should_name_what_exists(path):
    assert missing_names(path.read_text(encoding="utf-8")) == []


def test_missing_names_should_be_found():
    code = "from metier import core, nothing\nfrom metier.core import derive\ncore.absent(core.derive)"
    assert sorted(missing_names(code)) == ["metier.core.absent", "metier.nothing"]
