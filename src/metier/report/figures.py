"""Figure records to SVG, one drawer per kind."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from metier.records.figures import (
    Bars,
    Figure,
    Heatmap,
    Histogram,
    Intervals,
    Lines,
    Panels,
    Picture,
    Reference,
    Series,
)
from metier.report.canvas import INK, KEPT_IDS, MUTED, NARROW, SERIES, WIDE, blank, to_svg
from metier.report.numbers import decimals_for, format_number

_DASHES: dict[str, Any] = {"dashed": (0, (5, 3)), "dotted": (0, (1, 2.5))}


def draw(figure: Figure, *, narrow: bool = False) -> str:
    """Return the figure as an inline SVG element.

    Args:
        figure: the record, of any kind but a picture.
        narrow: for a phone: 350 instead of 720 CSS pixels wide, with fewer columns.

    Returns:
        `<svg ...>` text; equal records give equal bytes. Its colors are CSS variables of the page.
    """
    data = figure.data
    if isinstance(data, Picture):
        raise TypeError("a picture is shown as it is, not drawn")
    draw_kind, height = _DRAWERS[data.kind]
    with blank(height=height(data, narrow), narrow=narrow) as drawing:
        draw_kind(drawing, data, narrow)
        return to_svg(drawing, prefix=f"{figure.id}-{'n' if narrow else 'w'}")


def _clean(text: str) -> str:
    """Drop control characters, which no XML may hold."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(_clean(text), width)) or " "


def _positions(values: Sequence[Any], scale: str) -> Any:
    return np.asarray(values, dtype="datetime64[s]") if scale == "time" else np.asarray(values, dtype=float)


def _numbers(values: Sequence[float | None]) -> Any:
    return np.array([np.nan if v is None else v for v in values], dtype=float)


def _colors(series: Iterable[Series]) -> dict[str, str]:
    """Give each name its color, in order; muted context takes none of them."""
    names = dict.fromkeys(one.name for one in series if one.style != "muted")
    return {name: SERIES[k % len(SERIES)] for k, name in enumerate(names)}


def _curve(axes: Any, series: Series, colors: Mapping[str, str], scale: str) -> None:
    color = MUTED if series.style == "muted" else colors[series.name]
    x = np.asarray(series.x) if _is_category(series, scale) else _positions(series.x, scale)
    y = _numbers(series.y)
    if series.low is not None and series.high is not None:
        axes.fill_between(
            x, _numbers(series.low), _numbers(series.high), color=color, alpha=0.16, linewidth=0
        )
    common = {"color": color, "label": _clean(series.name)}
    if series.style == "points":
        axes.plot(x, y, "o", markeredgewidth=0, alpha=0.75, **common)
    elif series.style == "line+points":
        axes.plot(x, y, "-o", markeredgewidth=0, **common)
    elif series.style == "steps":
        axes.plot(x, y, drawstyle="steps-post", **common)
    else:
        width = 1.1 if series.style == "muted" else 1.8
        axes.plot(x, y, linestyle=_DASHES.get(series.style, "-"), linewidth=width, **common)


def _is_category(series: Series, scale: str) -> bool:
    return scale != "time" and bool(series.x) and isinstance(series.x[0], str)


def _references(axes: Any, references: Sequence[Reference], scale: str = "linear") -> None:
    for number, reference in enumerate(references):
        value = _positions([reference.value], scale if reference.axis == "x" else "linear")[0]
        line = axes.axhline if reference.axis == "y" else axes.axvline
        line(value, color=INK, linewidth=1, linestyle=(0, (4, 3)), alpha=0.7)
        if not reference.label:
            continue
        where: dict[str, Any] = {"textcoords": "offset points", "fontsize": "small", "color": MUTED}
        if reference.axis == "y":
            at, coordinates = (1, value), axes.get_yaxis_transform()
            where |= {"xytext": (-2, 4), "ha": "right", "va": "bottom"}
        else:
            at, coordinates = (value, 1), axes.get_xaxis_transform()
            where |= {"xytext": (5, -2), "ha": "left", "va": "top"}
        # The page's style gives groups of this name a halo, so that a curve behind stays off the letters.
        axes.annotate(
            _clean(reference.label),
            at,
            xycoords=coordinates,
            **where,
            gid=f"{KEPT_IDS}-{axes.get_subplotspec().num1}-{number}",
        )


def _time_axis(axes: Any, narrow: bool) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=2, maxticks=4 if narrow else 7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


_TICKS = ((1.0, 2.0, 5.0), tuple(np.arange(1.0, 10.0)), tuple(np.arange(10, 100) / 10))


def _ticks_inside(steps: Sequence[float], low: float, high: float) -> int:
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    return sum(low <= step * 10.0**k <= high for k in decades for step in steps)


