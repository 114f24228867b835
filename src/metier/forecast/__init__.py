"""Validation-driven clustering of series: divide a panel among specialists where held-out forecasts say so."""

from metier.forecast.forecaster import ClusterForecaster as ClusterForecaster

__all__ = ["ClusterForecaster"]
