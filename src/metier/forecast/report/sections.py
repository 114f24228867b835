"""The sections and the headline of a fitted forecaster's own page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core import Assignment, derive, information
from metier.forecast.forecaster import ClusterForecaster
from metier.forecast.gate.reasons import GateReason, with_next_step
from metier.forecast.report.facts import naive_losses, trace_of
from metier.forecast.report.figures import (
    WORDS,
    candidates_table,
    coverage_table,
    descriptions_table,
    examples_figure,
    gain_figure,
    letter,
    series_figure,
    trace_figure,
)
from metier.forecast.report.gains import gain_decision, relative_gain
from metier.records import Divided, Headline, Measured, Paid, Section, paid, specialized

Floats = NDArray[np.float64]
NOT_HELD_OUT = "VAL"
"""What a candidate was judged on where no block could be held out."""
NAME = "ClusterForecaster"


def sections(
    forecaster: ClusterForecaster, forecasts: Any, *, levels: Sequence[float]
) -> tuple[Section, ...]:
    """The parts of a fitted forecaster's own page: did it pay, and who serves whom.

    Args:
        forecaster: fitted.
        forecasts: what its `predict` returned for the fitted horizon.
        levels: coverages in percent of the intervals in it; the first one is drawn.
    """
    report = forecaster.gate_report_
    held = forecaster.fitted_.held
    text = [with_next_step(report)]
    if report.reason != forecaster.decision_.reason:
        text.insert(0, forecaster.decision_.reason)
    pays = Section(
        title="Did it pay?",
        text="\n\n".join(text),
        figures=_gain_figures(forecaster) if held is not None else (),
        tables=(_candidates(forecaster),) if held is not None else (),
    )
    return pays, _who(forecaster, forecasts, levels)


def _losses(forecaster: ClusterForecaster) -> dict[str, Floats]:
    held = forecaster.fitted_.held
    if held is None:
        raise ValueError("nothing was held out")
    return {name: held.of(name) for name in held.names}


def _where(forecaster: ClusterForecaster) -> str:
    return f"on {forecaster.candidates_['global'].judged_on}"


def _gain_figures(forecaster: ClusterForecaster) -> tuple[Any, ...]:
    losses, where = _losses(forecaster), _where(forecaster)
    gains = {name: relative_gain(loss, losses["global"]) for name, loss in losses.items() if name != "global"}
    figures = [gain_figure(gains, where=where, in_use=forecaster.gate_report_.chosen)] if gains else []
    fitted = forecaster.fitted_
    rival = "clustered" if "clustered" in losses else "local"
    if fitted.held is not None and rival in losses:
        by_series = fitted.held.by_series
        base, own = (by_series[:, fitted.held.names.index(name)] for name in ("global", rival))
        seen = np.isfinite(base) & np.isfinite(own) & fitted.active
        level = np.nanmean(forecaster.panel_.values, axis=1)
        labels = fitted.groups[seen]
        figures.append(series_figure(level[seen], base[seen], own[seen], labels, unit="", where=where))
    return tuple(figures)


def _candidates(forecaster: ClusterForecaster) -> Any:
    losses, fitted = _losses(forecaster), forecaster.fitted_
    gains = {name: relative_gain(loss, losses["global"]) for name, loss in losses.items() if name != "global"}
    naive = naive_losses(forecaster, fitted.found.table.design, fitted.active, fitted.held.times)  # type: ignore[union-attr]
    return candidates_table(losses, gains, naive=float(naive.mean()), chosen=fitted.report.chosen)


def headline(forecaster: ClusterForecaster) -> Headline | None:
    """How the work is divided, what clusters tell, and whether they pay; None where nothing was judged."""
    if forecaster.fitted_.held is None:
        return None
    losses, report = _losses(forecaster), forecaster.gate_report_
    fitted = forecaster.fitted_
    rival = report.chosen if report.chosen in losses and report.chosen != "global" else "clustered"
    rival = rival if rival in losses else "local"
    decision, gain = (
        gain_decision(losses[rival], losses["global"]),
        relative_gain(losses[rival], losses["global"]),
    )
    side, judged = "below" if gain.value >= 0 else "above", forecaster.candidates_["global"].judged_on
    text = (
        f"On {judged} the loss of {WORDS[rival]} is {100 * abs(gain.value):.1f} % {side} the global model's; "
        f"in use: {WORDS[report.chosen]}."
    )
    labels = fitted.groups[fitted.active]
    if not fitted.n_clusters:
        divided = Divided(text=f"{forecaster.panel_.n_series} series are too few to divide into clusters.")
    else:
        assignment = Assignment.from_labels(labels, n_specialists=fitted.n_clusters)
        names = tuple(f"{letter(d.cluster)} {d.name}" for d in forecaster.describe())
        text_divided = (
            f"{len(labels):,} series into {fitted.n_clusters} clusters by which model forecasts them best on "
            f"validation data."
        )
        divided = Divided(text=text_divided, load=assignment.load, names=names)
    level = np.nanmean(forecaster.panel_.values, axis=1)[fitted.active]
    contexts = np.searchsorted(np.quantile(level, [1 / 3, 2 / 3]), level)
    found = information(contexts, labels, permutations=199, rng=derive(0, "information"))
    told = (
        "what the cluster tells about the level of a series (its tercile), which scaling hid from every model"
    )
    return Headline(
        divided=divided,
        specialized=specialized(found, text=told),
        paid=_untested(forecaster, gain, text)
        if judged == NOT_HELD_OUT
        else paid(decision, text=text).model_copy(update={"gain": gain}),
    )


def _untested(forecaster: ClusterForecaster, gain: Measured, text: str) -> Paid:
    """A gain on VAL itself, without the interval and the verdict of a test that never was."""
    why = "the same data chose the clusters" if forecaster.fitted_.n_clusters else "no block was held out"
    step = GateReason(forecaster.fitted_.plan.reason).next_step if forecaster.fitted_.plan.reason else ""
    return Paid(
        text=f"{text} This is not a fair test: {why}. {step}".rstrip(),
        gain=Measured(value=gain.value, percent=gain.percent),
        verdict="undecided",
    )


def _who(forecaster: ClusterForecaster, forecasts: Any, levels: Sequence[float]) -> Section:
    descriptions = [found.to_dict() for found in forecaster.describe()]
    names = {d["cluster"]: d["name"] for d in descriptions}
    shown = examples_figure(
        future_examples(forecaster, forecasts, levels),
        names,
        unit=forecaster.target_col,
        caption="The largest series of each cluster: its recent past (gray), the forecast, and "
        + (f"its {levels[0]:g} % interval." if levels else "no interval: the history is too short."),
    )
    trace = trace_figure(trace_of(forecaster.fitted_))
    tables = []
    if descriptions:
        tables.append(descriptions_table(descriptions, cluster_gains(forecaster)))
    if forecaster.coverage_:
        rows = coverage_rows(forecaster.coverage_)
        tables.append(
            coverage_table(rows, names, where="each held-out block judged by the others' intervals")
        )
    return Section(
        title="Who serves whom",
        text="The clusters that were found, whether in use or not. Names and sentences are made from medians."
        if descriptions
        else "",
        figures=tuple(figure for figure in (shown, trace) if figure is not None),
        tables=tuple(tables),
    )


def cluster_gains(forecaster: ClusterForecaster) -> dict[int, float]:
    """Relative held-out gain of each cluster's model over the global one."""
    held, fitted = forecaster.fitted_.held, forecaster.fitted_
    if held is None or "clustered" not in held.names:
        return {}
    sums = np.nanmean(held.by_group, axis=0)
    base, own = sums[:, held.names.index("global")], sums[:, held.names.index("clustered")]
    return {k: float(1.0 - own[k] / base[k]) for k in range(fitted.n_clusters) if base[k] > 0}