def _plain_powers(axis: Any) -> None:
    """Write the ticks of a log axis as 0.1, 1, 10: the page has no mathematical typesetting."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = sorted(axis.get_view_interval())
    if low > 0 and high / low < 100:
        # Powers of ten alone leave a short axis without two ticks.
        subs = next((few for few in _TICKS if _ticks_inside(few, low, high) >= 3), _TICKS[-1])
        axis.set_major_locator(LogLocator(base=10.0, subs=subs))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _legend(drawing: Any, axes: Any, narrow: bool) -> None:
    """Put one legend above everything, each name once, if there is more than one."""
    found: dict[str, Any] = {}
    for one in axes:
        for handle, label in zip(*one.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if len(found) < 2:
        return
    width = sum(len(label) for label in found) * 7 + 40 * len(found)
    room = NARROW if narrow else WIDE
    rows = max(1, -(-width // room))
    drawing.legend(
        found.values(), found.keys(), loc="outside upper left", ncols=max(1, -(-len(found) // rows))
    )


def _lines(drawing: Any, data: Lines, narrow: bool) -> None:
    axes = drawing.subplots()
    colors = _colors(data.series)
    for series in data.series:
        _curve(axes, series, colors, data.x_scale)
    _references(axes, data.references, data.x_scale)
    if data.x_scale == "time":
        _time_axis(axes, narrow)
    elif data.x_scale == "log":
        axes.set_xscale("log")
        _plain_powers(axes.xaxis)
    elif all(isinstance(x, (int, float)) and float(x).is_integer() for one in data.series for x in one.x):
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_yscale(data.y_scale)
    if data.y_scale == "log":
        _plain_powers(axes.yaxis)
    axes.set_xlabel(_clean(data.x_label))
    axes.set_ylabel(_clean(data.y_label))
    axes.grid(axis="x", visible=False)
    _legend(drawing, [axes], narrow)


def _panels(drawing: Any, data: Panels, narrow: bool) -> None:
    n_columns = 1 if narrow else max(1, min(data.columns, len(data.panels)))
    n_rows = -(-len(data.panels) // n_columns)
    grid = drawing.subplots(n_rows, n_columns, squeeze=False, sharey=data.share_y).ravel()
    colors = _colors(series for panel in data.panels for series in panel.series)
    for axes, panel in zip(grid, data.panels, strict=False):
        for series in panel.series:
            _curve(axes, series, colors, data.x_scale)
        _references(axes, panel.references, data.x_scale)
        if data.x_scale == "time":
            _time_axis(axes, True)
        title = panel.title + (f"\n{panel.note}" if panel.note else "")
        axes.set_title("\n".join(_wrap(line, 46) for line in title.split("\n")), loc="left")
        axes.grid(axis="x", visible=False)
    for axes in grid[len(data.panels) :]:
        axes.set_axis_off()
    drawing.supxlabel(_clean(data.x_label), fontsize="medium", color=INK)
    drawing.supylabel(_clean(data.y_label), fontsize="medium", color=INK)
    _legend(drawing, grid[: len(data.panels)], narrow)


def _intervals(drawing: Any, data: Intervals, narrow: bool) -> None:
    axes = drawing.subplots()
    at = np.arange(len(data.rows))[::-1]
    for y, row in zip(at, data.rows, strict=True):
        color = SERIES[0] if row.emphasis else MUTED
        axes.plot([row.low, row.high], [y, y], color=color, linewidth=2.4 if row.emphasis else 1.6)
        axes.plot([row.value], [y], "o", color=color, markersize=8 if row.emphasis else 6, markeredgewidth=0)
        if not narrow:
            digits = decimals_for(row.low, row.high)
            ends = f"[{format_number(row.low, digits=digits)}, {format_number(row.high, digits=digits)}]"
            axes.annotate(
                f"{format_number(row.value, digits=digits)}  {ends}",
                (1, y),
                xycoords=axes.get_yaxis_transform(),
                xytext=(12, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
                color=INK if row.emphasis else MUTED,
            )
    if data.zero is not None:
        axes.axvline(data.zero, color=INK, linewidth=1, alpha=0.7)
    axes.set_yticks(at, [_wrap(row.label, 20 if narrow else 34) for row in data.rows])
    for label, row in zip(axes.get_yticklabels(), data.rows, strict=True):
        label.set_color(INK)
        label.set_fontweight("bold" if row.emphasis else "normal")
    axes.set_ylim(-0.6, len(data.rows) - 0.4)
    axes.set_xlabel(_clean(data.x_label))
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def _bars(drawing: Any, data: Bars, narrow: bool) -> None:
    axes = drawing.subplots()
    at, thickness = np.arange(len(data.categories)), 0.76 / len(data.groups)
    for k, group in enumerate(data.groups):
        offset = (k - (len(data.groups) - 1) / 2) * thickness
        values, color = _numbers(group.values), SERIES[k % len(SERIES)]
        place: dict[str, Any] = {"color": color, "label": _clean(group.name), "alpha": 0.9}
        if data.horizontal:
            axes.barh(at + offset, values, height=thickness * 0.92, **place)
        else:
            axes.bar(at + offset, values, width=thickness * 0.92, **place)
        if group.low is not None and group.high is not None:
            whisker = axes.hlines if data.horizontal else axes.vlines
            whisker(at + offset, _numbers(group.low), _numbers(group.high), color=INK, linewidth=1.2)
    labels = [_wrap(name, 22 if data.horizontal else 14) for name in data.categories]
    if data.horizontal:
        axes.set_yticks(at, labels)
        axes.invert_yaxis()
        axes.set_xlabel(_clean(data.value_label))
        axes.set_ylabel(_clean(data.category_label))
    else:
        axes.set_xticks(at, labels)
        axes.set_ylabel(_clean(data.value_label))
        axes.set_xlabel(_clean(data.category_label))
    axes.grid(axis="y" if data.horizontal else "x", visible=False)
    _references(axes, data.references)
    _legend(drawing, [axes], narrow)


def _heatmap(drawing: Any, data: Heatmap, narrow: bool) -> None:
    from matplotlib.patches import Rectangle

    axes = drawing.subplots()
    values = np.array([_numbers(row) for row in data.values])
    finite = values[np.isfinite(values)]
    low = 0.0 if data.diverging or not finite.size else float(finite.min())
    span = float(np.abs(finite - low).max()) if finite.size else 0.0
    digits = decimals_for(low - span / 4, low + span / 4) if span else 2
    for (i, j), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        strength = abs(value - low) / span if span else 0.0
        color = SERIES[1] if data.diverging and value < 0 else SERIES[0]
        # Opacity, not a color scale: the page shows through, so the same cells read in light and dark.
        axes.add_patch(
            Rectangle(
                (j - 0.48, i - 0.46), 0.96, 0.92, facecolor=color, alpha=0.06 + 0.54 * strength, linewidth=0
            )
        )
        if data.annotate:
            axes.annotate(
                format_number(value, digits=digits), (j, i), ha="center", va="center", fontsize="small"
            )
    axes.set_xlim(-0.5, len(data.column_labels) - 0.5)
    axes.set_ylim(len(data.row_labels) - 0.5, -0.5)
    axes.set_xticks(range(len(data.column_labels)), [_wrap(t, 12) for t in data.column_labels])
    axes.set_yticks(range(len(data.row_labels)), [_wrap(t, 20) for t in data.row_labels])
    axes.set_xlabel(_clean(data.x_label))
    axes.set_ylabel(_clean(data.y_label))
    axes.set_title(_clean(data.value_label), loc="left", color=MUTED)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _histogram(drawing: Any, data: Histogram, narrow: bool) -> None:
    axes = drawing.subplots()
    for k, group in enumerate(data.groups):
        color = SERIES[k % len(SERIES)]
        axes.stairs(group.counts, data.edges, fill=True, color=color, alpha=0.22, linewidth=0)
        axes.stairs(group.counts, data.edges, color=color, linewidth=1.6, label=_clean(group.name))
    _references(axes, data.references)
    axes.set_xlabel(_clean(data.x_label))
    axes.set_ylabel(_clean(data.y_label))
    axes.grid(axis="x", visible=False)
    _legend(drawing, [axes], narrow)


def _plain_height(data: Any, narrow: bool) -> float:
    return 260 if narrow else 340


def _interval_height(data: Intervals, narrow: bool) -> float:
    lines = sum(_wrap(row.label, 20 if narrow else 34).count("\n") for row in data.rows)
    return 70 + (30 if narrow else 34) * len(data.rows) + 12 * lines


def _bars_height(data: Bars, narrow: bool) -> float:
    if not data.horizontal:
        return _plain_height(data, narrow)
    return 80 + len(data.categories) * max(30, 18 * len(data.groups))


def _heatmap_height(data: Heatmap, narrow: bool) -> float:
    return 90 + max(26, min(44, 400 // max(1, len(data.row_labels)))) * len(data.row_labels)


def _panels_height(data: Panels, narrow: bool) -> float:
    n_columns = 1 if narrow else max(1, min(data.columns, len(data.panels)))
    return 60 + (190 if narrow else 210) * -(-len(data.panels) // n_columns)


_DRAWERS: dict[str, tuple[Callable[[Any, Any, bool], None], Callable[[Any, bool], float]]] = {
    "lines": (_lines, _plain_height),
    "intervals": (_intervals, _interval_height),
    "bars": (_bars, _bars_height),
    "heatmap": (_heatmap, _heatmap_height),
    "histogram": (_histogram, _plain_height),
    "panels": (_panels, _panels_height),
}
