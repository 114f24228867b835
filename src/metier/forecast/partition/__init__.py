"""Divide the series: every clustering run of a search side by side."""
