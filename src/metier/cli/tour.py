"""`metier tour`: every system, small, on real data, ending in one report."""

from __future__ import annotations

import shlex
import traceback
from dataclasses import dataclass, field
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
    done = Outcomes()
    try:
        with LiveProgress() as progress:
            for number, name in enumerate(names, start=1):
                heading = f"[{number}/{len(names)}]"
                _one(name, folder / name, heading, seed=seed, resume=resume, progress=progress, done=done)
            page = write_report(
                _finished(folder), folder / "report.html", title="metier tour", skipped=done.on_the_page()
            )
        if done.results:
            progress.console.print()
            progress.console.print(summary_table(list(done.results.values())))
    except KeyboardInterrupt:
        raise RunInterruptedError(_resume_command(only, seed, folder)) from None
    reasons = {name: str(error) for name, error in done.skipped.items()}
    for name, reason in reasons.items():
        say(f"skipped {name}: {reason}")
    for name, reason in done.failed.items():
        say(f"failed {name}: {reason}")
    say(f"\nReport: {page}")
    results = list(done.results.values())
    found = results_document(results, folders=[folder / name for name in done.results], page=page)
    # Whoever names a study wants that one; a tour takes what there is.
    incomplete = not results or done.failed or (only and done.skipped)
    return Answer(
        document={**found, "skipped": reasons, "failed": done.failed},
        text=results_text(results),
        as_json=as_json,
        code=CHECK_FAILED if incomplete else OK,
    )


@dataclass
class Outcomes:
    """What became of each study: its result, the extras that are missing, or the error it ended with."""

    results: dict[str, Result] = field(default_factory=dict)
    skipped: dict[str, MissingExtraError] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def on_the_page(self) -> dict[str, str]:
        """Title of each study that did not run -> why, with commands set as code."""
        from metier.core.registry import registry

        reasons = {name: f"failed with {error}" for name, error in self.failed.items()}
        for name, error in self.skipped.items():
            extras = ", ".join(f"`{extra}`" for extra in error.extras or (error.extra,))
            reasons[name] = f"needs {extras}: `{error.command}`"
        return {registry()[name].title: reason for name, reason in reasons.items()}


def _chosen(only: list[str] | None) -> list[str]:
    from metier.core.errors import MetierError
    from metier.core.registry import check_name, how_to_install, registry

    if not registry():
        raise MetierError(f"a tour goes through studies, and metier itself holds none. {how_to_install()}")
    for name in only or []:
        check_name(name)
    return list(dict.fromkeys(only)) if only else [n for n, entry in registry().items() if entry.in_tour]


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
    from metier.core.registry import registry
    from metier.runs import find_runs, is_run

    order = {name: place for place, name in enumerate(registry())}
    # A folder without a run is an error of `find_runs`; here it is a tour that could run nothing.
    if not any(is_run(place) for place in (folder.iterdir() if folder.is_dir() else ())):
        return []
    runs = [run for run in find_runs(folder) if (run / "result.json").is_file()]
    return sorted(runs, key=lambda run: order.get(run.name, len(order)))


def _one(
    name: str, folder: Path, heading: str, *, seed: int, resume: bool, progress: LiveProgress, done: Outcomes
) -> None:
    """Run one study, and keep its result or why there is none."""
    from metier.core.errors import MetierError
    from metier.core.extras import MissingExtraError
    from metier.core.registry import load_study
    from metier.runs import execute, read_result

    try:
        study = load_study(name)
        progress.heading(f"{heading} {study.title}")
        progress.stage(study.question)
        done.results[name] = execute(study, folder, size="tour", seed=seed, resume=resume, progress=progress)
    except MissingExtraError as error:
        # A finished run needs none of its packages any more.
        found = read_result(folder) if resume and (folder / "result.json").is_file() else None
        if found is not None and found.seed == seed:
            done.results[name] = found
        else:
            done.skipped[name] = error
    except (MetierError, OSError):
        raise
    except Exception as error:
        # One study that breaks must not cost the others their report.
        traceback.print_exc()
        done.failed[name] = f"{type(error).__name__}: {error}"


def _resume_command(only: list[str] | None, seed: int, folder: Path) -> str:
    words = ["metier", "tour"]
    for name in only or []:
        words += ["--only", name]
    return shlex.join([*words, "--seed", str(seed), "--out", str(folder), "--resume"])
