"""Balancing of sparse routers: potentials, the balancer, presets, rivals."""

from __future__ import annotations

from metier.core.extras import naming_extras

with naming_extras():
    import torch  # noqa: F401
