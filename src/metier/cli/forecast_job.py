"""Forecasts for a user's own file: read, choose lags, fit, forecast, and write the run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metier.cli.forecast_settings import in_options
from metier.cli.frames import keep_columns, read_file, write_like
from metier.core import InputError
from metier.forecast import ClusterForecaster
from metier.forecast.panels.frames import require_three_columns
from metier.forecast.panels.panel import Panel, panel_from_frame
from metier.forecast.report import fit_quietly, headline, sections
from metier.forecast.words.seasons import default_lags, step_word
from metier.runs import DataUsed, Result, Run

DEFAULT_LEVELS = (80.0, 95.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileJob:
    """What the user asked for.

    Args:
        file: csv or parquet, one row per series and stamp.
        horizon: steps to forecast.
        id_col, time_col, target_col: its columns.
        freq: frequency, or None to infer it.
        lags, season_length: or None to choose them by the frequency.
        loss: forecast loss.
        levels: coverages of intervals in percent, or None for 80 and 95 as far as the history allows.
        seed: of the fit.
        future: file with inputs that are known in advance, or None to leave further columns out.
        settings: further parameters of `ClusterForecaster`.
    """

    file: Path
    horizon: int
    id_col: str = "unique_id"
    time_col: str = "ds"
    target_col: str = "y"
    freq: str | None = None
    lags: int | tuple[int, ...] | None = None
    season_length: int | None = None
    loss: str = "squared"
    levels: tuple[float, ...] | None = None
    seed: int = 0
    future: Path | None = None
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class FileForecast:
    """The fitted forecaster, the forecasts, and notes for people."""

    job: FileJob
    forecaster: ClusterForecaster
    frame: Any
    levels: tuple[float, ...]
    notes: tuple[str, ...]


def forecast_file(
    job: FileJob,
    *,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[str, int, int], None] | None = None,
) -> FileForecast:
    """Read the file, fit, and forecast.

    Args:
        job: what the user asked for.
        say: told what was chosen and left out.
        progress: as in `ClusterForecaster.fit`.

    Raises:
        InputError: naming the file, the column or the series that is wrong.
    """
    try:
        return _forecast_file(job, say, progress)
    except InputError as error:
        parts = {"expected": error.expected, "got": error.got, "next_step": in_options(error.next_step)}
        raise InputError(error.rule, **parts) from None


def _forecast_file(
    job: FileJob, say: Callable[[str], None], progress: Callable[[str, int, int], None] | None
) -> FileForecast:
    notes: list[str] = []

    def tell(text: str) -> None:
        notes.append(text)
        say(text)

    _check_levels(job.levels)
    frame, future = _read(job, tell)
    panel = panel_from_frame(
        frame,
        id_col=job.id_col,
        time_col=job.time_col,
        target_col=job.target_col,
        freq=int(job.freq) if job.freq is not None and job.freq.isdigit() else job.freq,
        repair=job.settings.get("repair", ()),
    )
    say(f"{panel.n_series} series, {panel.n_steps} stamps, one every {step_word(panel.freq)}")
    forecaster = _forecaster(job, panel, tell)
    for note in fit_quietly(forecaster, panel, progress):
        tell(note)
    table, levels = _predict(forecaster, job, future, tell)
    return FileForecast(job=job, forecaster=forecaster, frame=table, levels=levels, notes=tuple(notes))


def _check_levels(levels: Sequence[float] | None) -> None:
    wrong = [level for level in levels or () if not 0 < level < 100]
    if wrong:
        raise InputError(
            "a level is a coverage in percent",
            expected="more than 0 and less than 100",
            got=f"{wrong[0]:g}",
            next_step="Write for example --level 90.",
        )


def _read(job: FileJob, tell: Callable[[str], None]) -> tuple[Any, Any]:
    require_three_columns(job.id_col, job.time_col, job.target_col)
    columns = {"id_col": job.id_col, "time_col": job.time_col}
    frame = read_file(job.file, **columns, target_col=job.target_col)
    future = None if job.future is None else read_file(job.future, **columns, target_col=None)
    own = [job.id_col, job.time_col, job.target_col]
    known = (
        []
        if future is None
        else [name for name in frame.columns if name in future.columns and name not in own]
    )
    if future is not None and not known:
        raise InputError(
            "--future names a file with inputs that are known in advance",
            expected=f"a column beside {job.id_col!r} and {job.time_col!r} that {job.file.name} has too",
            got=", ".join(map(repr, future.columns)),
            next_step="Correct the file, or leave --future out.",
        )
    frame, dropped = keep_columns(frame, [*own, *known])
    if dropped:
        tell(
            f"left out {', '.join(map(repr, dropped))}: a further column needs its values in advance, "
            f"by --future"
        )
    return frame, future


def _forecaster(job: FileJob, panel: Panel, tell: Callable[[str], None]) -> ClusterForecaster:
    lags, season = job.lags, job.season_length
    if lags is None:
        lengths = panel.lengths
        choice = default_lags(
            panel.freq, n_steps=int(np.median(lengths)), shortest=int(lengths.min()), horizon=job.horizon
        )
        lags = choice.lags
        if season is None:
            season = choice.season_length
            tell(f"lags: {choice.reason}")
        else:
            tell(f"lags: {choice.lags}, beside the season of {season} steps that you named")
    return ClusterForecaster(
        horizon=job.horizon,
        lags=lags,
        season_length=season,
        loss=job.loss,
        id_col=job.id_col,
        time_col=job.time_col,
        target_col=job.target_col,
        rng=job.seed,
        **job.settings,
    )


def _predict(
    forecaster: ClusterForecaster, job: FileJob, future: Any, tell: Callable[[str], None]
) -> tuple[Any, tuple[float, ...]]:
    """Forecasts with the levels asked for; unasked levels give way where the history is too short."""
    if job.levels is not None:
        return forecaster.predict(level=job.levels, future=future), job.levels
    if forecaster.fitted_.calibration is None:
        tell("no intervals: the newest part of the history is too short to calibrate them")
        return forecaster.predict(future=future), ()
    for levels in (DEFAULT_LEVELS, DEFAULT_LEVELS[:1]):
        try:
            return forecaster.predict(level=levels, future=future), levels
        except InputError as error:
            if not error.rule.startswith("an interval of level"):
                raise
            tell(f"no {levels[-1]:g} % interval: {error.rule}, got {error.got}")
    return forecaster.predict(future=future), ()


def write_forecast(done: FileForecast, folder: Path, *, command: str) -> tuple[Result, Path]:
    """Write the forecasts and the run's records into a new folder.

    Returns:
        The result and the path of the forecasts, in the format of the input.
    """
    job = done.job
    digest = hashlib.sha256(job.file.read_bytes()).hexdigest()
    parameters = {
        key: value for key, value in done.forecaster.get_params().items() if key not in ("rng", "model")
    }
    config = {
        "file": job.file.name,
        "sha256": digest,
        "levels": list(done.levels),
        "model": str(done.forecaster.model),
        **parameters,
    }
    with Run.create(
        folder, study="forecast-file", size="file", config=config, seed=job.seed, command=command
    ) as run:
        path = write_like(done.frame, folder / f"forecasts{job.file.suffix.lower()}", source=job.file)
        result = run.result(
            family="forecast",
            title=f"Forecasts for {job.file.name}",
            question=f"Which {job.horizon} steps come next, and do groups of series want models of "
            "their own?",
            headline=headline(done.forecaster),
            sections=sections(done.forecaster, done.frame, levels=done.levels),
            data=(DataUsed(name=job.file.name, sha256=digest),),
            notes=done.notes,
        )
        return run.finish(result), path
