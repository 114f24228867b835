"""Metrics of a cross-validation frame, per model and per series."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from metier.core.checks import one_of
from metier.core.errors import InputError
from metier.forecast.panels.frames import factorize, numeric, read_table, require_columns, to_narwhals
from metier.forecast.panels.panel import Panel, panel_from_frame
from metier.forecast.panels.repair import named
from metier.forecast.scaled import seasonal_scale

Floats = NDArray[np.float64]
_INTERVAL = re.compile(r"(?P<model>.+)-(?P<end>lo|hi)-(?P<level>\d+(\.\d+)?)")


def evaluate(
    cv_frame: Any,
    train: Any = None,
    *,
    models: Sequence[str] | None = None,
    season_length: int = 1,
    level: Sequence[float] | None = None,
    by: str | None = None,
    id_col: str = "unique_id",
    time_col: str = "ds",
    target_col: str = "y",
    cutoff_col: str = "cutoff",
    freq: str | int | None = None,
    repair: str | Sequence[str] = (),
) -> Any:
    """Metrics per model, and per series if asked, of a cross-validation frame.

    Each metric is computed for each series over all its rows; without `by`, series count alike in the mean
    over series. Scaled errors divide by the seasonal naive error of `train` up to the series' first cutoff;
    series without that scale (constant or short ones) are left out of their mean, and `n_scaled` counts the
    others.

    Args:
        cv_frame: long frame with id, time, target and a column per model, and for intervals
            ``MODEL-lo-LEVEL`` and ``MODEL-hi-LEVEL``, the level in percent; a cutoff column is optional.
        train: long frame of the history, for `mase` and `rmsse`; without it they are left out.
        models: model columns; None is all that are not id, time, target, cutoff or interval ends.
        season_length: steps of the seasonal naive forecast.
        level: interval levels in percent; None is all that every model has.
        by: `id_col` for a row per series and model; None for a row per model.
        id_col: column of series names.
        time_col: time column.
        target_col: target column.
        cutoff_col: last stamp before each forecast.
        freq: frequency of `train`; None infers it.
        repair: repairs of `train`, as in `panel_from_frame`.

    Returns:
        A frame of the input's library: [id,] model, n (rows), mae, rmse, [mase, rmsse, n_scaled,] and for
        each level coverage-LEVEL (a share), width-LEVEL and pinball-LEVEL (the mean over its two ends).

    Raises:
        InputError: columns lack, values are not finite, or `train` lacks a series.

    Example:
        >>> import polars as pl
        >>> cv = pl.DataFrame({"unique_id": ["a", "a"], "ds": [4, 5], "y": [1.0, 2.0], "ridge": [1.0, 4.0]})
        >>> evaluate(cv).rows()
        [('ridge', 2, 1.0, 1.4142135623730951)]

    Source:
        Definitions in `metier.forecast.metrics`.
    """
    table = read_table(cv_frame, id_col=id_col, time_col=time_col, target_col=target_col, exog=())
    frame = to_narwhals(cv_frame, (id_col, time_col))
    require_columns(frame, (target_col,))
    codes, ids = factorize(table.ids)
    rows = _Rows(ids, codes, table.target)
    rows.check(target_col, table.target)
    own = (id_col, time_col, target_col, cutoff_col)
    chosen = _models(frame, models, own)
    levels = _levels(frame, chosen, level)
    ends = {f"{model}-{end}-{lv}" for model in chosen for lv in levels for end in ("lo", "hi")}
    columns = {name: numeric(frame[name]) for name in (*chosen, *sorted(ends))}
    for name, values in columns.items():
        rows.check(name, values)
    scales = None
    if train is not None:
        cutoffs = frame[cutoff_col].to_numpy() if cutoff_col in frame.columns else None
        keys = (id_col, time_col, target_col)
        panel = _history(train, keys, freq, repair)
        scales = _scales(panel, rows, cutoffs, season_length)
    per_model = {model: _metrics(rows, model, columns, levels, scales) for model in chosen}
    if by is None:
        return table.template.frame(_means(per_model))
    one_of("by", by, (id_col,))
    return table.template.frame(_stacked(per_model, ids, id_col))


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of the frame by series."""

    ids: NDArray[Any]
    codes: NDArray[np.intp]
    y: Floats

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.bincount(self.codes, minlength=self.ids.size)

    def mean(self, values: Floats) -> Floats:
        return np.asarray(np.bincount(self.codes, weights=values, minlength=self.ids.size) / self.counts)

    def check(self, name: str, values: Floats) -> None:
        holes = ~np.isfinite(values)
        if holes.any():
            bad = np.isin(np.arange(self.ids.size), self.codes[holes])
            raise InputError(
                f"column {name!r} must be finite to be evaluated",
                expected="numbers",
                got=f"{int(holes.sum())} missing or infinite values in {named(self.ids, bad)}",
                next_step="Drop these rows, or leave the model out with models=[...].",
            )


