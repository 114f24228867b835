"""Fill the results page from the committed records: claims of studies, tables of benchmarks."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metier.report import format_measured, format_number
from metier.runs import Claim, Measured, Result

RECORDS = Path(__file__).parents[2] / "benchmarks" / "results"
RAW = {"panels", "settings", "threads", "commit", "ours", "rivals"}
"""Parts of a benchmark's record that are its raw material or stand in its caption."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of the page."""
    fills = {"claims": claims_text, "goals": goals_text, "benchmarks": benchmarks_text}
    for mark, fill in ((f"<!-- {name} -->", fill) for name, fill in fills.items()):
        if mark in markdown:
            markdown = markdown.replace(mark, fill(RECORDS))
    return markdown


def claims_text(folder: Path) -> str:
    """Return every committed study's headline and claims as Markdown."""
    parts = [study_text(Result.model_validate(record)) for record in records(folder) if "claims" in record]
    return "\n\n".join(parts) or "No study's result is committed yet."


def goals_text(folder: Path) -> str:
    """Return how every speed goal stands, from the records the goals name."""
    spec = importlib.util.spec_from_file_location("goals", RECORDS.parent / "goals.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(RECORDS.parent / "goals.py")
    goals = importlib.util.module_from_spec(spec)
    sys.modules["goals"] = goals  # its dataclass looks its annotations up there
    spec.loader.exec_module(goals)
    head, *rows = goals.rows(folder)
    return "\n".join(table(head, rows))


def benchmarks_text(folder: Path) -> str:
    """Return every committed benchmark as Markdown."""
    parts = [benchmark_text(record) for record in records(folder) if "benchmark" in record]
    return "\n\n".join(parts) or "No benchmark's result is committed yet."


def records(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the records below a folder, by path."""
    for path in sorted(folder.rglob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record, dict):
            yield record


def study_text(result: Result) -> str:
    """Return a study's three answers and its claims."""
    lines = [f"### {result.study}, size {result.size}, seed {result.seed}", "", result.question, ""]
    if result.headline is not None:
        h = result.headline
        lines += [f"- **divided**: {h.divided.text}", f"- **specialized**: {h.specialized.text}"]
        lines += [f"- **paid**: {h.paid.text} ({h.paid.verdict}, {format_measured(h.paid.gain)})", ""]
    rows = [
        [c.statement, c.source, c.minimum_effect, format_measured(c.measured), verdict(c)]
        for c in result.claims
    ]
    head = ["claim", "stated by", "smallest effect that matters", "measured", "verdict"]
    lines += list(table(head, rows))
    lines += ["", *(f"- {note}" for note in result.notes), "", f"```bash\n{result.command}\n```"]
    return "\n".join(lines)


def verdict(claim: Claim) -> str:
    """Return a claim's verdict, with the size that would decide an undecided one."""
    if claim.verdict == "undecided" and claim.needed is not None:
        return f"**undecided**, {claim.needed:,} {claim.needed_unit} would decide"
    return f"**{claim.verdict}**"


def benchmark_text(record: Mapping[str, Any]) -> str:
    """Return a benchmark's circumstances and its tables."""
    busy = record["load_average"][0] > 0.75 * record["cpus"]
    caption = (
        f"{record['date']}, {record['cpu']}, {record['cpus']} CPUs, commit `{record['commit'][:12]}`"
        + (
            f". **The machine was busy** (load average {record['load_average'][0]:.1f}), so wall times are "
            "longer than on a quiet one."
            if busy
            else "."
        )
    )
    parts = [f"### {record['benchmark']}", caption, *tables("", record["result"])]
    return "\n\n".join([*parts, f"```bash\n{record['command']}\n```"])


def tables(name: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tables of a nested record: numbers, then rows of numbers, then what lies deeper."""
    plain = {key: cell(value) for key, value in values.items() if key not in RAW and cell(value) is not None}
    if plain:
        yield "\n".join(
            table([words(name) or "quantity", "value"], [[words(k), v] for k, v in plain.items()])
        )
    for key, value in values.items():
        if key in RAW or key in plain or not isinstance(value, Mapping) or not value:
            continue
        title = f"{name} {key}".strip()
        if all(isinstance(row, Mapping) and cell(row) is None for row in value.values()):
            columns = list(
                dict.fromkeys(k for row in value.values() for k in row if cell(row[k]) is not None)
            )
            if columns and not any(
                isinstance(deep, Mapping) for row in value.values() for deep in row.values()
            ):
                rows = [[words(k), *(cell(row.get(c)) or "" for c in columns)] for k, row in value.items()]
                yield "\n".join(table([words(title), *map(words, columns)], rows))
                continue
        yield from tables(title, value)


def cell(value: Any) -> str | None:
    """Return a number, a text or a measurement as a table cell; None where it is something larger."""
    if isinstance(value, Mapping) and {"value", "low", "high", "level"} <= set(value):
        return format_measured(Measured.model_validate(value))
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no"}.get(value, "-")  # type: ignore[arg-type]
    if isinstance(value, int | float):
        return format_number(value) if math.isfinite(value) else str(value)
    return value if isinstance(value, str) else None


def words(key: str) -> str:
    """Return a key of a record in words."""
    return key.replace("_", " ")


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    for line in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in line) + " |"
