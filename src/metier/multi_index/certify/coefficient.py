"""A coefficient c_{k,j} = E[sigma(z)^k He_j(z)] with what is known of it for certain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CERTIFIED_NONZERO = "certified nonzero"
CERTIFIED_ZERO = "certified zero"
UNDECIDED = "undecided"
NUMERICAL = "numerical"

STATES = (CERTIFIED_NONZERO, CERTIFIED_ZERO, UNDECIDED, NUMERICAL)


@dataclass(frozen=True, slots=True)
class Coefficient:
    """c_{power, degree} = E[sigma(z)^power He_degree(z)], z ~ N(0, 1), and its state.

    The true value lies within `rad` of `mid` for certain, except where the state is "numerical": there
    `rad` is an estimate.

    Args:
        power, degree: k and j.
        mid, rad: the ball, as floats (the radius covers the rounding of the middle).
        state: "certified nonzero", "certified zero", "undecided" or "numerical".
        reason: how this was found.
        bits: working precision of the ball; 0 for exact arithmetic.

    Example:
        >>> from metier.multi_index import exponents
        >>> c = exponents("He4").coefficient(2, 2)
        >>> c.mid, c.rad, c.state, c.reason
        (192.0, 0.0, 'certified nonzero', 'rational arithmetic')
    """

    power: int
    degree: int
    mid: float
    rad: float
    state: str
    reason: str = ""
    bits: int = 0

    @property
    def zero(self) -> bool | None:
        """True or False where it is known (for a numerical one: where it seems so), None if undecided."""
        if self.state == NUMERICAL:
            return abs(self.mid) <= self.rad
        return {CERTIFIED_ZERO: True, CERTIFIED_NONZERO: False}.get(self.state)

    def to_dict(self) -> dict[str, Any]:
        """Return the coefficient as plain values."""
        return {
            "power": self.power,
            "degree": self.degree,
            "mid": self.mid,
            "rad": self.rad,
            "state": self.state,
            "reason": self.reason,
            "bits": self.bits,
        }


def from_ball(power: int, degree: int, ball: Any, *, reason: str, bits: int) -> Coefficient:
    """Return the coefficient whose real ball was computed: nonzero if the ball excludes 0, else undecided."""
    mid = float(ball.mid())
    # float(mid) rounds; one ulp on the radius covers it.
    rad = float(ball.rad().upper()) * (1.0 + 1e-15) + abs(mid) * 2.3e-16
    state = UNDECIDED if ball.contains(0) else CERTIFIED_NONZERO
    return Coefficient(power, degree, mid, rad, state, reason, bits)


def exact_zero(power: int, degree: int, reason: str) -> Coefficient:
    """Return a coefficient that is proved to be 0."""
    return Coefficient(power, degree, 0.0, 0.0, CERTIFIED_ZERO, reason)
