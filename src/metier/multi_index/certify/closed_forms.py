"""Exact expectations: sums of z^n exp(a z^2 + b z), and piecewise polynomials through phi and Phi."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from typing import Any

from metier.core.errors import InputError
from metier.multi_index.expression.nodes import Add, Call, Mul, Node, Num, Pow, Var
from metier.multi_index.expression.pieces import Cut, flint, pieces_of, precision, rational
from metier.multi_index.expression.reading import Polynomial, as_polynomial, polynomial_sum, trimmed

MAX_TERMS = 400


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A complex number with rational parts."""

    re: Fraction
    im: Fraction = Fraction(0)

    def __add__(self, other: Gaussian) -> Gaussian:
        return Gaussian(self.re + other.re, self.im + other.im)

    def __mul__(self, other: Gaussian) -> Gaussian:
        return Gaussian(self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re)

    def __bool__(self) -> bool:
        return bool(self.re or self.im)


Key = tuple[int, Fraction, Fraction, Fraction, Fraction]
"""n, a, the real and the imaginary part of b, and r, of z^n exp(a z^2 + b z + r)."""

Terms = tuple[tuple[Key, Gaussian], ...]

_FLAT = (Fraction(0), Fraction(0), Fraction(0), Fraction(0))
_I_HALF = Gaussian(Fraction(0), Fraction(-1, 2))  # 1/(2i)
_HALF = Gaussian(Fraction(1, 2))


@lru_cache(maxsize=2048)
def as_exponential(node: Node) -> Terms | None:
    """Return the terms of an expression that is such a sum with rational numbers, else None.

    Example:
        >>> from metier.multi_index.expression.reading import parse
        >>> len(as_exponential(parse("x**2*exp(-x**2) + cos(x)")))
        3
        >>> as_exponential(parse("tanh(x)")) is None
        True
    """
    match node:
        case Num(value):
            return _packed({(0, *_FLAT): Gaussian(value)})
        case Var():
            return _packed({(1, *_FLAT): Gaussian(Fraction(1))})
        case Add(parts) | Mul(parts):
            found = [terms for part in parts if (terms := as_exponential(part)) is not None]
            combine = _sum if isinstance(node, Add) else _product
            return combine(found) if len(found) == len(parts) else None
        case Pow(base, exponent) if exponent.denominator == 1 and 0 < exponent <= 32:
            inner = as_exponential(base)
            return None if inner is None else _product([inner] * exponent.numerator)
        case Call(name, argument) if name in ("exp", "sin", "cos", "sinh", "cosh"):
            return _function(name, as_polynomial(argument))
    return None


def _packed(terms: dict[Key, Gaussian]) -> Terms:
    return tuple((key, value) for key, value in terms.items() if value)


def _sum(parts: list[Terms]) -> Terms | None:
    return _collected((key, value) for part in parts for key, value in part)


def _collected(terms: Iterable[tuple[Key, Gaussian]]) -> Terms:
    total: dict[Key, Gaussian] = defaultdict(lambda: Gaussian(Fraction(0)))
    for key, value in terms:
        total[key] += value
    return _packed(total)


def _product(parts: list[Terms]) -> Terms | None:
    total = parts[0]
    for part in parts[1:]:
        if len(total) * len(part) > MAX_TERMS**2:
            return None
        total = _collected(
            ((n + m, a + d, b + e, c + f, r + s), left * right)
            for (n, a, b, c, r), left in total
            for (m, d, e, f, s), right in part
        )
        if len(total) > MAX_TERMS:
            return None
    return total


def _function(name: str, u: Polynomial | None) -> Terms | None:
    if u is None or len(u) > 3:
        return None
    zero = Fraction(0)
    level, linear, square = (*u, zero, zero, zero)[:3]
    if name == "exp":
        return _packed({(0, square, linear, zero, level): Gaussian(Fraction(1))})
    if square or level:
        return None
    sign = Gaussian(Fraction(-1 if name in ("sin", "sinh") else 1))
    outer = _I_HALF if name == "sin" else _HALF
    ends = ((zero, b) if name in ("sin", "cos") else (b, zero) for b in (linear, -linear))
    up, down = ((0, zero, *end, zero) for end in ends)
    return _collected([(up, outer), (down, outer * sign)])


