"""Rigorous integration of sigma^k He_j phi in ball arithmetic, with a proved bound of the tails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from metier.multi_index.expression.nodes import FUNCTIONS, Add, Call, Constant, Mul, Node, Num, Pow, Var
from metier.multi_index.expression.pieces import (
    Cut,
    ball_function,
    branches_known,
    flint,
    pieces_of,
    precision,
    rational,
)
from metier.multi_index.expression.reading import as_polynomial, hermite_coefficients, parts_of

REACH = Fraction(14)


@dataclass(frozen=True, slots=True)
class Growth:
    """|sigma(z)| <= factor (1 + |z|)^power exp(linear |z| + square z^2) wherever |z| >= 14."""

    factor: Fraction
    power: int = 0
    linear: Fraction = Fraction(0)
    square: Fraction = Fraction(0)

    @property
    def bounded(self) -> bool:
        """Whether the right-hand side is bounded."""
        return self.square < 0 or (self.square == 0 and self.linear == 0 and self.power == 0)

    @property
    def determinate(self) -> bool:
        """Whether sigma(z) has exponential moments, so that its law is known by its powers."""
        return self.bounded or (self.square <= 0 and self.linear == 0 and self.power <= 2)


@lru_cache(maxsize=2048)
def growth(node: Node) -> Growth | None:
    """Return a bound of the expression far out, or None where the rules find none.

    Example:
        >>> from metier.multi_index.expression.reading import parse
        >>> growth(parse("gelu(x) + 3")).power
        1
        >>> growth(parse("exp(exp(x))")) is None
        True
    """
    match node:
        case Num(value):
            return Growth(abs(value))
        case Constant():
            return Growth(Fraction(4))
        case Var():
            return Growth(Fraction(1), power=1)
        case Add(terms):
            return _sum([growth(term) for term in terms])
        case Mul(factors):
            return _product([growth(factor) for factor in factors])
        case Pow(base, exponent):
            return _power(base, exponent)
        case Call(name, argument):
            return _call(name, argument)
    return None


def _sum(parts: list[Growth | None]) -> Growth | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return Growth(
        sum((part.factor for part in known), Fraction(0)),
        max(part.power for part in known),
        max(part.linear for part in known),
        max(part.square for part in known),
    )


def _product(parts: list[Growth | None]) -> Growth | None:
    total = Growth(Fraction(1))
    for part in parts:
        if part is None:
            return None
        total = Growth(
            total.factor * part.factor,
            total.power + part.power,
            total.linear + part.linear,
            total.square + part.square,
        )
    return total


def _power(base: Node, exponent: Fraction) -> Growth | None:
    if exponent > 0:
        inner = growth(base)
        if inner is None:
            return None
        if exponent.denominator == 1:
            return _product([inner] * exponent.numerator)
        whole = math.ceil(exponent)
        raised = _product([Growth(max(inner.factor, Fraction(1)), inner.power, inner.linear)] * whole)
        # exp(square z^2) with a negative square may be dropped, a positive one not be rounded down.
        return raised if inner.square <= 0 else None
    low, high = span(base)
    floor = low if low is not None and low > 0 else -high if high is not None and high < 0 else None
    if floor is None:
        return None
    return Growth((1 / floor) ** math.floor(-exponent) * max(1 / floor, Fraction(1)))


def _call(name: str, argument: Node) -> Growth | None:
    bound = FUNCTIONS[name].bound
    if bound is not None:
        return Growth(Fraction(bound))
    if name == "exp":
        return _exponential(argument)
    if name in ("sinh", "cosh"):
        up, down = _exponential(argument), _exponential(Mul((Num(Fraction(-1)), argument)))
        return _sum([up, down])
    inner = growth(argument)
    if inner is None:
        return None
    if name == "abs":
        return inner
    if name == "softplus":  # log(1 + e^u) <= |u| + 1
        return _sum([inner, Growth(Fraction(1))])
    if name == "sqrt":  # sqrt(t) <= 1 + t
        return _sum([inner, Growth(Fraction(1))])
    if name == "log":
        low, _ = span(argument)
        if low is None or low <= 0:
            return None
        return _sum([inner, Growth(Fraction(1) / low + 1)])
    return None


def _exponential(u: Node) -> Growth | None:
    coefficients = as_polynomial(u)
    if coefficients is not None and len(coefficients) <= 3:
        c0, c1, c2 = (*coefficients, *(Fraction(0),) * (3 - len(coefficients)))
        if abs(c0) > 600:
            return None
        return Growth(_exp_above(c0), linear=abs(c1), square=c2)
    _, high = span(u)
    return None if high is None or high > 600 else Growth(_exp_above(high))


def _exp_above(value: Fraction) -> Fraction:
    return Fraction(math.exp(float(value))) * (1 + Fraction(1, 2**30)) + Fraction(1, 10**300)


Bound = Fraction | None


@lru_cache(maxsize=2048)
def span(node: Node) -> tuple[Bound, Bound]:
    """Return bounds of the values on |z| >= 14 from below and from above; None where there is none."""
    coefficients = as_polynomial(node)
    if coefficients is not None and len(coefficients) % 2 == 1 and len(coefficients) > 1:
        return _polynomial_span(coefficients)
    match node:
        case Num(value):
            return value, value
        case Constant(name):
            return (Fraction(3), Fraction(4)) if name == "pi" else (Fraction(2), Fraction(3))
        case Add(terms):
            parts = [span(term) for term in terms]
            lows, highs = [low for low, _ in parts], [high for _, high in parts]
            return _total(lows), _total(highs)
        case Mul((Num(scale), *rest)):
            low, high = span(rest[0] if len(rest) == 1 else Mul(tuple(rest)))
            scaled = (None if low is None else scale * low, None if high is None else scale * high)
            return scaled if scale > 0 else (scaled[1], scaled[0])
        case Mul(factors):
            parts = [span(factor) for factor in factors]
            if all(low is not None and low >= 0 for low, _ in parts):
                return _times([low for low, _ in parts]), _times([high for _, high in parts])
        case Pow(base, exponent):
            return _power_span(base, exponent)
        case Call(name, argument):
            return _call_span(name, argument)
    return None, None


def _polynomial_span(coefficients: tuple[Fraction, ...]) -> tuple[Bound, Bound]:
    """An even-degree polynomial keeps half of its leading term once the others are small enough."""
    degree, lead = len(coefficients) - 1, coefficients[-1]
    others = sum((abs(a) * REACH ** (i - degree) for i, a in enumerate(coefficients[:-1])), Fraction(0))
    if others > abs(lead) / 2:
        return None, None
    edge = abs(lead) / 2 * REACH**degree
    return (edge, None) if lead > 0 else (None, -edge)


def _power_span(base: Node, exponent: Fraction) -> tuple[Bound, Bound]:
    low, high = span(base)
    if exponent < 0 and exponent.denominator == 1 and low is not None and low > 0:
        return (high**exponent.numerator if high is not None else Fraction(0)), low**exponent.numerator
    if exponent > 0 and exponent.denominator == 1 and exponent.numerator % 2 == 0:
        return Fraction(0), None
    if low is not None and low >= 0:
        return Fraction(0), None
    return None, None


def _call_span(name: str, argument: Node) -> tuple[Bound, Bound]:
    low, high = span(argument)
    if name == "abs":
        return (REACH if isinstance(argument, Var) else Fraction(0)), None
    if name == "exp":
        top = None if high is None or high > 600 else _exp_above(high)
        if low is None or low < -600:
            return Fraction(0), top
        return Fraction(math.exp(float(min(low, Fraction(600))))) * Fraction(99, 100), top
    if name == "cosh":
        return Fraction(1), None
    if name == "sigmoid":
        return Fraction(0), Fraction(1)
    if name in ("softplus", "sqrt"):
        return Fraction(0), None
    bound = FUNCTIONS[name].bound
    return (None, None) if bound is None else (-Fraction(bound), Fraction(bound))


def _total(bounds: list[Bound]) -> Bound:
    known = [bound for bound in bounds if bound is not None]
    return None if len(known) < len(bounds) else sum(known, Fraction(0))


def _times(bounds: list[Bound]) -> Bound:
    product = Fraction(1)
    for bound in bounds:
        if bound is None:
            return None
        product *= bound
    return product


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
