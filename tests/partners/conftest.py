"""Training on CPU wants JAX to dispatch in turn, and that before the first computation of the process."""

from __future__ import annotations

from metier.partners import dispatch_in_turn

dispatch_in_turn()
