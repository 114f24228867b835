"""Attachment of a balancer to a model: router families, hooks, masks, and the trainer callback."""

from metier.core.extras import require

require("torch")
