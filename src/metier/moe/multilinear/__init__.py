"""Multilinear mixtures of experts: all experts of a layer are one factorized tensor."""

from metier.core.extras import require

require("torch")
