"""An install by README's line leaves a torch alone that is already there: another build, older or newer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from test_locks import LOCK, ROOT, lines_of

README = ROOT / "README.md"


def write_stub(folder, name, version, requires=()):
    """A wheel without code: what pip's resolver reads of a release."""
    plain = re.sub(r"[-_.]+", "_", name)
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    extras = {match[1] for line in requires if (match := re.search(r"extra == ['\"]([\w-]+)['\"]", line))}
    head += "".join(f"Requires-Dist: {line}\n" for line in requires)
    head += "".join(f"Provides-Extra: {extra}\n" for extra in sorted(extras))
    path = folder / f"{plain}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        info = f"{plain}-{version}.dist-info"
        wheel.writestr(f"{info}/METADATA", head)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A folder of stub wheels, one for every locked package and a newer torch, and metier's own wheel."""
    folder = tmp_path_factory.mktemp("index")
    for requirement in map(Requirement, lines_of(LOCK)):
        if requirement.marker is None or requirement.marker.evaluate():
            write_stub(folder, requirement.name, str(requirement.specifier).removeprefix("=="))
    write_stub(folder, "torch", "2.99.0")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return folder


@pytest.fixture
def environment(tmp_path):
    """An empty virtual environment; pip of this one installs into it."""
    venv.create(tmp_path / "venv", with_pip=False)
    return next((tmp_path / "venv").glob("[bS]*/python*"))


def pip(environment, *words):
    """Run pip for another environment; no setting of this machine, such as a constraint on torch, decides."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    plain["PIP_CONFIG_FILE"] = os.devnull
    command = [sys.executable, "-m", "pip", "--python", str(environment), "install", "--no-index"]
    command += map(str, words)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain)
    assert done.returncode == 0, done.stderr
    return done.stdout


def install_line():
    lines = README.read_text().splitlines()
    return next(line for line in lines if line.startswith("pip install") and "[" in line)


def users_extras():
    """The extras of README's line for users."""
    return [name for text in re.findall(r"\[([\w,-]+)\]", install_line()) for name in text.split(",")]


@pytest.mark.parametrize(
    "version",
    ["2.9.1+cu126", *(pytest.param(v, marks=pytest.mark.slow) for v in ("2.98.0", "2.6.0"))],
)
def test_torch_that_is_there_should_stay(index, environment, tmp_path, version):
    pip(environment, "--no-deps", write_stub(tmp_path, "torch", version))
    wheel = next(index.glob("metier-*.whl"))
    said = pip(environment, "--dry-run", "--find-links", index, f"{wheel}[moe,hf,minilm,forecast]")
    planned = re.search(r"Would install (.+)", said)[1].split()
    assert any(word.startswith("transformers-") for word in planned)
    assert not [word for word in planned if word.startswith("torch-")]


def test_torch_should_be_installed_where_there_is_none(index, environment):
    wheel = next(index.glob("metier-*.whl"))
    said = pip(environment, "--dry-run", "--find-links", index, f"{wheel}[moe]")
    assert "torch-2.99.0" in re.search(r"Would install (.+)", said)[1].split()


def test_the_line_of_the_readme_should_name_real_extras_and_no_constraints():
    assert " -c " not in install_line()
    assert "all" in users_extras()
    known = set(re.findall(r"^([\w-]+) = \[", Path(ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    assert set(users_extras()) <= known
