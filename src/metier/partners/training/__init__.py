"""Training of populations: networks, rollouts, PPO, and the losses that make partners differ."""

from __future__ import annotations

from metier.core.extras import naming_extras

with naming_extras():
    import jax  # noqa: F401
