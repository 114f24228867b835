"""Intermittent counts: gradient-boosted trees with a Poisson loss never forecast below zero.

Ridge finds the clusters, the trees are fitted once for all series and once per cluster. Local models, where
the gate adopts them, are ridge whatever the base model: compare the rows before you trust the choice.

python examples/counts_with_lightgbm.py
"""

from metier import data
from metier.forecast import ClusterForecaster
from metier.forecast.metrics import evaluate

panel = data.simulate_counts(rng=0, n_series=12, n_train=240, n_val=120, n_test=48).to_panel()
table = panel.to_frame(backend="polars")
print(f"{panel.n_series} series of {panel.n_steps} hours, {100 * (table['y'] == 0).mean():.0f} % zeros")

for model in ("ridge", "lightgbm-poisson"):
    forecaster = ClusterForecaster(
        model=model, lags=[1, 2, 3, 24], n_clusters=3, calendar=["hour"], horizon=24
    )
    windows = forecaster.cross_validation(table, h=24, n_windows=1)
    scores = evaluate(windows, table, models=["ClusterForecaster", "global", "clustered"], season_length=24)
    print(model)
    for row in scores.rows(named=True):
        lowest = windows[row["model"]].min()
        print(f"  {row['model']:17} MASE {row['mase']:.3f}  lowest forecast {lowest:7.3f}")
