"""Validation-driven clustering of series: specialists where held-out forecasts say that they pay."""

from metier.forecast.forecaster import ClusterForecaster as ClusterForecaster

__all__ = ["ClusterForecaster"]
