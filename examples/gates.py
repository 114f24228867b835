"""What each gate says on a panel where specializing pays, and on one where it cannot.

The regimes are simulated, so the truth is known: "strong" has four, "homogeneous" has one.

python examples/gates.py
"""

from metier import data
from metier.forecast import ClusterForecaster

for design in ("strong", "homogeneous"):
    panel = data.simulate_regimes(design, rng=0)
    history = panel.to_panel().steps(0, panel.n_train + panel.n_val).to_frame(backend="polars")
    print(f"\n{design}: the true partition would save {100 * panel.oracle_gain(lags=8):.1f} % of the loss")
    for gate in ("crossfit", "mean", "paper", "none"):
        forecaster = ClusterForecaster(
            lags=8, n_clusters=4, gate=gate, val_size=panel.n_val / (panel.n_train + panel.n_val)
        ).fit(history)
        report = forecaster.gate_report_
        print(f"  {gate:8} uses {report.chosen:9} because {report.reason}")
