"""Attachment of a balancer to a model: router families, hooks, masks, and the trainer callback."""
