"""Prove which of the even and odd parts of an expression are polynomials; exact zeros come from there."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from .evaluate import Polynomial, as_polynomial, polynomial_product, polynomial_sum
from .functions import FUNCTIONS
from .nodes import Add, Call, Mul, Node, Pow, is_constant

UNKNOWN = None
HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Parts:
    """The odd part (f(x) - f(-x))/2 and the even part (f(x) + f(-x))/2, where they are known polynomials.

    None means: some function, not known to be a polynomial.
    """

    odd: Polynomial | None
    even: Polynomial | None

    @property
    def parity(self) -> str | None:
        """Which of "even" and "odd" is proved, else None."""
        if self.odd == ():
            return "even"
        return "odd" if self.even == () else None


@lru_cache(maxsize=4096)
def parts_of(node: Node) -> Parts:
    """Return what is known of the odd and the even part of an expression.

    Example:
        >>> from metier.multi_index.expression.parse import parse
        >>> parts_of(parse("x*sigmoid(x)")).odd  # x/2: the rest is even
        (Fraction(0, 1), Fraction(1, 2))
        >>> parts_of(parse("tanh(x) + x**2")).parity is None
        True
    """
    coefficients = as_polynomial(node)
    if coefficients is not None:
        return _split(coefficients)
    if is_constant(node):
        return Parts(odd=(), even=UNKNOWN)
    match node:
        case Add(terms):
            found = [parts_of(term) for term in terms]
            total = found[0]
            for part in found[1:]:
                total = Parts(odd=_sum(total.odd, part.odd), even=_sum(total.even, part.even))
            return total
        case Mul(factors):
            total = parts_of(factors[0])
            for factor in factors[1:]:
                total = _times(total, parts_of(factor))
            return total
        case Pow(base, exponent):
            return _power(parts_of(base), exponent)
        case Call(name, argument):
            return _call(name, parts_of(argument))
    return Parts(odd=UNKNOWN, even=UNKNOWN)


def _split(coefficients: Polynomial) -> Parts:
    def keep(parity: int) -> Polynomial:
        kept = [a if i % 2 == parity else Fraction(0) for i, a in enumerate(coefficients)]
        while kept and not kept[-1]:
            kept.pop()
        return tuple(kept)

    return Parts(odd=keep(1), even=keep(0))


def _sum(p: Polynomial | None, q: Polynomial | None) -> Polynomial | None:
    return UNKNOWN if p is None or q is None else polynomial_sum(p, q)


def _product(p: Polynomial | None, q: Polynomial | None) -> Polynomial | None:
    if p == () or q == ():
        return ()
    return UNKNOWN if p is None or q is None else polynomial_product(p, q)


def _times(f: Parts, g: Parts) -> Parts:
    odd = _sum(_product(f.odd, g.even), _product(f.even, g.odd))
    return Parts(odd=odd, even=_sum(_product(f.odd, g.odd), _product(f.even, g.even)))


def _power(base: Parts, exponent: Fraction) -> Parts:
    if exponent.denominator == 1 and 0 < exponent <= 32:
        total = base
        for _ in range(exponent.numerator - 1):
            total = _times(total, base)
        return total
    if base.odd == ():
        return Parts(odd=(), even=UNKNOWN)
    if base.even == () and exponent.denominator == 1:
        odd = exponent.numerator % 2 == 1
        return Parts(odd=UNKNOWN, even=()) if odd else Parts(odd=(), even=UNKNOWN)
    return Parts(odd=UNKNOWN, even=UNKNOWN)


def _call(name: str, u: Parts) -> Parts:
    if u.odd == ():
        return Parts(odd=(), even=UNKNOWN)
    if u.even == ():
        if name == "sigmoid":
            return Parts(odd=UNKNOWN, even=(HALF,))
        if name == "softplus" and u.odd is not None:
            return Parts(odd=polynomial_product(u.odd, (HALF,)), even=UNKNOWN)
        parity = FUNCTIONS[name].parity
        if parity == "even":
            return Parts(odd=(), even=UNKNOWN)
        if parity == "odd":
            return Parts(odd=UNKNOWN, even=())
    return Parts(odd=UNKNOWN, even=UNKNOWN)