def coverage_rows(coverage: Sequence[tuple[int, float, float, int]]) -> list[dict[str, Any]]:
    """Rows (cluster, level, share, values) regrouped by cluster."""
    rows: dict[int, dict[str, Any]] = {}
    for cluster, level, share, values in coverage:
        row = rows.setdefault(int(cluster), {"cluster": int(cluster), "values": int(values)})
        row[f"{level:g}"] = share
    return list(rows.values())


def future_examples(
    forecaster: ClusterForecaster, forecasts: Any, levels: Sequence[float]
) -> list[dict[str, Any]]:
    """Each cluster's largest series: its recent past and its forecast."""
    panel, steps = forecaster.panel_, forecaster.horizon
    columns = {
        name: forecasts[name].to_numpy().reshape(panel.n_series, steps)
        for name in (NAME, *_band_names(levels))
    }
    stamps = forecasts[forecaster.time_col].to_numpy().reshape(panel.n_series, steps)
    level = np.nanmean(panel.values, axis=1)
    groups = forecaster.fitted_.groups
    past = max(48, 2 * steps, 2 * min(forecaster.season_length or 1, 84))
    out = []
    for k in np.unique(groups):
        members = np.flatnonzero(groups == k)
        i = int(members[np.argmax(level[members])])
        begin = max(int(panel.first[i]), int(panel.stop[i]) - past)
        history = panel.values[i, begin : panel.stop[i]]
        # The last value joins the past to the forecast.
        joint = [None] * (len(history) - 1) + [float(history[-1])]
        low, high = _band_names(levels) or (NAME, NAME)
        out.append(
            {
                "cluster": int(k),
                "series": str(panel.ids[i]),
                "stamps": [_stamp(s) for s in (*panel.stamps[begin : panel.stop[i]], *stamps[i])],
                "actual": [*history.tolist(), *[None] * steps],
                "forecast": [*joint, *columns[NAME][i].tolist()],
                "low": [*joint, *columns[low][i].tolist()],
                "high": [*joint, *columns[high][i].tolist()],
            }
        )
    return out


def _band_names(levels: Sequence[float]) -> tuple[str, ...]:
    return (f"{NAME}-lo-{levels[0]:g}", f"{NAME}-hi-{levels[0]:g}") if levels else ()


def _stamp(stamp: Any) -> str | int:
    return int(stamp) if isinstance(stamp, (int, np.integer)) else str(np.datetime64(stamp, "s"))
