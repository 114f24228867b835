"""One trial of the gate: a simulated panel, every gate's decision, and what it does to TEST."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from metier.core import seed_of
from metier.data import simulate_regimes
from metier.data.regime_panel import RegimePanel
from metier.forecast import ClusterForecaster
from metier.forecast.gate.candidates import Data, RoutedModel
from metier.forecast.gate.heldout import held_out_losses
from metier.forecast.gate.judge import GateReport, Judge
from metier.forecast.partition.search import Search
from metier.forecast.pipeline import Fitted, Pipeline
from metier.forecast.regression.gram import GramTable
from metier.forecast.regression.models import Division, LinearModel, PanelModel, fit_linear
from metier.forecast.settings import pipeline_of

Floats = NDArray[np.float64]

ALPHA = 0.05
GATES = ("crossfit", "crossfit_hac", "crossfit_cluster", "mean", "paper")
"""The default gate, its rivals on the same held-out losses, and the fall-back on the VAL that assigned."""

_HELD_OUT = {
    "crossfit_hac": Judge(gate="crossfit", scope="whole", se="hac", alpha=ALPHA),
    "crossfit_cluster": Judge(gate="crossfit", scope="cluster", se="ewc", alpha=ALPHA),
    "mean": Judge(gate="mean", scope="whole", se="ewc", alpha=ALPHA),
}


def run_trial(
    design: str,
    *,
    seed: int,
    loss: str = "squared",
    lags: int = 8,
    n_clusters: int = 4,
    assign_on: str = "val",
    separation: float | None = None,
    anomalies: bool = False,
    n_test: int = 300,
) -> dict[str, Any]:
    """Simulate a panel, let every gate decide on TRAIN | VAL, and score what each would use on TEST.

    Gains are shares of the global model's one-step TEST loss, all models refitted on TRAIN and VAL.

    Args:
        design: name of a design of `metier.data.simulate_regimes`.
        seed: of the panel and of the forecaster.
        loss, lags, n_clusters, assign_on: as in `ClusterForecaster`.
        separation: replaces the design's own, for power curves.
        anomalies: add rare large errors to the raw values.
        n_test: TEST steps.

    Returns:
        oracle: known gain of the true partition in squared loss, with unlimited data.
        ari: adjusted Rand index of the partition, whether adopted or not.
        chosen: gate -> candidate in use; "global" means that nothing was adopted.
        gain: gate -> TEST gain of what it uses.
        candidate_gain: "local", "clustered", "feature", "random", and "true" for the true partition.
    """
    panel = simulate_regimes(design, rng=seed, separation=separation, anomalies=anomalies, n_test=n_test)
    pipelines = {
        gate: _pipeline(
            panel,
            ClusterForecaster(
                loss=loss,
                lags=lags,
                n_clusters=n_clusters,
                assign_on=assign_on,
                gate=gate,
                alpha=ALPHA,
                rng=seed,
            ),
        )
        for gate in ("crossfit", "paper")
    }
    past = panel_data(panel.values[:, : panel.n_train + panel.n_val], lags)
    fitted = {gate: pipeline.run(past) for gate, pipeline in pipelines.items()}
    main = fitted["crossfit"]
    reports = {
        name: judge.decide(main.held, main.plan, n_clusters=main.n_clusters)
        for name, judge in _HELD_OUT.items()
    }
    models: dict[str, PanelModel] = {
        "crossfit": main.model(),
        "paper": fitted["paper"].model(),
        **{name: served(main, report) for name, report in reports.items()},
        **{f"candidate {name}": model for name, model in main.final.items()},
        "candidate true": true_partition(pipelines["crossfit"].search, main, panel.labels),
    }
    gains = score_on_test(pipelines["crossfit"].search, main, panel_data(panel.values, lags), models)
    reports = {"crossfit": main.report, "paper": fitted["paper"].report, **reports}
    return {
        "oracle": panel.oracle_gain(lags=lags),
        "ari": float(adjusted_rand_score(panel.labels, main.labels)),
        "chosen": {gate: reports[gate].chosen for gate in GATES},
        "gain": {gate: gains[gate] for gate in GATES},
        "candidate_gain": {
            name.removeprefix("candidate "): gain
            for name, gain in gains.items()
            if name.startswith("candidate ") and name != "candidate global"
        },
    }


def panel_data(values: Floats, lags: int) -> Data:
    """A fully observed panel with lags 1..lags and no other feature."""
    n_series, n_steps = values.shape
    return Data(
        values=values,
        first=np.zeros(n_series, dtype=np.intp),
        stop=np.full(n_series, n_steps, dtype=np.intp),
        common=np.zeros((n_steps, 0)),
        own=None,
        lags=tuple(range(1, lags + 1)),
        season_length=None,
    )


def served(fitted: Fitted, report: GateReport) -> PanelModel:
    """The refitted model that another gate's report would put to use."""
    base = fitted.final["global"]
    if report.chosen == "global":
        return base
    fallback = ~fitted.active
    if report.chosen == "clustered":
        fallback = fallback | ~report.keep[fitted.labels]
    return RoutedModel(primary=fitted.final[report.chosen], base=base, fallback=fallback)


def true_partition(search: Search, fitted: Fitted, labels: NDArray[np.int64]) -> LinearModel:
    """The same learner on the true regimes, fitted on TRAIN and VAL without shrinkage."""
    design = fitted.final_design
    table = GramTable.build(design, [((design.max_lag, design.n_steps),)], active=fitted.active)
    used, compact = np.unique(labels, return_inverse=True)
    division = Division(labels=compact, n_clusters=len(used), shrinkage=0.0)
    return fit_linear(search, [table], [division])[2][0]


def score_on_test(
    search: Search, fitted: Fitted, whole: Data, models: Mapping[str, PanelModel]
) -> dict[str, float]:
    """Share of the global model's one-step TEST loss that each model saves.

    Args:
        whole: the panel with TEST after TRAIN | VAL.
    """
    design = whole.design(fitted.final_scaling)
    losses = held_out_losses(
        design,
        [(fitted.final_design.n_steps, design.n_steps)],
        [{"global": fitted.final["global"], **models}],
        loss=search.loss,
        steps=1,
        active=np.ones(design.n_series, dtype=bool),
        groups=np.full(design.n_series, -1),
        n_groups=0,
    )
    base = losses.of("global").mean()
    return {name: float(1.0 - losses.of(name).mean() / base) for name in models}


def _pipeline(panel: RegimePanel, forecaster: ClusterForecaster) -> Pipeline:
    val_size = panel.n_val / (panel.n_train + panel.n_val)
    pipeline: Pipeline = pipeline_of(
        forecaster,
        n_series=panel.n_series,
        seed=seed_of(forecaster.rng),
        report=lambda stage, done, total: None,
    )
    return replace(pipeline, val_size=val_size)
