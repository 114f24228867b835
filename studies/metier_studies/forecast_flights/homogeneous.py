"""Panels without groups: what each gate does where there is nothing to find."""

from __future__ import annotations

from typing import Any

import numpy as np

from metier.core import derive_seed
from metier.data import simulate_regimes
from metier.forecast import ClusterForecaster
from metier.forecast.gate.candidates import routed
from metier.forecast.gate.judge import Judge, paper_fallback
from metier.forecast.panels.panel import Panel, panel_from_frame
from metier.forecast.pipeline import Fitted
from metier.forecast.report import fit_quietly, frozen_design
from metier.runs import BarGroup, Bars, Column, Figure, Table
from metier_studies.forecast_flights.claims import adopted_share
from metier_studies.forecast_flights.origins import judge

HOMOGENEOUS_GATES = ("crossfit", "mean", "paper")
LAGS, N_CLUSTERS = 8, 4


def homogeneous_panel(replicate: int, *, seed: int) -> dict[str, Any]:
    """Fit one homogeneous panel once; say what each gate adopts and what that does to the loss on TEST.

    The gates read the same fit: "crossfit" and "mean" its held-out blocks, "paper" its VAL losses.
    """
    simulated = simulate_regimes("homogeneous", rng=derive_seed(seed, "homogeneous", replicate))
    panel = panel_from_frame(simulated.to_panel().to_frame())
    cutoff = simulated.n_train + simulated.n_val
    forecaster = ClusterForecaster(
        lags=LAGS, n_clusters=N_CLUSTERS, val_size=simulated.n_val / cutoff, rng=derive_seed(seed, replicate)
    )
    fit_quietly(forecaster, panel.until(cutoff))
    return {gate: _gate_outcome(forecaster, panel, gate, cutoff) for gate in HOMOGENEOUS_GATES}


def adopted_clusters(fitted: Fitted, gate: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(K,) clusters that a gate would keep specialized after this fit (which held blocks out)."""
    k = fitted.n_clusters
    if gate == "paper":
        means = np.array(
            [fitted.loss_matrix[fitted.active & (fitted.labels == j)].mean(axis=0) for j in range(k)]
        )
        return paper_fallback(means[np.arange(k), np.arange(k)], means[:, k])
    judge_ = Judge(gate=gate, scope="whole", se="ewc", alpha=0.05)
    report = judge_.decide(fitted.held, fitted.plan, n_clusters=k)
    return np.full(k, report.chosen == "clustered")


def _gate_outcome(forecaster: ClusterForecaster, panel: Panel, gate: str, cutoff: int) -> dict[str, Any]:
    fitted = forecaster.fitted_
    keep = adopted_clusters(fitted, gate)
    fallback = ~fitted.active | ~keep[fitted.labels]
    held = judge(
        forecaster,
        frozen_design(fitted, panel),
        {"global": fitted.final["global"], "routed": routed(fitted.final, "clustered", fallback)},
        fitted.active,
        cutoff,
        panel.n_steps,
    )
    base, loss = float(held.of("global").mean()), float(held.of("routed").mean())
    return {"clusters": int(keep.sum()), "gain": 1.0 - loss / base}


def adoption_table(counts: dict[str, tuple[int, int, float]]) -> Table:
    """Per gate: panels in which it specialized, with the exact interval, and the mean gain on TEST."""
    return Table(
        id="homogeneous-panels",
        title="Panels without any groups",
        columns=(
            Column(name="gate", kind="code"),
            Column(name="panels", kind="integer"),
            Column(name="specialized in", kind="estimate"),
            Column(name="mean gain on TEST", kind="percent", digits=2),
        ),
        rows=tuple(
            (gate, total, adopted_share(adopted, total), gain)
            for gate, (adopted, total, gain) in counts.items()
        ),
        caption="100 series of one and the same process, 280 steps to fit and 300 to test. Every "
        "adoption is a "
        "mistake. The interval is Clopper-Pearson's, each end a one-sided 95 % limit.",
    )


def adoption_figure(counts: dict[str, tuple[int, int, float]]) -> Figure:
    """The same as bars."""
    shares = {gate: adopted_share(adopted, total) for gate, (adopted, total, _) in counts.items()}
    said = ", ".join(f"{gate} {100 * share.value:.0f} %" for gate, share in shares.items())
    return Figure(
        id="adoption-without-groups",
        title="How often each gate specializes where there is nothing to find",
        caption="Share of homogeneous panels in which the gate adopts at least one cluster, with "
        "exact binomial "
        "intervals. `paper` judges a cluster on the validation data that formed it.",
        alt=f"Bars with intervals: {said}.",
        data=Bars(
            categories=tuple(shares),
            groups=(
                BarGroup(
                    name="adopted",
                    values=[100 * s.value for s in shares.values()],
                    low=[100 * (s.low or 0.0) for s in shares.values()],
                    high=[100 * (s.high or 0.0) for s in shares.values()],
                ),
            ),
            value_label="panels in which the gate specialized (%)",
            category_label="gate",
        ),
    )


__all__ = [
    "HOMOGENEOUS_GATES",
    "adopted_clusters",
    "adoption_figure",
    "adoption_table",
    "homogeneous_panel",
]
