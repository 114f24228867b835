"""What a study hands back: claims with their measurements, tables, figures; the only input of a report."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, FiniteFloat, model_validator

from metier.records.figures import Count, Figure, Number, Numbers, Record, Texts, as_plain

SCHEMA_VERSION = 1

Verdict = Literal["holds", "does not hold", "equivalent", "undecided"]
DecisionVerdict = Literal["pays", "hurts", "equivalent", "undecided"]
Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class Measured(Record):
    """A measured number with its interval.

    `low` or `high` None means unbounded on that side; both None, and `level` too, means the number is
    exact (a count, a proven identity) where `n` is None, and that `n` units are too few otherwise: a single
    one, or a few equal values. `n` counts the independent units behind it, named by `unit`.
    `method` says in a few words how the interval was made, for example "EWC Student t".
    """

    value: Number
    low: Number | None = None
    high: Number | None = None
    level: Annotated[float, Field(gt=0, lt=1)] | None = None
    n: Count | None = None
    unit: str = ""
    method: str = ""
    percent: bool = False

    @model_validator(mode="after")
    def _interval_is_one(self) -> Self:
        bounded = self.low is not None or self.high is not None
        if bounded != (self.level is not None):
            raise ValueError("an interval needs its level, and a level needs an interval")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval [{self.low}, {self.high}] is empty")
        return self


class Claim(Record):
    """A statement, the smallest effect that would matter, what was measured, and the verdict.

    `needed` counts the `needed_unit` (origins, seeds, episodes, ...) that would decide an undecided claim.
    """

    id: Identifier
    statement: str
    source: str
    minimum_effect: str
    minimum_effect_value: Number | None = None
    measured: Measured
    verdict: Verdict
    needed: Count | None = None
    needed_unit: str = ""
    reason: str = ""
    command: str

    @model_validator(mode="after")
    def _needed_has_unit(self) -> Self:
        if self.needed is not None and not self.needed_unit:
            raise ValueError(f"claim {self.id}: needed={self.needed} does not say of what")
        return self


class Divided(Record):
    """How the work was divided; `load` is each specialist's share, in the order of `names`."""

    text: str
    load: Numbers = ()
    names: Texts = ()


class Specialized(Record):
    """How much the assignment tells about the input, in nats, beside its permutation null."""

    text: str
    information: Number | None = None
    null_mean: Number | None = None
    p_value: Number | None = None
    ceiling: Number | None = None


class Paid(Record):
    """Whether specializing paid: the gain over the generalist, the verdict, and what would decide it."""

    text: str
    gain: Measured
    verdict: DecisionVerdict
    needed: Count | None = None
    needed_unit: str = ""


class Headline(Record):
    """The three answers every system gives on the report's first screen."""

    divided: Divided
    specialized: Specialized
    paid: Paid


class Column(Record):
    """A table column. The kind decides alignment and format; "verdict" and "estimate" have their own look."""

    name: str
    unit: str = ""
    kind: Literal["text", "number", "integer", "percent", "p_value", "verdict", "estimate", "code"] = "text"
    digits: int | None = None


def _blank_if_nan(value: Any) -> Any:
    plain = as_plain(value)
    return None if isinstance(plain, float) and math.isnan(plain) else plain


Cell = Annotated[Measured | str | bool | int | FiniteFloat | None, BeforeValidator(_blank_if_nan)]


class Table(Record):
    """Rows of cells under typed columns; `emphasis` lists bold rows, from 0. NaN is a blank."""

    id: Identifier
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    emphasis: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _cells_fit_columns(self) -> Self:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.id}: row {index} has {len(row)} cells for {len(self.columns)} columns"
                )
        return self


class Section(Record):
    """A part of the report: paragraphs (blank line between), then its figures and tables in order."""

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


class DataUsed(Record):
    """A data set the run read, by the checksum of its content."""

    name: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    description: str = ""


class Losses(Record):
    """Losses per evaluation unit, kept so that `metier compare` can pair two runs unit by unit.

    `dependence` says how units relate: "independent", "time" (keys in time order) or "groups" (then
    `groups` labels each unit).
    """

    id: Identifier
    description: str
    unit: str
    keys: Texts
    values: Numbers
    dependence: Literal["independent", "time", "groups"] = "independent"
    groups: Texts | None = None

    @model_validator(mode="after")
    def _units_agree(self) -> Self:
        if len(self.keys) != len(self.values) or len(set(self.keys)) != len(self.keys):
            raise ValueError(f"losses {self.id}: {len(self.values)} values need as many distinct keys")
        if (self.dependence == "groups") != (self.groups is not None):
            raise ValueError(f'losses {self.id}: groups are given exactly when dependence="groups"')
        if self.groups is not None and len(self.groups) != len(self.keys):
            raise ValueError(f"losses {self.id}: {len(self.groups)} group labels for {len(self.keys)} units")
        return self


class Result(Record):
    """Everything a finished study says. Wall-clock times live in the run's `timings.json`, never here.

    Two runs with the same configuration and seed, killed or not, have byte-equal results.
    """

    schema_version: Literal[1] = 1
    study: str
    family: str
    size: str
    seed: int
    title: str
    question: str
    command: str = ""
    headline: Headline | None = None
    claims: tuple[Claim, ...] = ()
    sections: tuple[Section, ...] = ()
    losses: tuple[Losses, ...] = ()
    data: tuple[DataUsed, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        groups: dict[str, list[Any]] = {
            "claim": list(self.claims),
            "losses": list(self.losses),
            "figure": [figure for section in self.sections for figure in section.figures],
            "table": [table for section in self.sections for table in section.tables],
        }
        for what, items in groups.items():
            ids = [item.id for item in items]
            twice = sorted({i for i in ids if ids.count(i) > 1})
            if twice:
                raise ValueError(f"{what} ids must be unique, these repeat: {', '.join(twice)}")
        return self

    def to_json(self) -> str:
        """Return the canonical text of `result.json`: two-space indent, fields in order, final newline."""
        return self.model_dump_json(indent=2) + "\n"
