"""Where half of the students specialize: shares over the ladder, and the extrapolation in 1/d."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from metier.runs import Figure, Lines, Measured, Reference, Section, Series
from metier_studies.exponents.half_ratio import EXCESS, measured_half_ratios
from metier_studies.lib.paired_seeds import band

if TYPE_CHECKING:
    from metier_studies.exponents.study import ExponentsConfig


def half_section(config: ExponentsConfig, found: Mapping[str, Any], seed: int) -> Section:
    """Both figures."""
    factors, trials = config.onset_factors, found["onset"]
    at, limit = measured_half_ratios(trials, factors, seed=seed)
    return Section(
        title="Where half of the students specialize",
        text=f"A seed specializes if its index lies {EXCESS:g} above rotations of its own span. Unlike the "
        "first rung whose interval clears 0, the ratio at which half of the seeds do does not depend on "
        "their number.",
        figures=(_shares(config, trials, found["predicted"]), _extrapolation(at, limit, found["predicted"])),
    )


def _shares(config: ExponentsConfig, trials: Mapping[str, Any], predicted: Mapping[str, float]) -> Figure:
    factors = config.onset_factors
    series = tuple(
        Series(
            name=f"d = {d}",
            x=factors,
            y=tuple(float(np.mean([t["excess"] > EXCESS for t in rungs[f"{f:g}"]])) for f in factors),
            style="line+points",
        )
        for d, rungs in trials.items()
    )
    return Figure(
        id="half",
        title="Share of specialized students",
        caption=f"{config.onset_seeds} seeds at each point; 1 is n/d = {predicted['committee']:.3g}.",
        alt="Share of seeds that specialize over the sample ratio, one curve per dimension.",
        data=Lines(
            x_label="n/d over the predicted ratio",
            y_label="share of seeds",
            x_scale="log",
            series=series,
            references=_marks(predicted, "x"),
        ),
    )


def _extrapolation(at: Mapping[int, Measured], limit: Measured, predicted: Mapping[str, float]) -> Figure:
    points = [d for d in sorted(at) if at[d].high is not None]
    line: tuple[Series, ...] = ()
    if len(points) == len(at) and limit.high is not None:
        steepest = 1.0 / min(points)
        line = (
            Series(
                name=f"line to 1/d = 0: {limit.value:.2f} [{limit.low:.2f}, {limit.high:.2f}]",
                x=(0.0, steepest),
                y=(limit.value, limit.value + _slope(at) * steepest),
                style="dashed",
            ),
        )
    return Figure(
        id="half-limit",
        title="The ratio at which half specialize",
        caption="Bands: 95 % by resampling seeds, with the crossing anywhere between its two rungs.",
        alt="Ratio of half over 1/d with its straight extrapolation.",
        data=Lines(
            x_label="1/d",
            y_label="n/d over the predicted ratio",
            series=(
                band(
                    "half of the seeds",
                    [1.0 / d for d in points],
                    [at[d] for d in points],
                    style="line+points",
                ),
                *line,
            ),
            references=_marks(predicted, "y"),
        ),
    )


def _slope(at: Mapping[int, Measured]) -> float:
    if len(at) < 2:
        return 0.0
    return float(np.polyfit([1.0 / d for d in at], [found.value for found in at.values()], 1)[0])


def _marks(predicted: Mapping[str, float], axis: str) -> tuple[Reference, ...]:
    jump = predicted["committee_jump"] / predicted["committee"]
    return (
        Reference(axis=axis, value=1.0, label="predicted"),
        Reference(axis=axis, value=jump, label="end of the lower branch"),
    )
