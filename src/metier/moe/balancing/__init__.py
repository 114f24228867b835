"""Balancing of sparse routers: potentials, the balancer, presets, rivals."""

from metier.core.extras import require

require("torch")
