"""Measures of populations: from probabilities, counts, logs, or log-probabilities; NumPy only."""
