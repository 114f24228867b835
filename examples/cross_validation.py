"""Forecast from several past days as if nothing later existed, and compare every candidate there.

python examples/cross_validation.py
"""

from metier import data
from metier.forecast import ClusterForecaster
from metier.forecast.metrics import evaluate

table = data.load("flights_hourly").top(20).steps(-8 * 7 * 24).to_frame(backend="polars")
forecaster = ClusterForecaster(lags=24, season_length=24, horizon=24, calendar=["dayofweek"])
windows = forecaster.cross_validation(table, n_windows=3, level=[80, 95])

print(windows["cutoff"].unique().sort().to_list())
print(evaluate(windows, table, season_length=24).select("model", "mae", "rmse", "mase", "rmsse"))
print(evaluate(windows, models=["ClusterForecaster"], level=[80, 95]))
