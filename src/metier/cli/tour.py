"""`metier tour`: every system, small, on real data, ending in one report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metier.cli.answer import CHECK_FAILED, OK, Answer, RunInterruptedError, say
from metier.cli.options import AsJson, Out, Resume, Seed, choose_folder

if TYPE_CHECKING:
    from metier.cli.progress import LiveProgress
    from metier.core.extras import MissingExtraError
    from metier.runs import Result


def tour(
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="STUDY", help="Only this study; repeatable.", show_default=False),
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> Answer:
    """Run every study small on real data and write one report; a study whose extra is missing is skipped."""
    from metier.cli.progress import LiveProgress
    from metier.cli.summary import results_document, results_text, summary_table
    from metier.report import write_report

    names = _chosen(only)
    folder = choose_folder(out, Path("runs/tour"), resume=resume)
    _refuse_run(folder)
    results: dict[str, Result] = {}
    skipped: dict[str, MissingExtraError] = {}
    try:
        with LiveProgress() as progress:
            for number, name in enumerate(names, start=1):
                position = f"[{number}/{len(names)}]"
                _one(name, position, folder, seed, resume, progress, results, skipped)
            folders = [folder / name for name in results]
            page = write_report(
                _finished(folder), folder / "report.html", title="metier tour", skipped=_on_the_page(skipped)
            )
        if results:
            progress.console.print()
            progress.console.print(summary_table(list(results.values())))
    except KeyboardInterrupt:
        raise RunInterruptedError(_resume_command(only, seed, folder)) from None
    reasons = {name: str(error) for name, error in skipped.items()}
    for name, reason in reasons.items():
        say(f"skipped {name}: {reason}")
    say(f"\nReport: {page}")
    document = {**results_document(list(results.values()), folders=folders, page=page), "skipped": reasons}
    # Whoever names a study wants that one; a tour takes what there is.
    code = CHECK_FAILED if not results or (only and skipped) else OK
    return Answer(document=document, text=results_text(list(results.values())), as_json=as_json, code=code)


def _chosen(only: list[str] | None) -> list[str]:
    from metier.studies import REGISTRY, check_name

    for name in only or []:
        check_name(name)
    return list(dict.fromkeys(only)) if only else [name for name, entry in REGISTRY.items() if entry.in_tour]


def _refuse_run(folder: Path) -> None:
    """A run's folder holds that run's own report, which the tour's would replace."""
    from metier.core.errors import InputError
    from metier.runs import is_run

    if is_run(folder):
        raise InputError(
            "a tour keeps each run in a folder of its own",
            expected="a new folder, or that of a tour",
            got=f"{folder}, which holds a run",
            next_step="Choose another folder with --out.",
        )


def _finished(folder: Path) -> list[Path]:
    """The finished runs of a tour's folder, those of earlier calls included, in the tour's order."""
    from metier.runs import find_runs
    from metier.studies import REGISTRY

    order = {name: place for place, name in enumerate(REGISTRY)}
    if not folder.is_dir():
        return []
    runs = [run for run in find_runs(folder) if (run / "result.json").is_file()]
    return sorted(runs, key=lambda run: order.get(run.name, len(order)))


def _one(
    name: str,
    position: str,
    folder: Path,
    seed: int,
    resume: bool,
    progress: LiveProgress,
    results: dict[str, Result],
    skipped: dict[str, MissingExtraError],
) -> None:
    """Run one study into `results`, or put it into `skipped` where an extra is missing."""
    from metier.core.extras import MissingExtraError
    from metier.studies import execute, load_study

    try:
        study = load_study(name)
        progress.heading(f"{position} {study.title}")
        progress.stage(study.question)
        results[name] = execute(
            study, folder / name, size="tour", seed=seed, resume=resume, progress=progress
        )
    except MissingExtraError as error:
        skipped[name] = error


def _on_the_page(skipped: dict[str, MissingExtraError]) -> dict[str, str]:
    """Title of each study that was skipped -> the extras it needs, with the command set as code."""
    from metier.studies import REGISTRY

    page = {}
    for name, error in skipped.items():
        extras = ", ".join(f"`{extra}`" for extra in error.extras or (error.extra,))
        page[REGISTRY[name].title] = f"needs {extras}: `{error.command}`"
    return page


def _resume_command(only: list[str] | None, seed: int, folder: Path) -> str:
    words = ["metier", "tour"]
    for name in only or []:
        words += ["--only", name]
    return shlex.join([*words, "--seed", str(seed), "--out", str(folder), "--resume"])
