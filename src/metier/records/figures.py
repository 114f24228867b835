"""Figure records: what a picture shows, as data. `metier.report` draws them; nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator


class Record(BaseModel):
    """Base of every record: frozen, closed to unknown fields, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def as_plain(value: Any) -> Any:
    """Return NumPy scalars and arrays as plain Python numbers and lists; anything else unchanged."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict, BaseModel)):
        return tuple(as_plain(item) for item in value)
    return value


def _gaps(value: Any) -> Any:
    """Turn NaN into None, which draws as a gap."""
    plain = as_plain(value)
    if not isinstance(plain, (list, tuple)):
        return plain
    return tuple(None if isinstance(v, float) and math.isnan(v) else v for v in plain)


Number = Annotated[FiniteFloat, BeforeValidator(as_plain)]
Count = Annotated[int, BeforeValidator(as_plain)]
Numbers = Annotated[tuple[FiniteFloat, ...], BeforeValidator(as_plain)]
Gappy = Annotated[tuple[FiniteFloat | None, ...], BeforeValidator(_gaps)]
# Stamps are ISO 8601 text (`str(np.datetime64)`), drawn on a time axis.
Positions = Annotated[tuple[FiniteFloat, ...] | tuple[str, ...], BeforeValidator(as_plain)]
Texts = Annotated[tuple[str, ...], BeforeValidator(as_plain)]

Scale = Literal["linear", "log", "time"]
Style = Literal["line", "dashed", "dotted", "points", "line+points", "steps", "muted"]


class Reference(Record):
    """A straight reference line with its label: `axis="y"` is horizontal at that y, "x" vertical."""

    axis: Literal["x", "y"]
    value: Number | str
    label: str = ""


class Series(Record):
    """One curve: `x` and `y` of equal length, optionally a band from `low` to `high`. NaN in y is a gap."""

    name: str
    x: Positions
    y: Gappy
    low: Gappy | None = None
    high: Gappy | None = None
    style: Style = "line"

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        for field in ("y", "low", "high"):
            values = getattr(self, field)
            if values is not None and len(values) != len(self.x):
                raise ValueError(
                    f"series {self.name!r}: {field} has {len(values)} values, x has {len(self.x)}"
                )
        if (self.low is None) != (self.high is None):
            raise ValueError(f"series {self.name!r}: a band needs both low and high")
        return self


class Lines(Record):
    """Curves over one x axis."""

    kind: Literal["lines"] = "lines"
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    references: tuple[Reference, ...] = ()
    x_scale: Scale = "linear"
    y_scale: Literal["linear", "log"] = "linear"


class IntervalRow(Record):
    """One estimate with its interval; `emphasis` marks the row that the text speaks of."""

    label: str
    value: Number
    low: Number
    high: Number
    emphasis: bool = False


class Intervals(Record):
    """Dot-and-whisker rows, one estimate each, around a line of no effect at `zero` (None: no line)."""

    kind: Literal["intervals"] = "intervals"
    x_label: str
    rows: tuple[IntervalRow, ...]
    zero: Number | None = 0.0


class BarGroup(Record):
    """One color of bars: a value per category, optionally with whiskers."""

    name: str
    values: Gappy
    low: Gappy | None = None
    high: Gappy | None = None


class Bars(Record):
    """Grouped bars over categories; horizontal reads best with long category names."""

    kind: Literal["bars"] = "bars"
    categories: Texts
    groups: tuple[BarGroup, ...]
    value_label: str
    category_label: str = ""
    horizontal: bool = False
    references: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        for group in self.groups:
            for field in ("values", "low", "high"):
                values = getattr(group, field)
                if values is not None and len(values) != len(self.categories):
                    raise ValueError(
                        f"bars {group.name!r}: {field} has {len(values)} entries, "
                        f"there are {len(self.categories)} categories"
                    )
        return self


class Heatmap(Record):
    """A matrix by color: `values[i][j]` belongs to `row_labels[i]`, `column_labels[j]`; None is blank."""

    kind: Literal["heatmap"] = "heatmap"
    row_labels: Texts
    column_labels: Texts
    values: tuple[Gappy, ...]
    value_label: str
    x_label: str = ""
    y_label: str = ""
    diverging: bool = False
    annotate: bool = True

    @model_validator(mode="after")
    def _shape_agrees(self) -> Self:
        widths = {len(row) for row in self.values}
        if len(self.values) != len(self.row_labels) or widths - {len(self.column_labels)}:
            raise ValueError(
                f"heatmap values are {len(self.values)} x {sorted(widths)}, "
                f"labels say {len(self.row_labels)} x {len(self.column_labels)}"
            )
        return self


class HistogramGroup(Record):
    """One distribution: a count per bin."""

    name: str
    counts: Numbers


class Histogram(Record):
    """Counts between increasing `edges`; several groups overlay."""

    kind: Literal["histogram"] = "histogram"
    x_label: str
    y_label: str = "count"
    edges: Numbers
    groups: tuple[HistogramGroup, ...]
    references: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _bins_agree(self) -> Self:
        if any(b <= a for a, b in pairwise(self.edges)):
            raise ValueError("histogram edges must increase")
        for group in self.groups:
            if len(group.counts) != len(self.edges) - 1:
                raise ValueError(
                    f"histogram {group.name!r}: {len(group.counts)} counts, {len(self.edges) - 1} bins"
                )
        return self


class Panel(Record):
    """One of several small plots. A series name keeps its color across panels."""

    title: str
    series: tuple[Series, ...]
    note: str = ""
    references: tuple[Reference, ...] = ()


class Panels(Record):
    """Small multiples of lines, for example one series per cluster with forecasts and bands."""

    kind: Literal["panels"] = "panels"
    x_label: str
    y_label: str
    panels: tuple[Panel, ...]
    columns: Count = 2
    share_y: bool = False
    x_scale: Scale = "linear"


class Picture(Record):
    """A picture that was drawn elsewhere, still or animated: the file itself, as base64 text."""

    kind: Literal["picture"] = "picture"
    media_type: Literal["image/gif", "image/png"]
    base64: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$")]
    width: Count
    height: Count


FigureData = Annotated[
    Lines | Intervals | Bars | Heatmap | Histogram | Panels | Picture,
    Field(discriminator="kind"),
]


class Figure(Record):
    """A figure of a report. `alt` says in words what a reader who cannot see it would miss."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    caption: str
    alt: Annotated[str, Field(min_length=10)]
    data: FigureData

    @property
    def kind(self) -> str:
        """The kind of its data: lines, intervals, bars, heatmap, histogram, panels or picture."""
        return self.data.kind
