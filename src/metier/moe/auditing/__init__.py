"""Auditing of routers: what their loads are, what built-in losses hide, what to do."""

from __future__ import annotations

from metier.core.extras import naming_extras

with naming_extras():
    import torch  # noqa: F401
