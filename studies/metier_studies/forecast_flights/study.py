"""Study `forecast`: do specialists found by validation loss forecast a real panel better than one model?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from metier import data
from metier.core import derive_seed
from metier.forecast import ClusterForecaster
from metier.forecast.panels.panel import panel_from_frame
from metier.runs import Progress, Result, Run, Study
from metier_studies.forecast_flights.homogeneous import HOMOGENEOUS_GATES, homogeneous_panel
from metier_studies.forecast_flights.origins import judge_origin
from metier_studies.forecast_flights.result import build_result

CLAIMS = (
    "specialists-gain",
    "division-matters",
    "gate-regret",
    "coverage-80",
    "coverage-95",
    "clusters-informative",
    "crossfit-refrains",
    "fallback-adopts",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastConfig:
    """What the study runs.

    Args:
        panel: a bundled panel.
        n_series: the largest so many series, or None for all.
        lags, season_length, horizon, loss, n_clusters, gate: as in `ClusterForecaster`.
        test_size: newest share of the panel that is TEST.
        val_size: share of the whole panel that is VAL at the first origin.
        origins: refits, evenly over TEST; between them the models are frozen.
        homogeneous: simulated panels without groups.
        permutations: of the information's null.
    """

    panel: str = "flights_hourly"
    n_series: int | None = None
    lags: int = 24
    season_length: int | None = 168
    horizon: int = 1
    loss: str = "squared"
    n_clusters: int | str = "auto"
    gate: str = "crossfit"
    test_size: float = 0.2
    val_size: float = 0.2
    origins: int = 4
    homogeneous: int = 60
    permutations: int = 999


def run(config: ForecastConfig, run: Run, progress: Progress) -> Result:
    """Fit at every origin, judge on TEST, then ask the gates about panels without groups."""
    source = data.load(config.panel)
    panel = panel_from_frame((source if config.n_series is None else source.top(config.n_series)).to_frame())
    progress.stage(
        f"{panel.n_series} series x {panel.n_steps} steps; the newest {100 * config.test_size:.0f} % "
        f"are TEST, no fit sees them; {config.origins} refits on the way"
    )
    origins = [
        run.cell(f"origin-{w}", partial(judge_origin, _forecaster(config, run.seed), panel, a, b))
        for w, (a, b) in enumerate(progress.track(spans(config, panel.n_steps), "origins"))
    ]
    progress.stage("does the gate refrain where there is nothing to find? panels of one and the same process")
    replicates = [
        run.cell(f"homogeneous-{r}", partial(homogeneous_panel, r, seed=derive_seed(run.seed, "panels")))
        for r in progress.track(range(config.homogeneous), "homogeneous panels")
    ]
    return build_result(config, run, STUDY, panel, origins, adoption_counts(replicates))


def _forecaster(config: ForecastConfig, seed: int) -> ClusterForecaster:
    return ClusterForecaster(
        lags=config.lags,
        season_length=config.season_length,
        horizon=config.horizon,
        loss=config.loss,
        n_clusters=config.n_clusters,
        gate=config.gate,
        val_size=config.val_size / (1.0 - config.test_size),
        rng=derive_seed(seed, "forecast"),
    )


def spans(config: ForecastConfig, n_steps: int) -> list[tuple[int, int]]:
    """TEST in as many pieces as there are origins, as (first step, one past the last).

    Example:
        >>> spans(ForecastConfig(origins=2), 100)
        [(80, 90), (90, 100)]
    """
    start = n_steps - round(config.test_size * n_steps)
    cuts = np.linspace(start, n_steps, config.origins + 1).round().astype(int).tolist()
    return list(pairwise(cuts))


def adoption_counts(replicates: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int, float]]:
    """Per gate: panels with an adopted cluster, panels, mean gain on TEST."""
    return {
        gate: (
            sum(r[gate]["clusters"] > 0 for r in replicates),
            len(replicates),
            float(np.mean([r[gate]["gain"] for r in replicates])),
        )
        for gate in HOMOGENEOUS_GATES
        if replicates
    }


STUDY = Study(
    name="forecast",
    family="forecast",
    title="Forecasting flights: one model or specialists?",
    question="Do specialists found by validation loss forecast 229 airports better than one global model, "
    "does the gate know, and does it refrain where there is nothing to find?",
    sizes={
        "tour": ForecastConfig(),
        "standard": ForecastConfig(test_size=0.4, origins=12, homogeneous=400, permutations=9999),
        "full": ForecastConfig(test_size=0.4, origins=48, homogeneous=4000, permutations=9999),
    },
    run=run,
    claims=CLAIMS,
    paired_on=("panel", "n_series", "test_size", "horizon", "loss"),
)
