"""An IV estimate from a user's own file: read, check the columns, fit, and write the run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metier.bilevel import IVBilevel
from metier.bilevel.report import effect_section, strength_section
from metier.cli.iv_settings import IVSettings, make_learner
from metier.core import InputError
from metier.core.tables import Table, read_columns
from metier.runs import DataUsed, Result, Run

NULLS = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", ".")


@dataclass(frozen=True, kw_only=True, slots=True)
class IVJob:
    """What the user asked for.

    Args:
        file: csv or parquet, one row per unit.
        outcome: its column.
        treatment, instruments, controls: their columns.
        weights, groups: columns, or None.
        features: as in `IVBilevel`, by name.
        level: coverage of the intervals in percent.
        seed: of the folds.
        settings: the rest.
    """

    file: Path
    outcome: str
    treatment: tuple[str, ...]
    instruments: tuple[str, ...]
    controls: tuple[str, ...] = ()
    weights: str | None = None
    groups: str | None = None
    features: str = "linear"
    level: float = 95.0
    seed: int = 0
    settings: IVSettings

    def roles(self) -> dict[str, tuple[str, ...]]:
        """Role -> columns, in the order in which they are told."""
        return {
            "outcome": (self.outcome,),
            "treatment": self.treatment,
            "instruments": self.instruments,
            "controls": self.controls,
            "weights": (self.weights,) if self.weights else (),
            "groups": (self.groups,) if self.groups else (),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class IVAnswer:
    """The fitted estimate, the rows used, and notes for people."""

    job: IVJob
    iv: IVBilevel
    n_rows: int
    notes: tuple[str, ...]


def iv_file(job: IVJob, *, say: Callable[[str], None] = lambda text: None) -> IVAnswer:
    """Read the file and fit.

    Args:
        job: what the user asked for.
        say: told what was left out.

    Raises:
        InputError: naming the file and the columns that are wrong.
    """
    # A share such as 0.95 would pass as less than one percent.
    if not 1 <= job.level < 100:
        raise InputError(
            "a level is a coverage in percent",
            expected="at least 1 and less than 100",
            got=f"{job.level:g}",
            next_step="Write for example --level 90.",
        )
    notes: list[str] = []
    table = read_columns(job.file, null_values=NULLS)
    _check_columns(job, list(table))
    table = {name: table[name] for names in job.roles().values() for name in names}
    n_rows = _height(table)
    table = _complete(job, table, notes)
    for note in notes:
        say(note)
    say(f"{_height(table):,} rows, {len(job.instruments)} instruments, {len(job.controls)} controls")
    iv = IVBilevel(
        features=job.features,
        learner=make_learner(job.settings.learner, seed=job.seed),
        estimator=job.settings.estimator,
        folds=job.settings.folds,
        repeats=job.settings.repeats,
        rng=job.seed,
        control_learner=make_learner(job.settings.control_learner, seed=job.seed),
    )
    iv.fit(
        job.outcome,
        list(job.treatment),
        list(job.instruments),
        controls=list(job.controls) or None,
        weights=job.weights,
        groups=job.groups,
        data=table,
    )
    return IVAnswer(job=job, iv=iv, n_rows=n_rows, notes=tuple(notes))


def _check_columns(job: IVJob, columns: list[str]) -> None:
    from metier.bilevel.estimators.columns import unknown_columns

    for role, names in job.roles().items():
        unknown = [name for name in names if name not in columns]
        if unknown:
            raise unknown_columns(role, unknown, columns)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise _two_roles(twice[0], role, role)
    roles = job.roles()
    # An exogenous treatment is its own instrument; nothing else may play two parts.
    for first, second in (
        ("outcome", "treatment"),
        ("outcome", "instruments"),
        ("outcome", "controls"),
        ("treatment", "controls"),
        ("instruments", "controls"),
    ):
        both = [name for name in roles[first] if name in roles[second]]
        if both:
            raise _two_roles(both[0], first, second)


def _two_roles(name: str, first: str, second: str) -> InputError:
    where = f"twice in --{first}" if first == second else f"in --{first} and in --{second}"
    return InputError(
        "a column plays one part",
        expected="different columns",
        got=f"{name!r} {where}",
        next_step="Name it once. A control is an instrument for itself without being named as one.",
    )


def _height(table: Table) -> int:
    return len(next(iter(table.values())))


def _complete(job: IVJob, table: Table, notes: list[str]) -> Table:
    """The table without gaps: refused by column and count, or with missing=drop left out."""
    gaps = {}
    complete = np.ones(_height(table), dtype=bool)
    for name, values in table.items():
        if values.dtype.kind == "f":
            missing = ~np.isfinite(values)
        else:
            missing = np.array([value is None for value in values.tolist()])
        if missing.any():
            gaps[name] = int(missing.sum())
            complete &= ~missing
    if not gaps:
        return table
    words = ", ".join(f"{count:,} in {name!r}" for name, count in gaps.items())
    lost = int((~complete).sum())
    if job.settings.missing == "fail":
        raise InputError(
            "every row must be complete",
            expected="no missing and no infinite value in the columns used",
            got=f"{words} ({lost:,} of {len(complete):,} rows)",
            next_step="Add --set missing=drop to leave these rows out, or impute them first.",
        )
    notes.append(f"left out {lost:,} of {len(complete):,} rows with missing values: {words}")
    return {name: values[complete] for name, values in table.items()}


def write_iv(done: IVAnswer, folder: Path, *, command: str) -> Result:
    """Write the run's records into a new folder and return the result."""
    job = done.job
    digest = hashlib.sha256(job.file.read_bytes()).hexdigest()
    config = {
        "file": job.file.name,
        "sha256": digest,
        **{role: list(names) for role, names in job.roles().items()},
        "features": job.features,
        "level": job.level,
        **dataclasses.asdict(job.settings),
    }
    with Run.create(
        folder, study="iv-file", size="file", config=config, seed=job.seed, command=command
    ) as run:
        level = job.level / 100.0
        result = run.result(
            family="bilevel",
            title=f"Instrumental variables: {job.file.name}",
            question=f"What does {', '.join(job.treatment)} do to {job.outcome}?",
            sections=(effect_section(done.iv, level=level), strength_section(done.iv, level=level)),
            data=(DataUsed(name=job.file.name, sha256=digest),),
            notes=(*done.notes, *done.iv.warnings_),
        )
        return run.finish(result)
