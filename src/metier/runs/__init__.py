"""Run folders and records."""
