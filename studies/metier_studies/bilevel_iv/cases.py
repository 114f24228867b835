"""The real data sets: outcome, treatment, instruments, controls, and what is known about each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import require
from metier.data import load_table

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Case:
    """One question to one data set.

    Attributes:
        name: key.
        question: in words.
        y, t, z, x: (n,), (n,), (n, k), (n, p).
        groups: (n,) clusters, or None.
        names: outcome, treatment, then instruments.
        truth: where the effect is known; else None.
    """

    name: str
    question: str
    y: Floats
    t: Floats
    z: Floats
    x: Floats
    groups: NDArray[Any] | None
    names: tuple[str, ...]
    truth: float | None = None


def labsup() -> Case:
    """Angrist and Evans: a third child and hours of work."""
    table = load_table("labsup")
    x = table[["age", "agefstm", "black", "hispan", "educ", "boy1st", "boy2nd"]]
    return Case(
        "labsup",
        "hours of work a week for a third child",
        table["hours"],
        table["morekids"],
        table[["samesex", "multi2nd"]],
        x,
        None,
        ("hours", "morekids", "samesex", "multi2nd"),
    )


def pension_plans() -> Case:
    """Abadie: participation in a 401(k) plan and net financial assets."""
    table = load_table("401ksubs")
    return Case(
        "401ksubs",
        "net financial assets ($1000) for participating in a 401(k) plan",
        table["nettfa"],
        table["p401k"],
        table[["e401k"]],
        np.column_stack(
            [table[["inc", "age", "fsize", "marr", "male"]], table["inc"] ** 2, table["age"] ** 2]
        ),
        None,
        ("nettfa", "p401k", "e401k"),
    )


def card() -> Case:
    """Card: schooling and log wages, with the distance to a college as a weak instrument."""
    table = load_table("card")
    names = ["exper", "black", "smsa", "south", "smsa66", *(f"reg66{k}" for k in range(1, 9))]
    return Case(
        "card",
        "log wage for a year of schooling (a weak instrument)",
        np.log(table["wage"]),
        table["educ"],
        table[["nearc4"]],
        np.column_stack([table[names], table["exper"] ** 2]),
        None,
        ("lwage", "educ", "nearc4"),
    )


def meps() -> Case:
    """Medical expenditure: insurance by the employer and spending on drugs."""
    frame = require("linearmodels.datasets.meps").load().dropna()
    column = {name: frame[name].to_numpy(dtype=np.float64) for name in frame.columns}
    return Case(
        "meps",
        "log drug spending for insurance by employer or union",
        column["ldrugexp"],
        column["hi_empunion"],
        np.column_stack([column[k] for k in ("ssiratio", "multlc")]),
        np.column_stack([column[k] for k in ("totchr", "age", "female", "blhisp", "linc")]),
        None,
        ("ldrugexp", "hi_empunion", "ssiratio", "multlc"),
    )


def thornton() -> Case:
    """A placebo: an incentive makes people learn their HIV status, which cannot change what it was."""
    frame = require("causaldata").thornton_hiv.load_pandas().data
    frame = frame[["hiv2004", "got", "any", "tinc", "age", "distvct", "villnum"]]
    frame = frame.dropna()
    frame = frame[frame["hiv2004"].isin([0, 1])]
    column = {name: frame[name].to_numpy(dtype=np.float64) for name in frame.columns}
    return Case(
        "thornton",
        "placebo: earlier HIV status for learning it (the truth is 0)",
        column["hiv2004"],
        column["got"],
        np.column_stack([column["any"], column["tinc"]]),
        np.column_stack([column["age"], column["distvct"]]),
        column["villnum"].astype(np.int64),
        ("hiv2004", "got", "any", "tinc"),
        truth=0.0,
    )


CASES: Mapping[str, Callable[[], Case]] = {
    "labsup": labsup,
    "401ksubs": pension_plans,
    "card": card,
    "meps": meps,
    "thornton": thornton,
}
STRONG = ("labsup", "401ksubs", "meps", "thornton")
