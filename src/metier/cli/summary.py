"""Results in a few lines: for people after a run, and as the document of `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metier.cli.answer import columns

if TYPE_CHECKING:
    from metier.runs import Claim, Measured, Result


def results_document(results: Sequence[Result], *, folders: Sequence[Path], page: Path) -> dict[str, Any]:
    """Return headline and claims of every result, and where its folder and the report are."""
    keep = {"study", "family", "size", "seed", "title", "headline", "claims", "notes"}
    return {
        "report": str(page),
        "results": [
            {"folder": str(folder), **result.model_dump(mode="json", include=keep)}
            for result, folder in zip(results, folders, strict=True)
        ],
    }


def results_text(results: Sequence[Result]) -> str:
    """Return each result's three answers and its claims."""
    return "\n\n".join(_result_text(result) for result in results)


def _result_text(result: Result) -> str:
    lines = [f"{result.title} ({result.size}, seed {result.seed})"]
    if result.headline is not None:
        lines += [
            f"  divided      {result.headline.divided.text}",
            f"  specialized  {result.headline.specialized.text}",
            f"  paid         {result.headline.paid.text}",
        ]
    if result.claims:
        lines.append(
            columns(
                [
                    ["  ", claim.id, claim_verdict(claim), measured_text(claim.measured)]
                    for claim in result.claims
                ]
            )
        )
    return "\n".join(lines)


def claim_verdict(claim: Claim) -> str:
    """Return the verdict, with the size that would decide an undecided claim."""
    if claim.verdict == "undecided" and claim.needed is not None:
        return f"undecided (needs {claim.needed:,} {claim.needed_unit})"
    return claim.verdict


def measured_text(measured: Measured) -> str:
    """Return a measured number with its interval, in percent where the record says so."""
    from metier.report import format_measured

    return format_measured(measured)


def summary_table(results: Sequence[Result]) -> Any:
    """Return a rich table of every result's answers, for the end of the tour."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="Did specializing pay?", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    for name in ("study", "divided", "specialized", "paid", "claims"):
        table.add_column(name, overflow="fold", ratio=None if name == "study" else 1)
    for result in results:
        answers = ["", "", ""]
        if result.headline is not None:
            h = result.headline
            answers = [h.divided.text, h.specialized.text, f"{h.paid.verdict}: {measured_text(h.paid.gain)}"]
        table.add_row(result.study, *answers, _counts(result))
    return table


def _counts(result: Result) -> str:
    verdicts = [claim.verdict for claim in result.claims]
    return "\n".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts)) or "-"
