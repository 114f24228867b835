"""Multilinear mixtures of experts: all experts of a layer are one factorized tensor."""

from __future__ import annotations

from metier.core.extras import naming_extras

with naming_extras():
    import torch  # noqa: F401
