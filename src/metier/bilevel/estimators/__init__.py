"""Estimators for a task: instrumental variables, fitted Bellman equations, the weights of data sources."""
