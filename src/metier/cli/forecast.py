"""`metier forecast FILE`: forecasts, a decision and a report for a file of your own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metier.cli.answer import Answer, columns, say
from metier.cli.options import AsJson, Out, Seed, parse_settings
from metier.cli.own_file import fresh_folder, plain_document, repeating_command

if TYPE_CHECKING:
    from metier.cli.forecast_job import FileJob
    from metier.forecast import ClusterForecaster


def forecast(
    file: Annotated[
        Path, typer.Argument(help="csv or parquet, one row per series and stamp.", show_default=False)
    ],
    horizon: Annotated[int, typer.Option("--horizon", "-H", min=1, help="Steps to forecast.")],
    id_col: Annotated[str, typer.Option("--id-col", help="Column that names the series.")] = "unique_id",
    time_col: Annotated[str, typer.Option("--time-col", help="Column of dates or whole numbers.")] = "ds",
    target_col: Annotated[str, typer.Option("--target-col", help="Column to forecast.")] = "y",
    freq: Annotated[
        str | None, typer.Option("--freq", help="Such as h, D, W-MON, MS; else inferred.", show_default=False)
    ] = None,
    lags: Annotated[
        str | None,
        typer.Option("--lags", help="A number, or lags as 1,2,24; else by frequency.", show_default=False),
    ] = None,
    season_length: Annotated[
        int | None,
        typer.Option("--season-length", min=2, help="Steps; else by frequency.", show_default=False),
    ] = None,
    loss: Annotated[str, typer.Option("--loss", help="squared, huber or pinball.")] = "squared",
    level: Annotated[
        list[float] | None,
        typer.Option("--level", help="Interval in percent; repeatable. Else 80 and 95.", show_default=False),
    ] = None,
    future: Annotated[
        Path | None,
        typer.Option("--future", help="Inputs known in advance for the horizon.", show_default=False),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other parameter of ClusterForecaster; repeatable.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
) -> Answer:
    """Forecast your own series and say whether specializing pays."""
    from metier.cli.forecast_job import FileJob, forecast_file, write_forecast
    from metier.cli.forecast_settings import forecaster_settings, parse_lags
    from metier.cli.progress import LiveProgress
    from metier.report import write_report
    from metier.runs import FitBars

    job = FileJob(
        file=file,
        horizon=horizon,
        id_col=id_col,
        time_col=time_col,
        target_col=target_col,
        freq=freq,
        lags=parse_lags(lags),
        season_length=season_length,
        loss=loss,
        levels=tuple(level) if level else None,
        seed=seed,
        future=future,
        settings=forecaster_settings(parse_settings(settings or [])),
    )
    folder = fresh_folder(out, "forecast", file)
    with LiveProgress() as progress:
        progress.heading(f"Forecasting {file.name}")
        bars = FitBars(progress)
        done = forecast_file(job, say=progress.stage, progress=bars)
        bars.close()
        progress.stage("writing forecasts and report")
        result, path = write_forecast(done, folder, command=command_of(job, settings or []))
        page = write_report([folder], folder / "report.html")
    say(f"\nForecasts: {path}\nReport: {page}")
    document = {
        "forecasts": str(path),
        "report": str(page),
        "folder": str(folder),
        **_document(done.forecaster),
        "headline": None if result.headline is None else result.headline.model_dump(mode="json"),
        "notes": list(done.notes),
    }
    return Answer(document=document, text=_text(done.forecaster), as_json=as_json)


def command_of(job: FileJob, settings: list[str]) -> str:
    """The command that repeats a job."""
    options: list[tuple[str, Any]] = [
        ("--horizon", job.horizon),
        ("--id-col", job.id_col),
        ("--time-col", job.time_col),
        ("--target-col", job.target_col),
        ("--freq", job.freq),
        ("--lags", job.lags),
        ("--season-length", job.season_length),
        ("--loss", job.loss),
        *(("--level", level) for level in job.levels or ()),
        ("--future", job.future),
    ]
    return repeating_command("forecast", job, options, settings)


def _document(forecaster: ClusterForecaster) -> dict[str, Any]:
    report = forecaster.gate_report_
    plain = {
        "chosen": report.chosen,
        "sentence": decision_sentence(forecaster),
        "candidates": [
            {"name": c.name, "loss": _finite(c.loss), "gain": c.relative_gain, "chosen": c.chosen}
            for c in forecaster.candidates_.values()
        ],
        "clusters": [found.to_dict() for found in forecaster.describe()],
        "settings": {
            "lags": forecaster.lags,
            "season_length": forecaster.season_length,
            "freq": forecaster.panel_.freq.name,
        },
    }
    return plain_document(plain)


def _finite(value: float) -> float | None:
    return value if value == value else None


def decision_sentence(forecaster: ClusterForecaster) -> str:
    """What is in use and why."""
    from metier.forecast.gate.reasons import with_next_step

    words = {
        "global": "One global model serves all series",
        "local": "Each series has its own model",
        "clustered": "Each cluster has its own model",
    }
    report = forecaster.gate_report_
    return f"{words[report.chosen]}. {with_next_step(report)}"


def _text(forecaster: ClusterForecaster) -> str:
    rows = [["CANDIDATE", "MODELS", "LOSS", "GAIN", ""]]
    for candidate in forecaster.candidates_.values():
        loss = "-" if _finite(candidate.loss) is None else f"{candidate.loss:.4f}"
        gain = "" if candidate.name == "global" else f"{100 * round(candidate.relative_gain, 4) + 0.0:+.2f} %"
        used = "in use" if candidate.chosen else ""
        rows.append([candidate.name, str(candidate.n_specialists), loss, gain, used])
    lines = [decision_sentence(forecaster), "", columns(rows)]
    found = forecaster.describe()
    if found:
        from metier.forecast.report.figures import letter

        lines += ["", columns([[letter(d.cluster), d.name, d.sentence] for d in found])]
    return "\n".join(lines)
