"""Attachment of a balancer to a model: router families, hooks, masks, and the trainer callback."""

from __future__ import annotations

from metier.core.extras import naming_extras

with naming_extras():
    import torch  # noqa: F401
