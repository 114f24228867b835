"""Balancing of sparse routers: potentials, the balancer, presets, rivals, metrics."""
