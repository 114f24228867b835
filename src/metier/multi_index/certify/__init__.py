"""Certified coefficients: exact arithmetic, proofs of zero, ball arithmetic with proved tails."""
