"""Forecast your own table: one row per series and time, any column names, polars or pandas.

python examples/own_frame.py
"""

import polars as pl

from metier import data
from metier.forecast import ClusterForecaster

# Your table would come from pl.read_csv or pl.read_parquet; here it is twelve weeks of flights.
departures = (
    data.load("flights_hourly")
    .top(40)
    .steps(-12 * 7 * 24)
    .to_frame(backend="polars")
    .rename({"unique_id": "airport", "ds": "hour", "y": "departures"})
)

forecaster = ClusterForecaster(
    lags=24,
    season_length=24,
    calendar=["dayofweek"],
    horizon=24,
    id_col="airport",
    time_col="hour",
    target_col="departures",
).fit(departures)

print(forecaster.decision_.reason)
forecasts = forecaster.predict(level=[80])
print(forecasts.filter(pl.col("airport") == "ORD").head(3))
