"""Exact expectations of piecewise polynomials through phi and Phi at their cuts."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from metier.multi_index.expression.balls import flint, precision, rational
from metier.multi_index.expression.evaluate import Polynomial, as_polynomial, polynomial_sum, trimmed
from metier.multi_index.expression.nodes import Node
from metier.multi_index.expression.pieces import Cut, Piece, pieces_of


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
    out = []
    for piece in pieces_of(node):
        polynomial = _polynomial_of(piece)
        if polynomial is None:
            return None
        out.append(PolynomialPiece(piece.low, piece.high, polynomial))
    return tuple(out)


def _polynomial_of(piece: Piece) -> Polynomial | None:
    return as_polynomial(piece.node)


def level_values(pieces: tuple[PolynomialPiece, ...]) -> tuple[Fraction, ...] | None:
    """Return the distinct values of a step function, else None.

    Example:
        >>> from metier.multi_index.expression.parse import parse
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
    if n % 2:
        return 0
    product = 1
    for i in range(1, n, 2):
        product *= i
    return product


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
    total: Polynomial = ()
    for n, a in enumerate(polynomial):
        if a:
            total = polynomial_sum(total, tuple(a * r for r in _boundary(n)))
    return total


def piecewise_expectation(pieces: tuple[PolynomialPiece, ...]) -> Stepwise:
    """Return E[p(z)] of a piecewise polynomial; cuts at -c are folded onto c where both are rational."""
    means = [gaussian_mean(piece.polynomial) for piece in pieces]
    borders = [boundary_polynomial(piece.polynomial) for piece in pieces]
    constant = means[-1]
    cuts: list[tuple[Cut, Polynomial, Fraction]] = []
    for i, piece in enumerate(pieces[:-1]):
        assert piece.high is not None
        jump = polynomial_sum(borders[i + 1], tuple(-a for a in borders[i]))
        cuts.append((piece.high, jump, means[i] - means[i + 1]))
    exact: dict[Fraction, list[Fraction]] = {}
    rest: list[tuple[Cut, Polynomial, Fraction]] = []
    for cut, jump, mean in cuts:
        if cut.exact is None:
            rest.append((cut, jump, mean))
            continue
        at = cut.exact
        height = sum((a * at**n for n, a in enumerate(jump)), Fraction(0))
        if at < 0:  # Phi(-c) = 1 - Phi(c)
            constant += mean
            mean = -mean
        if at == 0:  # Phi(0) = 1/2
            constant += mean / 2
            mean = Fraction(0)
        entry = exact.setdefault(abs(at), [Fraction(0), Fraction(0)])
        entry[0] += height
        entry[1] += mean
    folded = [
        (Cut(float(at), exact=at), trimmed([height]), mean)
        for at, (height, mean) in sorted(exact.items())
        if height or mean
    ]
    kept = [(cut, jump, mean) for cut, jump, mean in rest if jump or mean]
    return Stepwise(constant, (*folded, *kept))


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
            height = f.arb(0)
            for a in reversed(jump):
                height = height * x + f.arb(rational(a))
            total += height * (-x * x / 2).exp() * root
            if mean:
                total += f.arb(rational(mean)) * (1 + (x / f.arb(2).sqrt()).erf()) * half
        return total
