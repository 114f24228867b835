"""Decide: held-out blocks, the candidates on them, the judge, and intervals from what was held out."""
