"""Intermittent counts: ridge finds the clusters, gradient-boosted trees with a Poisson loss forecast them.

python examples/counts_with_lightgbm.py
"""

from metier import data
from metier.forecast import ClusterForecaster
from metier.forecast.metrics import evaluate

panel = data.simulate_counts(rng=0, n_series=24, n_train=240, n_val=120, n_test=48).to_panel()
table = panel.to_frame(backend="polars")
share_of_zeros = (table["y"] == 0).mean()
print(f"{panel.n_series} series of {panel.n_steps} hours, {100 * share_of_zeros:.0f} % zeros")

for model in ("ridge", "lightgbm-poisson"):
    forecaster = ClusterForecaster(
        model=model, lags=[1, 2, 3, 24], n_clusters=3, calendar=["hour"], horizon=24
    )
    windows = forecaster.cross_validation(table, h=24, n_windows=1)
    row = evaluate(windows, table, models=["ClusterForecaster"], season_length=24).row(0, named=True)
    lowest = windows["ClusterForecaster"].min()
    print(f"{model:17} MAE {row['mae']:.3f}  MASE {row['mase']:.3f}  lowest forecast {lowest:.3f}")
