"""Rigorous integration of sigma^k He_j phi in ball arithmetic, with a proved bound of the tails."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

from metier.multi_index.expression.balls import ball_function, flint, precision, rational
from metier.multi_index.expression.nodes import Node
from metier.multi_index.expression.parse import hermite_coefficients
from metier.multi_index.expression.pieces import Cut, branches_known, pieces_of
from metier.multi_index.expression.symmetry import parts_of

from .growth import REACH, Growth, growth

REACHES = (14, 17, 20, 26, 34, 44)
TAIL_BITS = 100
TOLERANCE_BITS = 0.65
"""Integrals aim at this share of the working bits."""

EVALUATIONS = 30_000
"""Smooth pieces need 3 000 at most; a hidden singularity must end in a wide ball, not in minutes."""


class NoBoundError(Exception):
    """No rule bounds the activation far out, or the integral did not become finite; nothing is certified."""


def integral_ball(node: Node, power: int, degree: int, bits: int) -> Any:
    """Return a real ball that holds E[sigma(z)^power He_degree(z)] for certain.

    Raises:
        NoBoundError: the tails cannot be bounded, or the enclosure is not finite.
    """
    with precision(bits):
        reach, tail = _tail(node, power, degree, bits)
        total = flint().arb(0)
        half_only = _even_integrand(node, power, degree)
        for piece in pieces_of(node):
            low, high = _clip(piece.low, -reach, bits), _clip(piece.high, reach, bits)
            if half_only:
                low = max(low, (Fraction(0), Fraction(0)))
            if high[0] <= low[0]:
                continue
            total += _smooth(piece.node, power, degree, low[0], high[0], bits)
            total += _slack(node, power, degree, (low, high), bits)
        if half_only:
            total *= 2
        total *= (2 * flint().arb.pi()).rsqrt()
        total += flint().arb(0, tail)
    if not total.is_finite():
        raise NoBoundError("the enclosure of an integral is not finite")
    return total


def _even_integrand(node: Node, power: int, degree: int) -> bool:
    parity = parts_of(node).parity
    if parity is None:
        return False
    return (degree + (power if parity == "odd" else 0)) % 2 == 0


def _clip(cut: Cut | None, limit: int, bits: int) -> tuple[Fraction, Fraction]:
    """A rational end of the integral and how far the true one may be from it."""
    if cut is None or abs(cut.value) >= abs(int(limit)):
        outside = Fraction(limit) if cut is None or (cut.value > 0) == (limit > 0) else -Fraction(limit)
        return outside, Fraction(0)
    return cut.midpoint(bits)


def _smooth(node: Node, power: int, degree: int, low: Fraction, high: Fraction, bits: int) -> Any:
    f = flint()
    sigma = ball_function(node, bits)
    hermite = [f.acb(a) for a in hermite_coefficients(degree)]
    lead, rest = hermite[-1], hermite[-2::-1]
    half = f.acb(rational(Fraction(1, 2)))

    def integrand(x: Any, analytic: bool) -> Any:
        polynomial = lead
        for a in rest:
            polynomial = polynomial * x + a
        value = sigma(x, analytic)
        return (value if power == 1 else value**power) * polynomial * (-(x * x) * half).exp()

    tolerance = f.arb(2) ** -round(TOLERANCE_BITS * bits)
    ends = (f.acb(rational(low)), f.acb(rational(high)))
    return f.acb.integral(integrand, *ends, rel_tol=tolerance, abs_tol=tolerance, eval_limit=EVALUATIONS).real


def _slack(
    node: Node, power: int, degree: int, ends: tuple[tuple[Fraction, Fraction], ...], bits: int
) -> Any:
    """What the ends' uncertainty can add: width times the largest value around them."""
    f = flint()
    total = f.arb(0)
    for at, distance in ends:
        if not distance:
            continue
        around = _interval(at, distance)
        value = abs(ball_function(node, bits)(f.acb(around), False).real) ** power
        bound = value * sum(abs(a) * abs(around) ** i for i, a in enumerate(hermite_coefficients(degree)))
        total += f.arb(0, (bound * f.arb(rational(2 * distance))).upper())
    return total


def _interval(at: Fraction, distance: Fraction) -> Any:
    arb = flint().arb
    return arb(rational(at - distance)).union(arb(rational(at + distance)))


@lru_cache(maxsize=4096)
def _tail(node: Node, power: int, degree: int, bits: int) -> tuple[int, Any]:
    """The reach, and a bound of the integral beyond it on both sides.

    There the logarithm of A^k C (1 + z)^{km + j} exp(k b z + k c z^2) phi(z) is concave, so that its tangent
    at the reach bounds it and integrates to value / slope.
    """
    bound = growth(node)
    if bound is None:
        raise NoBoundError("no rule bounds the activation far out")
    last, tail = REACHES[0], None
    for reach in REACHES if branches_known(node) else REACHES[:1]:
        beyond = _beyond(bound, power, degree, reach)
        if beyond is None:
            continue
        last, tail = reach, beyond
        if tail < flint().arb(2) ** -max(TAIL_BITS, round(TOLERANCE_BITS * bits)):
            break
    if tail is None or not math.isfinite(float(tail)):
        raise NoBoundError("the bound of the activation far out is not integrable")
    return last, tail


def _beyond(bound: Growth, power: int, degree: int, reach: int) -> Any:
    """The bound of the integral over |z| > reach, or None where its tangent does not fall."""
    f = flint()
    exponent = power * bound.power + degree
    linear, square = power * bound.linear, power * bound.square
    slope = reach - linear - 2 * square * reach - Fraction(exponent, 1 + reach)
    if square >= Fraction(1, 2) or slope <= 0:
        return None
    log_top = f.arb(1 + reach).log() * exponent + f.arb(
        rational(linear * reach + (square - Fraction(1, 2)) * reach**2)
    )
    factor = f.arb(rational(bound.factor)) ** power * sum(abs(a) for a in hermite_coefficients(degree))
    return (2 * factor * log_top.exp() / f.arb(rational(slope)) / (2 * f.arb.pi()).sqrt()).upper()


def unseen_branches_ball(node: Node, power: int, degree: int, bits: int) -> Any:
    """Return a ball around 0 for what branch points beyond |z| = 14 can change in c_{power, degree}.

    There the activation and the continuation of its outermost pieces are both bounded by their growth.

    Raises:
        NoBoundError: one of them is not.
    """
    pieces = pieces_of(node)
    with precision(bits):
        total = flint().arb(0)
        for part in (node, pieces[0].node, pieces[-1].node):
            bound = growth(part)
            beyond = None if bound is None else _beyond(bound, power, degree, int(REACH))
            if beyond is None:
                raise NoBoundError("no rule bounds the activation far out")
            total += beyond
        return flint().arb(0, total.upper())
