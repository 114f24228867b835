"""Expressions in ball arithmetic: enclosures that hold for certain (python-flint)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from typing import Any

from metier.core.extras import require

from .evaluate import as_polynomial
from .functions import FUNCTIONS
from .nodes import Add, Call, Constant, Mul, Node, Num, Pow, Var

BallFunction = Callable[[Any, bool], Any]


def flint() -> Any:
    """Return python-flint, or say which extra brings it."""
    return require("flint")


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Compute with `bits` bits inside the block."""
    context = flint().ctx
    before = context.prec
    context.prec = bits
    try:
        yield
    finally:
        context.prec = before


def rational(value: Fraction) -> Any:
    """Return an exact rational of python-flint."""
    return flint().fmpq(value.numerator, value.denominator)


@lru_cache(maxsize=1024)
def ball_function(node: Node, bits: int) -> BallFunction:
    """Return f(x, analytic) on complex balls; numbers are rounded to `bits` once, here."""
    acb = flint().acb
    coefficients = as_polynomial(node)
    if coefficients is not None:
        with precision(bits):
            numbers = [acb(rational(a)) for a in coefficients] or [acb(0)]
        return _horner(numbers)
    match node:
        case Constant(name):
            with precision(bits):
                value = acb.pi() if name == "pi" else acb(1).exp()
            return lambda x, _: value
        case Num(number):
            with precision(bits):
                exact = acb(rational(number))
            return lambda x, _: exact
        case Var():
            return lambda x, _: x
        case Add(terms):
            return _folded([ball_function(term, bits) for term in terms], lambda a, b: a + b)
        case Mul(factors):
            return _folded([ball_function(factor, bits) for factor in factors], lambda a, b: a * b)
        case Pow(base, exponent):
            return _power(ball_function(base, bits), exponent, bits)
        case Call(name, argument):
            inner, outer = ball_function(argument, bits), FUNCTIONS[name].ball
            return lambda x, analytic: outer(inner(x, analytic), analytic)
    raise TypeError(f"no ball function of {node!r}")


def _horner(numbers: list[Any]) -> BallFunction:
    highest, rest = numbers[-1], numbers[-2::-1]

    def evaluate(x: Any, analytic: bool) -> Any:
        total = highest
        for a in rest:
            total = total * x + a
        return total

    return evaluate


def _folded(parts: list[BallFunction], combine: Callable[[Any, Any], Any]) -> BallFunction:
    first, rest = parts[0], parts[1:]

    def evaluate(x: Any, analytic: bool) -> Any:
        total = first(x, analytic)
        for part in rest:
            total = combine(total, part(x, analytic))
        return total

    return evaluate


def _power(base: BallFunction, exponent: Fraction, bits: int) -> BallFunction:
    if exponent.denominator == 1:
        whole = exponent.numerator
        return lambda x, analytic: base(x, analytic) ** whole
    with precision(bits):
        p = flint().acb(rational(exponent))
    # exp(p log u) has the cut of the logarithm, and says so where it must be analytic.
    return lambda x, analytic: (base(x, analytic).log(analytic=analytic) * p).exp()


def real_ball(node: Node, low: Any, high: Any, bits: int) -> Any:
    """Return a real ball that holds f on the real interval from `low` to `high` (real balls)."""
    middle = low if low is high else low.union(high)
    return ball_function(node, bits)(flint().acb(middle), False).real
