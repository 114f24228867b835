"""Bounds of an expression far out: |sigma(z)| <= A (1 + |z|)^m exp(b |z| + c z^2) for |z| >= reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from metier.multi_index.expression.evaluate import as_polynomial
from metier.multi_index.expression.functions import FUNCTIONS
from metier.multi_index.expression.nodes import Add, Call, Constant, Mul, Node, Num, Pow, Var

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
        >>> from metier.multi_index.expression.parse import parse
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
