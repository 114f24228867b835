"""Any scikit-learn regressor as the base model: it is cloned, seeded and fitted once per cluster.

python examples/scikit_learn_model.py
"""

from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from metier import data
from metier.forecast import ClusterForecaster

table = data.load("flights_delay").head(30).to_frame(backend="pandas")
curved = make_pipeline(SplineTransformer(n_knots=4), Ridge(alpha=10.0))

for model in ("ridge", curved):
    forecaster = ClusterForecaster(model=model, n_clusters=3, lags=6, season_length=21, horizon=3).fit(table)
    print(f"\n{'straight lines' if model == 'ridge' else 'splines in every lag'}")
    print(f"  {'candidate':10} {'models':>6} {'loss':>7} {'loss saved':>11}")
    for candidate in forecaster.candidates_.values():
        numbers = f"{candidate.n_specialists:6} {candidate.loss:7.4f} {candidate.relative_gain:11.1%}"
        print(f"  {candidate.name:10} {numbers}{'  <- in use' if candidate.chosen else ''}")
    print(f"  {forecaster.decision_.reason}")