def _models(frame: nw.DataFrame[Any], models: Sequence[str] | None, own: Sequence[str]) -> tuple[str, ...]:
    if models is None:
        rest = [name for name in frame.columns if name not in own]
        models = [name for name in rest if not _is_interval_end(name, rest)]
    if not models:
        raise InputError(
            "a cross-validation frame has a column per model",
            expected="at least one model column",
            got=", ".join(repr(name) for name in frame.columns),
            next_step="Pass the frame that cross_validation returned, or name models=[...].",
        )
    require_columns(frame, models)
    return tuple(models)


def _is_interval_end(name: str, columns: Sequence[str]) -> bool:
    match = _INTERVAL.fullmatch(name)
    return match is not None and match["model"] in columns


def _levels(
    frame: nw.DataFrame[Any], models: Sequence[str], level: Sequence[float] | None
) -> tuple[str, ...]:
    if level is None:
        found = [m["level"] for m in map(_INTERVAL.fullmatch, frame.columns) if m and m["model"] == models[0]]
        names = sorted(set(found), key=float)
        every = {f"{model}-{end}-{lv}" for model in models for lv in names for end in ("lo", "hi")}
        lacking = every - set(frame.columns)
        return tuple(lv for lv in names if not any(name.endswith(f"-{lv}") for name in lacking))
    names = [f"{lv:g}" for lv in level]
    require_columns(
        frame, [f"{model}-{end}-{lv}" for model in models for lv in names for end in ("lo", "hi")]
    )
    return tuple(names)


def _metrics(
    rows: _Rows,
    model: str,
    columns: Mapping[str, Floats],
    levels: Sequence[str],
    scales: tuple[Floats, Floats] | None,
) -> dict[str, NDArray[Any]]:
    error = rows.y - columns[model]
    mae, rmse = rows.mean(np.abs(error)), np.sqrt(rows.mean(error**2))
    result: dict[str, NDArray[Any]] = {"n": rows.counts, "mae": mae, "rmse": rmse}
    if scales is not None:
        absolute, squared = scales
        result |= {"mase": mae / absolute, "rmsse": rmse / np.sqrt(squared)}
        result["n_scaled"] = np.isfinite(absolute).astype(np.int64)
    for level in levels:
        lower, upper = columns[f"{model}-lo-{level}"], columns[f"{model}-hi-{level}"]
        tail = (1 - float(level) / 100) / 2
        ends = _pinball(rows.y - lower, tail) + _pinball(rows.y - upper, 1 - tail)
        result[f"coverage-{level}"] = rows.mean(((lower <= rows.y) & (rows.y <= upper)).astype(np.float64))
        result[f"width-{level}"] = rows.mean(upper - lower)
        result[f"pinball-{level}"] = rows.mean(ends / 2)
    return result


def _pinball(residual: Floats, quantile: float) -> Floats:
    return np.asarray(np.maximum(quantile * residual, (quantile - 1) * residual))


def _history(
    train: Any, keys: tuple[str, str, str], freq: str | int | None, repair: str | Sequence[str]
) -> Panel:
    frame = to_narwhals(train, keys[:2])
    require_columns(frame, keys)
    own = frame.select(*keys).to_native()
    id_col, time_col, target_col = keys
    return panel_from_frame(
        own, id_col=id_col, time_col=time_col, target_col=target_col, freq=freq, repair=repair
    )


def _scales(
    panel: Panel, rows: _Rows, cutoffs: NDArray[Any] | None, season_length: int
) -> tuple[Floats, Floats]:
    place = {label: row for row, label in enumerate(panel.ids)}
    lacking = np.array([label not in place for label in rows.ids])
    if lacking.any():
        raise InputError(
            "train holds the history of every evaluated series",
            expected="all series of the cross-validation frame",
            got=f"no rows for {named(rows.ids, lacking)}",
            next_step="Pass the frame that was forecast from.",
        )
    history = panel.values[[place[label] for label in rows.ids]]
    if cutoffs is not None:
        order = np.lexsort((cutoffs, rows.codes))
        first = cutoffs[order][np.searchsorted(rows.codes[order], np.arange(rows.ids.size))]
        history = np.where(panel.stamps <= first[:, None], history, np.nan)
    absolute = seasonal_scale(history, season_length=season_length, power=1)
    return absolute, seasonal_scale(history, season_length=season_length, power=2)


def _means(per_model: Mapping[str, Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    names = list(next(iter(per_model.values())))
    table: dict[str, NDArray[Any]] = {"model": np.array(list(per_model), dtype=object)}
    for name in names:
        reduce = np.sum if name in ("n", "n_scaled") else _mean_of_defined
        table[name] = np.array([reduce(metrics[name]) for metrics in per_model.values()])
    return table


def _mean_of_defined(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _stacked(
    per_model: Mapping[str, Mapping[str, NDArray[Any]]], ids: NDArray[Any], id_col: str
) -> dict[str, NDArray[Any]]:
    names = list(next(iter(per_model.values())))
    table: dict[str, NDArray[Any]] = {
        id_col: np.tile(ids, len(per_model)),
        "model": np.repeat(np.array(list(per_model), dtype=object), ids.size),
    }
    return table | {name: np.concatenate([m[name] for m in per_model.values()]) for name in names}
