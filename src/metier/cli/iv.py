"""`metier iv FILE`: the effect of a treatment by instruments, with tables and warnings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metier.cli.answer import Answer, say
from metier.cli.options import AsJson, Out, Seed, parse_settings
from metier.cli.own_file import fresh_folder, plain_document, repeating_command

if TYPE_CHECKING:
    from metier.cli.iv_job import IVJob


def iv(
    file: Annotated[Path, typer.Argument(help="csv or parquet, one row per unit.", show_default=False)],
    outcome: Annotated[str, typer.Option("--outcome", help="Column of the outcome.")],
    treatment: Annotated[str, typer.Option("--treatment", help="Column(s) whose effect is asked for: A,B.")],
    instruments: Annotated[str, typer.Option("--instruments", help="Columns that move it: A,B,C.")],
    controls: Annotated[
        str | None,
        typer.Option("--controls", help="Columns to hold constant: A,B,C; text too.", show_default=False),
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Column of row weights.", show_default=False)
    ] = None,
    groups: Annotated[
        str | None, typer.Option("--groups", help="Column of clusters.", show_default=False)
    ] = None,
    features: Annotated[
        str, typer.Option("--features", help="Shape of the effect: linear, spline or fourier.")
    ] = "linear",
    level: Annotated[float, typer.Option("--level", help="Coverage of the intervals, percent.")] = 95.0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="estimator, folds, repeats, learner, control_learner, missing; repeatable.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
) -> Answer:
    """Estimate an effect by instruments, with a standard error."""
    from metier.cli.iv_job import IVJob, iv_file, write_iv
    from metier.cli.iv_settings import iv_settings
    from metier.cli.progress import LiveProgress
    from metier.report import write_report

    job = IVJob(
        file=file,
        outcome=outcome,
        treatment=_names(treatment),
        instruments=_names(instruments),
        controls=_names(controls),
        weights=weights,
        groups=groups,
        features=features,
        level=level,
        seed=seed,
        settings=iv_settings(parse_settings(settings or [])),
    )
    folder = fresh_folder(out, "iv", file)
    with LiveProgress() as progress:
        progress.heading(f"Instrumental variables in {file.name}")
        done = iv_file(job, say=progress.stage)
        progress.stage("writing report")
        write_iv(done, folder, command=command_of(job, settings or []))
        page = write_report([folder], folder / "report.html")
    say(f"\nReport: {page}")
    document = {
        "report": str(page),
        "folder": str(folder),
        **plain_document(done.iv.to_dict(job.level / 100.0)),
        "notes": list(done.notes),
    }
    return Answer(document=document, text=done.iv.summary(job.level / 100.0), as_json=as_json)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def command_of(job: IVJob, settings: list[str]) -> str:
    """The command that repeats a job."""
    names = ("outcome", "treatment", "instruments", "controls", "weights", "groups", "features", "level")
    return repeating_command("iv", job, [(f"--{name}", getattr(job, name)) for name in names], settings)
