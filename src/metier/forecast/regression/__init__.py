"""The regression behind every forecast: rows, sums, base models and their forecasts."""
