"""What the command answers with --json on tiny inputs, and its exit codes."""

from __future__ import annotations

import csv
import datetime
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from contract_records import SETTINGS
from contract_summary import summary

STUDY = "multilinear-bias"


def settings(**changes: str) -> list[str]:
    """Return the smallest size of the study as options."""
    return [part for pair in (SETTINGS[STUDY] | changes).items() for part in ("--set", "=".join(pair))]


PEOPLE = ("--outcome", "wage", "--treatment", "educ", "--instruments", "near")
SCENARIOS: dict[str, list[tuple[str, ...]]] = {
    "forecast": [("forecast", "shop.csv", "--horizon", "3", "--seed", "4", "--out", "out")],
    "iv": [("iv", "people.csv", *PEOPLE, "--controls", "age,region", "--seed", "3", "--out", "out")],
    "exponents": [("exponents", "tanh"), ("exponents", "x**4-6*x**2+3", "--onset", "--normalize")],
    "exponents-table": [("exponents",)],
    "data": [("data",), ("data", "--verify")],
    "doctor": [("doctor",)],
    "list": [("list",)],
    "run": [
        ("run", STUDY, *settings(), "--seed", "3", "--out", "a"),
        ("run", STUDY, *settings(steps="9"), "--seed", "3", "--out", "b"),
        ("report", "a", "--out", "page.html"),
        ("compare", "a", "a"),
        ("compare", "a", "b"),
    ],
    "refused": [
        ("run", "toi"),
        ("run", "iv", "--set", "repeets=3"),
        ("forecast", "nothing.csv", "--horizon", "3"),
        ("compare", "nothing", "nowhere"),
        ("exponents", "1/x"),
        ("tuor",),
    ],
}
SLOW = ("exponents",)
SHAPE_ONLY = ("doctor",)
"""Verbs that describe the machine: their keys are frozen, not their values."""


def write_inputs(folder: Path) -> None:
    """Write the tables that the verbs read."""
    rng = np.random.default_rng(0)
    start = datetime.date(2024, 1, 1)
    wave = 3 * np.sin(np.arange(90) * 2 * np.pi / 7)
    shop = [
        (
            f"s{i}",
            (start + datetime.timedelta(days=k)).isoformat(),
            repr(float(10 + i + wave[k] + rng.normal())),
        )
        for i in range(4)
        for k in range(90)
    ]
    _write(folder / "shop.csv", ("unique_id", "ds", "y"), shop)
    n = 300
    ability, near, age = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(20, 60, n)
    educ = 10 + 2 * near + 0.05 * age + ability + rng.normal(size=n)
    wage = 0.5 * educ + 0.02 * age + ability + rng.normal(size=n)
    region = rng.choice(["north", "south", "west"], n)
    columns = {"wage": wage, "educ": educ, "near": near, "age": age, "region": region}
    _write(
        folder / "people.csv",
        tuple(columns),
        zip(*(column.tolist() for column in columns.values()), strict=True),
    )


def _write(path: Path, header: tuple[str, ...], rows: Any) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def answers(scenario: str) -> dict[str, Any]:
    """Run the verbs of a scenario in an empty folder; return the code and document of each."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)
        try:
            write_inputs(Path())
            return {f"{k} {words[0]}": answer(*words) for k, words in enumerate(SCENARIOS[scenario])}
        finally:
            os.chdir(before)


def answer(*words: str) -> dict[str, Any]:
    """Run one verb in this process with --json."""
    from metier.cli import main

    sys.stdout.flush()
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            code = main([*words, "--json"])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
        out.seek(0)
        document = json.loads(out.read())
    if words[0] in SHAPE_ONLY:
        return {"code": code, "document": _keys(document)}
    return {"code": code, "document": summary(document)}


def _keys(value: Any) -> Any:
    """Return the tree of keys; of a list, that of its first entry."""
    if isinstance(value, list):
        value = value[0] if value else None
    return {key: _keys(item) for key, item in value.items()} if isinstance(value, dict) else None
