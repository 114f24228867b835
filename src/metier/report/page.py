"""Results to one self-contained HTML page: no script, no outside resource, light, dark, phone and print."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from metier.core.errors import InputError
from metier.report import numbers
from metier.runs import Figure, Paid, Result, Specialized, Table, atomic_write_text
from metier.runs.read import read_environment, read_result, read_timings

TEMPLATES = Path(__file__).parent / "templates"

LONGEST_PHRASE = 60
"""Characters of a cell beyond which a phone has no room for a column."""

# A verdict is told by word and symbol; its color only repeats it.
VERDICTS = {
    "pays": ("✓", "good"),
    "holds": ("✓", "good"),
    "hurts": ("✗", "bad"),
    "does not hold": ("✗", "bad"),
    "equivalent": ("≈", "same"),
    "undecided": ("?", "open"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One result on the page, with what it ran on."""

    result: Result
    environment: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)
    anchor: str = ""


def write_report(
    folders: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    skipped: Mapping[str, str] | None = None,
) -> Path:
    """Write the report of finished runs and return its path.

    Args:
        folders: run folders, in the page's order.
        path: the HTML file; its folder is made.
        title: the page's title; by default that of the only result, or "metier report".
        skipped: studies that did not run -> why, and what would let them.

    Returns:
        The path.

    Raises:
        InputError: no run, or one that is unfinished, damaged, or of another schema version.
    """
    entries = [
        Entry(result=read_result(f), environment=read_environment(f), timings=read_timings(f))
        for f in folders
    ]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(target, render_page(entries, title=title, skipped=skipped))
    return target


def render_page(
    entries: Sequence[Entry], *, title: str | None = None, skipped: Mapping[str, str] | None = None
) -> str:
    """Return the HTML page of the entries.

    Args:
        entries: the results, in the page's order; at least one unless something was skipped.
        title: the page's title; by default that of the only result, or "metier report".
        skipped: studies that did not run -> why.

    Raises:
        InputError: there is no entry and nothing was skipped.

    Example:
        >>> result = Result(study="s", family="core", size="tour", seed=0, title="One study", question="Why?")
        >>> "<h1>One study</h1>" in render_page([Entry(result=result)])
        True
    """
    if not entries and not skipped:
        raise InputError(
            "a report needs a finished run",
            expected="at least one",
            got="none",
            next_step="Run a study first: metier run STUDY.",
        )
    default = entries[0].result.title if len(entries) == 1 else "metier report"
    anchored = [
        Entry(
            result=e.result,
            environment=e.environment,
            timings=e.timings,
            anchor=f"r{k}-{_slug(e.result.study)}",
        )
        for k, e in enumerate(entries, start=1)
    ]
    template = _environment().get_template("page.html")
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    return template.render(
        entries=anchored, title=title or default, style=style, version=_version(), skipped=skipped or {}
    )


def _version() -> str:
    from metier import __version__

    return __version__


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        paragraphs=paragraphs,
        inline=inline,
        number=numbers.format_number,
        value=numbers.format_value,
        interval=numbers.format_interval,
        measured=numbers.format_measured,
        p_value=numbers.format_p_value,
        seconds=numbers.format_seconds,
        cell=numbers.format_cell,
    )
    environment.globals.update(
        draw=_draw,
        whisker=whisker,
        load_strip=load_strip,
        gauge=gauge,
        verdicts=VERDICTS,
        is_prose=is_prose,
    )
    return environment


def is_prose(table: Table) -> bool:
    """Whether some cell is a sentence, so that a narrow screen shows row under row.

    Example:
        >>> from metier.runs import Column
        >>> columns = (Column(name="cluster"), Column(name="in full"))
        >>> is_prose(Table(id="t", title="T", columns=columns, rows=(("A", "few words"),)))
        False
    """
    return any(isinstance(cell, str) and len(cell) > LONGEST_PHRASE for row in table.rows for cell in row)


def inline(text: str) -> Markup:
    """Return text as HTML with `code` in backticks; everything else is escaped.

    Example:
        >>> inline("`a<b` & c")
        Markup('<code>a&lt;b</code> &amp; c')
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def paragraphs(text: str) -> Markup:
    """Return text as HTML paragraphs, split at blank lines."""
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return Markup("\n").join(Markup("<p>{}</p>").format(inline(part)) for part in parts)


def _draw(figure: Figure, anchor: str, narrow: bool) -> Markup:
    from metier.report.figures import draw

    return Markup(draw(figure.model_copy(update={"id": f"{anchor}-{figure.id}"}), narrow=narrow))


def whisker(paid: Paid) -> Markup:
    """Return a small drawing of the gain's interval around zero; the text beside it says the same."""
    gain = paid.gain
    ends = [end for end in (gain.low, gain.high, gain.value, 0.0) if end is not None]
    low, high = min(ends), max(ends)
    pad = 0.08 * (high - low) or 1.0
    low, high = low - pad, high + pad

    def at(value: float) -> float:
        return round(200 * (value - low) / (high - low), 2)

    left = at(gain.low) if gain.low is not None else 0
    right = at(gain.high) if gain.high is not None else 200
    return Markup(
        '<svg class="whisker" viewBox="0 0 200 34" aria-hidden="true">'
        '<line x1="{zero}" x2="{zero}" y1="1" y2="21" class="zero"/><text x="{zero}" y="32">0</text>'
        '<line x1="{left}" x2="{right}" y1="11" y2="11" class="span"/>'
        '<circle cx="{dot}" cy="11" r="5"/></svg>'
    ).format(zero=at(0.0), left=left, right=right, dot=at(gain.value))


def load_strip(load: Sequence[float], names: Sequence[str]) -> Markup:
    """Return a strip of each specialist's share; empty without shares."""
    total = sum(load)
    if total <= 0:
        return Markup("")
    labels = list(names) if len(names) == len(load) else [str(k + 1) for k in range(len(load))]
    said = ", ".join(f"{name} {100 * x / total:.0f} %" for name, x in zip(labels, load, strict=True))
    parts, start = [], 0.0
    for k, x in enumerate(load):
        width = 200 * x / total
        rect = '<rect x="{x}" width="{w}" y="0" height="12" fill="var(--c{k})"><title>{t}</title></rect>'
        share = f"{labels[k]}: {100 * x / total:.1f} %"
        parts.append(
            Markup(rect).format(x=round(start, 2), w=round(max(width - 1, 0.4), 2), k=k % 8, t=share)
        )
        start += width
    head = Markup(
        '<svg class="strip" viewBox="0 0 200 12" preserveAspectRatio="none" role="img" aria-label="{}">'
    )
    return head.format(f"load: {said}") + Markup("").join(parts) + Markup("</svg>")


def gauge(specialized: Specialized) -> Markup:
    """Return a bar of the information up to its ceiling, with a tick at what chance gives."""
    value, null, ceiling = specialized.information, specialized.null_mean, specialized.ceiling
    if value is None or ceiling is None or ceiling <= 0:
        return Markup("")
    drawn = '<rect class="track" width="200" height="12"/><rect class="fill" width="{v}" height="12"/>'
    drawn += '<line class="chance" x1="{n}" x2="{n}" y1="-2" y2="14"/>' if null is not None else ""
    return Markup(
        f'<svg class="strip" viewBox="0 0 200 12" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'
    ).format(
        v=round(200 * min(1.0, max(0.0, value / ceiling)), 2),
        n=round(200 * min(1.0, max(0.0, (null or 0.0) / ceiling)), 2),
    )
