"""Rigorous integration of sigma^k He_j phi in ball arithmetic, with a proved bound of the tails."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from metier.multi_index.expression.nodes import FUNCTIONS, Add, Call, Constant, Mul, Node, Num, Pow, Var
from metier.multi_index.expression.pieces import (
    Cut,
    ball_function,
    branches_known,
    flint,
    interval,
    pieces_of,
    precision,
    rational,
)
from metier.multi_index.expression.reading import as_polynomial, hermite_coefficients, parts_of

REACH = Fraction(14)
LARGEST = Fraction(600)
"""Exponentials of more are taken for infinite: floats end at 709."""

Bound = Any
"""A fraction, or an infinite float where there is no bound."""

RANGES: dict[str, tuple[Bound, Bound]] = {
    "cosh": (Fraction(1), math.inf),
    "sigmoid": (Fraction(0), Fraction(1)),
    "softplus": (Fraction(0), math.inf),
    "sqrt": (Fraction(0), math.inf),
}


class NoBoundError(Exception):
    """No rule bounds the activation far out, or the integral did not become finite; nothing is certified."""


class Growth(NamedTuple):
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
def growth(node: Node) -> Growth:
    """Return a bound of the expression far out.

    Raises:
        NoBoundError: the rules find none.

    Example:
        >>> from metier.multi_index.expression.reading import parse
        >>> growth(parse("gelu(x) + 3")).power
        1
        >>> growth(parse("exp(exp(x))"))
        Traceback (most recent call last):
        ...
        metier.multi_index.certify.integral.NoBoundError: no rule bounds the activation far out
    """
    match node:
        case Num(value):
            return Growth(abs(value))
        case Constant():
            return Growth(Fraction(4))
        case Var():
            return Growth(Fraction(1), power=1)
        case Add(terms):
            return _sum(growth(term) for term in terms)
        case Mul(factors):
            return _product(growth(factor) for factor in factors)
        case Pow(base, exponent) if exponent > 0:
            inner = growth(base)
            if exponent.denominator == 1:
                return _product([inner] * exponent.numerator)
            # exp(square z^2) with a negative square may be dropped, a positive one not be rounded down.
            _bounded(inner.square <= 0)
            larger = Growth(max(inner.factor, Fraction(1)), inner.power, inner.linear)
            return _product([larger] * math.ceil(exponent))
        case Pow(base, exponent):
            low, high = span(base)
            floor = max(low, -high)
            _bounded(floor > 0)
            return Growth((1 / floor) ** math.floor(-exponent) * max(1 / floor, Fraction(1)))
        case Call(name, argument):
            return _call(name, argument)
    raise TypeError(f"no growth of {node!r}")


def _bounded(holds: bool) -> None:
    if not holds:
        raise NoBoundError("no rule bounds the activation far out")


def _sum(parts: Iterable[Growth]) -> Growth:
    factors, *others = zip(*parts, strict=True)
    return Growth._make([sum(factors, Fraction(0)), *map(max, others)])


def _product(parts: Iterable[Growth]) -> Growth:
    factors, *others = zip(*parts, strict=True)
    return Growth._make([math.prod(factors), *map(sum, others)])


def _call(name: str, argument: Node) -> Growth:
    bound = FUNCTIONS[name].bound
    if bound is not None:
        return Growth(Fraction(bound))
    if name == "exp":
        return _exponential(argument)
    if name in ("sinh", "cosh"):
        return _sum([_exponential(argument), _exponential(Mul((Num(Fraction(-1)), argument)))])
    inner = growth(argument)
    if name == "abs":
        return inner
    if name == "log":
        low = span(argument)[0]
        _bounded(low > 0)
        return _sum([inner, Growth(1 / low + 1)])
    _bounded(name in ("softplus", "sqrt"))  # log(1 + e^u) <= |u| + 1, sqrt(t) <= 1 + t
    return _sum([inner, Growth(Fraction(1))])


def _exponential(u: Node) -> Growth:
    coefficients = as_polynomial(u)
    if coefficients is not None and len(coefficients) <= 3:
        level, linear, square = (*coefficients, *(Fraction(0),) * (3 - len(coefficients)))
        _bounded(abs(level) <= LARGEST)
        return Growth(_exp_above(level), linear=abs(linear), square=square)
    high = span(u)[1]
    _bounded(high <= LARGEST)
    return Growth(_exp_above(high))


def _exp_above(value: Bound) -> Bound:
    """A bound of exp(value) from above, infinite where floats end."""
    if value > LARGEST:
        return math.inf
    return Fraction(math.exp(float(value))) * (1 + Fraction(1, 2**30)) + Fraction(1, 10**300)


@lru_cache(maxsize=2048)
def span(node: Node) -> tuple[Bound, Bound]:
    """Return bounds of the values on |z| >= 14 from below and from above; infinite where there is none."""
    coefficients = as_polynomial(node)
    if coefficients is not None and len(coefficients) % 2 == 1 and len(coefficients) > 1:
        return _polynomial_span(coefficients)
    match node:
        case Num(value):
            return value, value
        case Constant(name):
            return (Fraction(3), Fraction(4)) if name == "pi" else (Fraction(2), Fraction(3))
        case Add(terms):
            lows, highs = zip(*map(span, terms), strict=True)
            return sum(lows), sum(highs)
        case Mul((Num(scale), *rest)):
            ends = [scale * end for end in span(rest[0] if len(rest) == 1 else Mul(tuple(rest)))]
            return min(ends), max(ends)
        case Mul(factors):
            lows, highs = zip(*map(span, factors), strict=True)
            if min(lows) >= 0:
                return math.prod(lows), math.prod(highs)
        case Pow(base, exponent):
            return _power_span(base, exponent)
        case Call(name, argument):
            return _call_span(name, argument)
    return -math.inf, math.inf


def _polynomial_span(coefficients: tuple[Fraction, ...]) -> tuple[Bound, Bound]:
    """An even-degree polynomial keeps half of its leading term once the others are small enough."""
    degree, lead = len(coefficients) - 1, coefficients[-1]
    others = sum((abs(a) * REACH ** (i - degree) for i, a in enumerate(coefficients[:-1])), Fraction(0))
    if others > abs(lead) / 2:
        return -math.inf, math.inf
    edge = lead / 2 * REACH**degree
    return (edge, math.inf) if lead > 0 else (-math.inf, edge)


def _power_span(base: Node, exponent: Fraction) -> tuple[Bound, Bound]:
    low, high = span(base)
    if exponent < 0 and exponent.denominator == 1 and low > 0:
        return (high**exponent.numerator if high < math.inf else Fraction(0)), low**exponent.numerator
    even = exponent > 0 and exponent.denominator == 1 and exponent.numerator % 2 == 0
    return Fraction(0) if even or low >= 0 else -math.inf, math.inf


def _call_span(name: str, argument: Node) -> tuple[Bound, Bound]:
    if name == "abs":
        return (REACH if isinstance(argument, Var) else Fraction(0)), math.inf
    if name == "exp":
        low, high = span(argument)
        below = Fraction(math.exp(float(min(low, LARGEST)))) * Fraction(99, 100) if low >= -LARGEST else 0
        return Fraction(below), _exp_above(high)
    if name in RANGES:
        return RANGES[name]
    bound = FUNCTIONS[name].bound
    return (-math.inf, math.inf) if bound is None else (-Fraction(bound), Fraction(bound))


REACHES = (14, 17, 20, 26, 34, 44)
TAIL_BITS = 100
TOLERANCE_BITS = 0.65
"""Integrals aim at this share of the working bits."""

EVALUATIONS = 30_000
"""Smooth pieces need 3 000 at most; a hidden singularity must end in a wide ball, not in minutes."""


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
            low = max(low, (Fraction(0), Fraction(0))) if half_only else low
            if low[0] < high[0]:
                total += _smooth(piece.node, power, degree, low[0], high[0], bits)
                total += _slack(node, power, degree, (low, high), bits)
        total *= (2 if half_only else 1) * (2 * flint().arb.pi()).rsqrt()
        total += flint().arb(0, tail)
    if not total.is_finite():
        raise NoBoundError("the enclosure of an integral is not finite")
    return total


def _even_integrand(node: Node, power: int, degree: int) -> bool:
    parity = parts_of(node).parity
    return parity is not None and (degree + (power if parity == "odd" else 0)) % 2 == 0


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
    for at, distance in (end for end in ends if end[1]):
        around = interval(at - distance, at + distance)
        value = abs(ball_function(node, bits)(f.acb(around), False).real) ** power
        bound = value * sum(abs(a) * abs(around) ** i for i, a in enumerate(hermite_coefficients(degree)))
        total += f.arb(0, (bound * f.arb(rational(2 * distance))).upper())
    return total


@lru_cache(maxsize=4096)
def _tail(node: Node, power: int, degree: int, bits: int) -> tuple[int, Any]:
    """The reach, and a bound of the integral beyond it on both sides.

    There the logarithm of A^k C (1 + z)^{km + j} exp(k b z + k c z^2) phi(z) is concave, so that its tangent
    at the reach bounds it and integrates to value / slope.
    """
    bound = growth(node)
    last, tail, enough = REACHES[0], None, flint().arb(2) ** -max(TAIL_BITS, round(TOLERANCE_BITS * bits))
    for reach in REACHES if branches_known(node) else REACHES[:1]:
        if (beyond := _beyond(bound, power, degree, reach)) is not None:
            last, tail = reach, beyond
        if tail is not None and tail < enough:
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
            beyond = _beyond(growth(part), power, degree, int(REACH))
            _bounded(beyond is not None)
            total += beyond
        return flint().arb(0, total.upper())
