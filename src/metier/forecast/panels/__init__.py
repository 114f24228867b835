"""Frames in, frames out: one regular grid of series, its calendar, and what may be wrong with it."""
