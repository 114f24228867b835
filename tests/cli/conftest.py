import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_study import ENTRY

from metier.cli import main
from metier.core.registry import registry

TOY = Path(__file__).with_name("toy_study.py")


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Register the toy as the only study and work in an empty folder."""
    for name in list(registry()):
        monkeypatch.delitem(registry(), name)
    monkeypatch.setitem(registry(), "toy", ENTRY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(capfd):
    """Run the command in this process; return (exit code, stdout, stderr)."""

    def run(*words):
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def document(command):
    """Run the command with --json; return (exit code, the one document, stderr)."""

    def run(*words):
        code, out, err = command(*words, "--json")
        return code, json.loads(out), err

    return run


@pytest.fixture
def process():
    """Start the toy as a process of its own; every one is ended with the test."""
    started = []

    def start(*words, **options):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
        child = subprocess.Popen([sys.executable, str(TOY), *map(str, words)], **(pipes | options))
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.communicate()
