"""`metier report RUN...`: finished runs as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metier.cli.answer import Answer, say
from metier.cli.options import AsJson, Out


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run folders, or folders that hold some.", show_default=False),
    ],
    out: Out = None,
    title: Annotated[
        str | None, typer.Option("--title", metavar="TEXT", help="The page's title.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> Answer:
    """Write finished runs as one HTML page."""
    from metier.report import write_report
    from metier.runs import find_runs

    found = [folder for place in runs for folder in find_runs(place)]
    finished = [folder for folder in found if (folder / "result.json").exists()]
    unfinished = [str(folder) for folder in found if folder not in finished]
    for folder in unfinished:
        say(f"left out {folder}: not finished, go on with it by --resume")
    if out is None:
        out = runs[0] / "report.html" if len(runs) == 1 else Path("report.html")
    page = write_report(finished or found, out, title=title)
    document = {"report": str(page), "runs": [str(folder) for folder in finished], "unfinished": unfinished}
    return Answer(document=document, text=str(page), as_json=as_json)
