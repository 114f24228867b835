"""Multilinear mixtures of experts: all experts of a layer are one factorized tensor."""