def expectation(terms: Terms, power: int) -> dict[tuple[int, Fraction, Fraction], Gaussian]:
    """Return E under N(0, 1) as sum of g sqrt(m) exp(r), by (m square-free, Re r, Im r) -> g.

    Algebraic multiples of distinct exponentials of algebraic numbers are linearly independent
    (Lindemann-Weierstrass), and square roots of distinct square-free integers are over the rationals, so
    that the sum is 0 exactly where the result is empty.

    Raises:
        InputError: a term grows too fast to have an expectation.
    """
    total: dict[tuple[int, Fraction, Fraction], Gaussian] = defaultdict(lambda: Gaussian(Fraction(0)))
    for (n, a, b_re, b_im, level), value in terms:
        if a >= Fraction(1, 2):
            raise InputError(
                "a power of the activation is integrable under the Gaussian",
                expected="growth below exp(z^2/2)",
                got=f"a term exp({a} z^2) in its power {power}",
                next_step="Ask for lower powers, or scale the argument down.",
            )
        s = 1 / (1 - 2 * a)
        b = Gaussian(b_re, b_im)
        square, (outside, root) = b * b, _square_free(s)
        key = (root, level + square.re * s / 2, square.im * s / 2)
        total[key] += value * _moment(n, b * Gaussian(s), s) * Gaussian(outside)
    return {key: value for key, value in total.items() if value}


def _moment(n: int, mean: Gaussian, s: Fraction) -> Gaussian:
    """E[(mean + sqrt(s) g)^n] by the three-term recursion."""
    before, current = Gaussian(Fraction(0)), Gaussian(Fraction(1))
    for i in range(n):
        before, current = current, mean * current + Gaussian(s * i) * before
    return current


@lru_cache(maxsize=4096)
def _square_free(s: Fraction) -> tuple[Fraction, int]:
    """sqrt(s) as outside * sqrt(root) with square-free root where small primes suffice."""
    inside, outside = s.numerator * s.denominator, Fraction(1, s.denominator)
    whole = math.isqrt(inside)
    if whole * whole == inside:
        return outside * whole, 1
    for prime in range(2, min(whole + 1, 2000)):
        while inside % (prime * prime) == 0:
            inside, outside = inside // prime**2, outside * prime
    return outside, inside


def value_ball(parts: dict[tuple[int, Fraction, Fraction], Gaussian], bits: int) -> Any:
    """Return the real ball of such a sum; imaginary parts cancel for a real activation."""
    f = flint()
    with precision(bits):
        total = f.arb(0)
        for (root, r_re, r_im), g in parts.items():
            size = f.arb(root).sqrt() * f.arb(rational(r_re)).exp()
            angle = f.arb(rational(r_im))
            total += size * (f.arb(rational(g.re)) * angle.cos() - f.arb(rational(g.im)) * angle.sin())
        return total


def vanishing_monomial(terms: Terms | None) -> bool:
    """Whether the activation is a constant plus c z^{2a} exp(-a z^2).

    Then sigma^k tilts the Gaussian to variance s = 1/(1 + 2ak), and
    E[sigma^k (z^2 - 1)] is proportional to (2ak + 1) s - 1 = 0 for every power k.
    """
    moving = [key for key, _ in terms or () if any(key[:4])]
    return len(moving) == 1 and all(a < 0 and not (b or c) and n == -2 * a for n, a, b, c, _ in moving)


@dataclass(frozen=True, slots=True)
class PolynomialPiece:
    """A stretch between two cuts (None is infinity) and its polynomial."""

    low: Cut | None
    high: Cut | None
    polynomial: Polynomial


@dataclass(frozen=True, slots=True)
class Stepwise:
    """E = constant + sum over cuts of P(cut) phi(cut) + Q Phi(cut), with rational P and Q."""

    constant: Fraction
    cuts: tuple[tuple[Cut, Polynomial, Fraction], ...]


@lru_cache(maxsize=1024)
def polynomial_pieces(node: Node) -> tuple[PolynomialPiece, ...] | None:
    """Return the pieces of an expression that is piecewise polynomial, else None."""
    pieces = [(piece.low, piece.high, as_polynomial(piece.node)) for piece in pieces_of(node)]
    found = tuple(PolynomialPiece(low, high, p) for low, high, p in pieces if p is not None)
    return found if len(found) == len(pieces) else None


