"""`metier run STUDY`: one study at one size, with one seed or several."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from metier.cli.answer import Answer, RunInterruptedError, say
from metier.cli.options import AsJson, Out, Resume, Seed, choose_folder, parse_settings


def run(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="A study's name; see `metier list`.", show_default=False)
    ],
    size: Annotated[str, typer.Option("--size", metavar="SIZE", help="tour, standard or full.")] = "tour",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change the configuration; repeatable.", show_default=False
        ),
    ] = None,
    seed: Seed = 0,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="How many seeds, from --seed on.")
    ] = 1,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> Answer:
    """Run a study and write its report."""
    from metier.cli.progress import LiveProgress
    from metier.cli.summary import results_document, results_text
    from metier.core.registry import load_study
    from metier.report import write_report
    from metier.runs import execute, resolve_config

    found = load_study(study)
    overrides = parse_settings(settings or [])
    resolve_config(found, size, overrides)
    folder = choose_folder(out, Path("runs") / f"{study}-{size}", resume=resume)
    folders = [folder] if seeds == 1 else [folder / f"seed-{seed + k}" for k in range(seeds)]
    results = []
    try:
        with LiveProgress() as progress:
            for k, place in enumerate(folders):
                progress.heading(f"{found.title} ({size}, seed {seed + k})")
                results.append(
                    execute(
                        found,
                        place,
                        size=size,
                        overrides=overrides,
                        seed=seed + k,
                        resume=resume,
                        progress=progress,
                    )
                )
            progress.stage("writing the report")
            page = write_report(folders, folder / "report.html")
    except KeyboardInterrupt:
        raise RunInterruptedError(_resume_command(study, size, overrides, seed, seeds, folder)) from None
    say(f"\nReport: {page}")
    document = results_document(results, folders=folders, page=page)
    return Answer(document=document, text=results_text(results), as_json=as_json)


def _resume_command(
    study: str, size: str, overrides: dict[str, str], seed: int, seeds: int, folder: Path
) -> str:
    from metier.runs import command_line

    words: list[Any] = [command_line(study, size=size, seed=seed, overrides=overrides)]
    if seeds > 1:
        words.append(f"--seeds {seeds}")
    return " ".join([*words, "--out", shlex.quote(str(folder)), "--resume"])
