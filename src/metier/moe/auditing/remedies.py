"""One line of advice per router, from its loads."""

from __future__ import annotations

from .loads import Loads

BALANCED = 0.5
SEVERE = 1.0
GATES_BALANCED = 0.3


def remedy(loads: Loads, *, called: bool, takes_bias: bool) -> str:
    """Return what to do about a router, in one line.

    The rules: MaxVio up to 0.5 without dead experts needs nothing. Where the mean gate values are even
    (their MaxVio is at most 0.3) and the choices are not, only something that acts on choices helps: a
    bias, or hard tracking. Where both are uneven, price the gate values.
    """
    if not called:
        return "never called: a fused kernel bypasses it, so it cannot be balanced; load without kernels"
    ill = _illness(loads)
    if ill is None:
        return "balanced: leave it alone"
    if loads.gate_max_vio <= GATES_BALANCED:
        cure = 'moe.balancer("phi_bias")' if takes_bias else 'moe.Balancer(track="hard")'
        return f"{ill}, though its mean gate values are even: moe.attach(model, {cure})"
    return f'{ill}: moe.attach(model, moe.balancer("phi"))'


def _illness(loads: Loads) -> str | None:
    dead = len(loads.dead)
    if dead:
        return f"{dead} of {loads.load.size} experts are dead"
    if loads.max_vio > SEVERE:
        return f"one expert gets {1 + loads.max_vio:.1f} times its share"
    return f"uneven (MaxVio {loads.max_vio:.2f})" if loads.max_vio > BALANCED else None