def level_values(pieces: tuple[PolynomialPiece, ...]) -> tuple[Fraction, ...] | None:
    """Return the distinct values of a step function, else None.

    Example:
        >>> from metier.multi_index.expression.reading import parse
        >>> [int(v) for v in level_values(polynomial_pieces(parse("sign(x)")))]
        [-1, 1]
    """
    if any(len(piece.polynomial) > 1 for piece in pieces):
        return None
    return tuple(sorted({piece.polynomial[0] if piece.polynomial else Fraction(0) for piece in pieces}))


def double_factorial_moment(n: int) -> int:
    """Return E[z^n], z ~ N(0, 1).

    Example:
        >>> [double_factorial_moment(n) for n in range(7)]
        [1, 0, 1, 0, 3, 0, 15]
    """
    return 0 if n % 2 else math.prod(range(1, n, 2))


def gaussian_mean(polynomial: Polynomial) -> Fraction:
    """Return E[p(z)] exactly."""
    return sum((a * double_factorial_moment(n) for n, a in enumerate(polynomial) if a), Fraction(0))


@lru_cache(maxsize=256)
def _boundary(n: int) -> Polynomial:
    """R_n with int_a^b z^n phi = E[z^n] (Phi(b) - Phi(a)) + R_n(a) phi(a) - R_n(b) phi(b)."""
    if n < 2:
        return (Fraction(1),) if n == 1 else ()
    lower = _boundary(n - 2)
    return polynomial_sum((*(Fraction(0),) * (n - 1), Fraction(1)), tuple((n - 1) * a for a in lower))


def boundary_polynomial(polynomial: Polynomial) -> Polynomial:
    """Return R with int_a^b p phi = E[p] (Phi(b) - Phi(a)) + R(a) phi(a) - R(b) phi(b)."""
    parts = (tuple(a * r for r in _boundary(n)) for n, a in enumerate(polynomial) if a)
    return reduce(polynomial_sum, parts, ())


def piecewise_expectation(pieces: tuple[PolynomialPiece, ...]) -> Stepwise:
    """Return E[p(z)] of a piecewise polynomial; cuts at -c are folded onto c where both are rational."""
    means = [gaussian_mean(piece.polynomial) for piece in pieces]
    borders = [boundary_polynomial(piece.polynomial) for piece in pieces]
    constant = means[-1]
    exact: dict[Fraction, tuple[Fraction, Fraction]] = {}
    rest: list[tuple[Cut, Polynomial, Fraction]] = []
    for i, piece in enumerate(pieces[:-1]):
        assert piece.high is not None
        cut, at = piece.high, piece.high.exact
        jump, mean = polynomial_sum(borders[i + 1], tuple(-a for a in borders[i])), means[i] - means[i + 1]
        if at is None:
            rest.append((cut, jump, mean))
            continue
        # Phi(-c) = 1 - Phi(c), and Phi(0) = 1/2.
        constant += mean if at < 0 else mean / 2 if at == 0 else 0
        height, before = exact.get(abs(at), (Fraction(0), Fraction(0)))
        height += sum((a * at**n for n, a in enumerate(jump)), Fraction(0))
        exact[abs(at)] = height, before + (mean if at > 0 else -mean if at < 0 else 0)
    folded = [
        (Cut(float(at), exact=at), trimmed([height]), mean)
        for at, (height, mean) in sorted(exact.items())
        if height or mean
    ]
    return Stepwise(constant, (*folded, *(entry for entry in rest if entry[1] or entry[2])))


def is_exactly_zero(value: Stepwise) -> bool:
    """Whether every coefficient vanishes."""
    return not value.constant and not value.cuts


def stepwise_ball(value: Stepwise, bits: int) -> Any:
    """Return the real ball of the value."""
    f = flint()
    with precision(bits):
        total = f.arb(rational(value.constant))
        root = (2 * f.arb.pi()).rsqrt()
        half = f.arb(1) / 2
        for cut, jump, mean in value.cuts:
            x = cut.enclose(bits)
            height = reduce(lambda value, a: value * x + f.arb(rational(a)), reversed(jump), f.arb(0))
            total += height * (-x * x / 2).exp() * root
            if mean:
                total += f.arb(rational(mean)) * (1 + (x / f.arb(2).sqrt()).erf()) * half
        return total
