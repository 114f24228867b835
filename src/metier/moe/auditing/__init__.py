"""Auditing of routers: what their loads are, what built-in losses hide, what to do."""

from metier.core.extras import require

require("torch")
