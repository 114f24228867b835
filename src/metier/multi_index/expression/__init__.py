"""Activations as text: a parser with a list of what is allowed, evaluation, symmetry, smooth pieces."""
