"""The sections of a fitted IV estimate's own page."""

from __future__ import annotations

import math

import numpy as np

from metier.bilevel.estimators.first_stage import FirstStageRow
from metier.bilevel.estimators.iv import IVBilevel
from metier.records import (
    Column,
    Figure,
    IntervalRow,
    Intervals,
    Lines,
    Measured,
    Section,
    Series,
    Table,
)


def effect_section(iv: IVBilevel, *, level: float, key: str = "") -> Section:
    """Coefficients with intervals, as a table and a picture.

    Args:
        iv: fitted.
        level: coverage of the intervals.
        key: prefix of the ids, where one report shows several.
    """
    table = iv.coefficients(level)
    rows = tuple(
        (
            name,
            _estimate(coef, low, high, level, iv.n_),
            float(stderr),
            None if math.isnan(p) else float(p),
        )
        for name, coef, stderr, p, (low, high) in zip(
            table.names, table.coef, table.stderr, table.p_values, table.interval, strict=True
        )
    )
    coefficients = Table(
        id=f"{key}coefficients",
        title=f"Effect on {iv.outcome_name_}",
        columns=(
            Column(name="coefficient"),
            Column(name="estimate", kind="estimate"),
            Column(name="standard error", kind="number"),
            Column(name="p", kind="p_value"),
        ),
        rows=rows,
        caption=f"Roots of the orthogonal, cross-fitted gradient with {100 * level:g} % Wald intervals.",
    )
    text = (
        f"{iv.n_:,} rows; instruments {', '.join(iv.instrument_names_)}; controls "
        f"{', '.join(iv.control_names_) or 'none'}, partialled out by models that never saw the row."
    )
    return Section(
        title="The effect", text=text, tables=(coefficients,), figures=(_figure(iv, level=level, key=key),)
    )


def _estimate(value: float, low: float, high: float, level: float, n: int) -> Measured:
    return Measured(
        value=value, low=low, high=high, level=level, n=n, unit="rows", method="orthogonal score, Wald"
    )


def _figure(iv: IVBilevel, *, level: float, key: str) -> Figure:
    title = f"Effect of {', '.join(iv.treatment_names_)} on {iv.outcome_name_}"
    if iv.features == "linear" or len(iv.treatment_names_) > 1:
        return Figure(
            id=f"{key}effect",
            title=title,
            caption=f"Estimates with {100 * level:g} % Wald intervals; two-stage least squares beside them.",
            alt=title + ": " + "; ".join(row.label for row in _rows(iv, level)),
            data=Intervals(x_label=f"effect on {iv.outcome_name_}", rows=tuple(_rows(iv, level))),
        )
    observed = iv.treatment_values_[:, 0]
    low, high = np.quantile(observed, [0.01, 0.99])
    effect = iv.effect(np.linspace(low, high, 61), level=level)
    x = effect.treatment[:, 0]
    series = (
        Series(name="pointwise", x=x, y=effect.value, low=effect.low, high=effect.high),
        Series(name="whole curve", x=x, y=effect.uniform_low, style="dotted"),
        Series(name="whole curve, upper", x=x, y=effect.uniform_high, style="dotted"),
    )
    return Figure(
        id=f"{key}effect",
        title=title,
        caption=f"Effect against the median treatment {effect.reference[0]:.4g}, with a pointwise "
        f"{100 * level:g} % band and, dotted, the band that holds the whole curve.",
        alt=f"{title}: from {effect.value[0]:.3g} at {x[0]:.3g} to {effect.value[-1]:.3g} at {x[-1]:.3g}.",
        data=Lines(x_label=iv.treatment_names_[0], y_label=f"effect on {iv.outcome_name_}", series=series),
    )


def _rows(iv: IVBilevel, level: float) -> list[IntervalRow]:
    linear = iv.two_stage_least_squares_
    rows = []
    interval = iv.interval(level)
    for j, name in enumerate(iv.feature_names_):
        rows.append(
            IntervalRow(
                label=f"{name}: orthogonal score",
                value=iv.coef_[j],
                low=interval[j, 0],
                high=interval[j, 1],
                emphasis=True,
            )
        )
        if linear is not None:
            half = (interval[j, 1] - interval[j, 0]) / 2.0 / iv.stderr_[j] * linear.stderr[j]
            rows.append(
                IntervalRow(
                    label=f"{name}: two-stage least squares",
                    value=linear.coef[j],
                    low=linear.coef[j] - half,
                    high=linear.coef[j] + half,
                )
            )
    return rows


def strength_section(iv: IVBilevel, *, level: float, key: str = "") -> Section:
    """First stage, over-identification, and what holds however weak the instruments are."""
    words = []
    tables = []
    if iv.two_stage_least_squares_ is not None:
        tables.append(_first_stage_table(iv, key=key))
        if len(iv.feature_names_) == 1:
            found = iv.anderson_rubin_set(level)
            words.append(f"Anderson-Rubin {100 * level:g} % set, valid at any strength: {found.summary()}.")
    test = iv.over_identification_
    words.append(
        "No instrument is to spare, so none can be tested."
        if test is None
        else f"Hansen's J asks whether the instruments agree: {test.statistic:.2f} on {test.dof} degrees of "
        f"freedom, p = {test.p_value:.3f}."
    )
    words += [f"Warning: {warning}" for warning in iv.warnings_]
    return Section(title="Can it be trusted?", text="\n\n".join(words), tables=tuple(tables))


def _first_stage_table(iv: IVBilevel, *, key: str) -> Table:
    stage = iv.first_stage_
    several = len(stage.rows) > 1
    # A treatment that is its own instrument has no first-stage error, and F is infinite.
    rows = tuple(
        (row.name, *(value if math.isfinite(value) else None for value in _strengths(row, several=several)))
        for row in stage.rows
    )
    last = ("conditional F",) if several else ("effective F", "needed")
    return Table(
        id=f"{key}first-stage",
        title="First stage, given the controls",
        columns=(
            Column(name="feature"),
            *(
                Column(name=name, kind="number", digits=4 if name == "partial R2" else 2)
                for name in ("partial R2", "F", "robust F", *last)
            ),
        ),
        rows=rows,
        caption="Needed: the 5 % critical value for a bias of at most a tenth of the worst case."
        if not several
        else "Conditional F by Sanderson and Windmeijer; below 10 counts as weak.",
    )


def _strengths(row: FirstStageRow, *, several: bool) -> tuple[float, ...]:
    last = (row.f_conditional,) if several else (row.f_effective, row.f_critical)
    return (row.partial_r2, row.f, row.f_robust, *last)
