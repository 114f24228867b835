"""Inputs that are known in advance: any further numeric column, and features of the calendar.

python examples/exogenous_and_calendar.py
"""

import numpy as np
import pandas as pd

from metier.forecast import ClusterForecaster

rng = np.random.default_rng(0)
days = pd.date_range("2024-01-01", periods=200, freq="D")
frames = []
for shop in range(30):
    promotion = rng.random(len(days)) < 0.15
    weekend = np.where(days.day_of_week >= 5, 8.0, 0.0)
    sales = 20 + weekend + 10 * promotion + rng.normal(0, 2, len(days))
    columns = {"unique_id": f"shop{shop:02d}", "ds": days, "y": sales, "promotion": promotion}
    frames.append(pd.DataFrame(columns))
table = pd.concat(frames)

# The last week is kept aside; its promotions are planned, its sales are not known.
past, coming = (table[table.ds < days[-7]], table[table.ds >= days[-7]])
actual = coming.y.to_numpy()

settings = {"lags": 7, "horizon": 7, "calendar": ["dayofweek"]}
informed = ClusterForecaster(**settings).fit(past)
forecasts = informed.predict(future=coming[["unique_id", "ds", "promotion"]])
print(f"with promotions     MAE {np.abs(forecasts.ClusterForecaster - actual).mean():.2f}")

blind = ClusterForecaster(**settings).fit(past.drop(columns="promotion"))
forecasts = blind.predict()
print(f"without promotions  MAE {np.abs(forecasts.ClusterForecaster - actual).mean():.2f}")
