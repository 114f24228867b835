"""Even step functions with any prescribed noise sensitivity exponent, certified by integers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metier.core.checks import ensure, positive_int

from .activations import Activation, from_node
from .certify.coefficients import Coefficient, exact_zero, from_ball
from .expression.nodes import ONE, Node, add, multiply, number, subtract
from .expression.pieces import flint, precision, rational
from .expression.reading import parse

FACTORS = {
    1: (1,),
    2: (1, 2),
    3: (1, 2, 3),
    4: (1, 2, 3, 5),
    5: (1, 2, 3, 5, 7),
    6: (1, 2, 3, 4, 5, 7),
    7: (1, 2, 3, 4, 5, 7, 11),
    8: (1, 2, 3, 5, 7, 8, 11, 13),
    9: (1, 2, 3, 4, 5, 7, 9, 11, 13),
    10: (1, 2, 3, 4, 5, 7, 9, 11, 13, 17),
    11: (1, 2, 3, 4, 5, 7, 9, 11, 13, 17, 19),
    12: (1, 2, 3, 4, 5, 7, 9, 11, 13, 17, 19, 23),
}
"""n_1, n_2, ... with a short product of (1 - x^n_i): equal power sums with few levels (Erdős and Szekeres).

Any further list of positive integers works as well; the number of levels grows.
"""

MAX_EXPONENT = max(FACTORS)


@dataclass(frozen=True, slots=True)
class Levels:
    """Levels inside and outside |z| = 1; each stretch holds the same mass of |z^2 - 1|.

    c_{k,2} = (2 phi(1) / m) (sum_i outside_i^k - sum_i inside_i^k) with m stretches on either side.
    """

    inside: tuple[Fraction, ...]
    outside: tuple[Fraction, ...]

    def power_difference(self, k: int) -> Fraction:
        """Return sum outside^k - sum inside^k, exactly."""
        return sum((b**k for b in self.outside), Fraction(0)) - sum((a**k for a in self.inside), Fraction(0))

    def affine(self, scale: Fraction, shift: Fraction) -> Levels:
        """Return the levels of scale * sigma + shift."""
        return Levels(
            tuple(scale * a + shift for a in self.inside), tuple(scale * b + shift for b in self.outside)
        )

    def coefficient(self, k: int, bits: int) -> Coefficient:
        """Return c_{k,2}, decided by integers alone."""
        difference = self.power_difference(k)
        if not difference:
            return exact_zero(k, 2, f"equal sums of powers {k} of the levels inside and outside |z| = 1")
        f = flint()
        with precision(bits):
            density = f.arb(rational(Fraction(-1, 2))).exp() * (2 * f.arb.pi()).rsqrt()
            ball = density * f.arb(rational(2 * difference / len(self.inside)))
        return from_ball(k, 2, ball, reason="the levels' power sums, in integers", bits=bits)


def equal_power_sums(order: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return two multisets of integers with equal sums of powers 1..order-1 and unequal ones at `order`.

    The signed exponents of prod_i (1 - x^{n_i}) with `order` factors: x = 1 is a root of exactly that
    order, so that the first difference is order! prod_i n_i.

    Example:
        >>> equal_power_sums(3)
        ((1, 2, 6), (0, 4, 5))
    """
    signs = Counter({0: 1})
    for n in FACTORS[order]:
        for exponent, value in tuple(signs.items()):
            signs[exponent + n] -= value
    minus, plus = (tuple(e for e in sorted(signs) for _ in range(side * signs[e])) for side in (-1, 1))
    return minus, plus


def step_activation(noise_sensitivity: int = 3) -> Activation:
    """Return an even step function whose noise sensitivity exponent is the given one, by construction.

    Because z phi(z) is an antiderivative of (1 - z^2) phi(z), cuts at z phi(z) = (i/m) phi(1) divide the mass
    of |z^2 - 1| into m equal parts on either side of |z| = 1. With levels a_i inside and b_i outside,
    c_{k,2} = (2 phi(1)/m) (sum_i b_i^k - sum_i a_i^k), and equal sums of powers (Prouhet, Tarry, Escott) make
    exactly the first coefficients vanish: c_{k,2} = 2 phi(1)/m k! prod_i n_i, up to its sign, at k = beta*.

    Args:
        noise_sensitivity: beta*, 1 to 12.

    Returns:
        The activation; `exponents` certifies it by integers.

    Raises:
        InputError: no whole number from 1 to 12.

    Example:
        >>> from metier.multi_index import exponents
        >>> e = exponents(step_activation(noise_sensitivity=4))
        >>> e.noise_sensitivity, e.coefficient(3, 2).state
        (4, 'certified zero')

    Source: ours; equal sums of powers are classical (Erdős and Szekeres 1959).
    """
    order = positive_int("noise_sensitivity", noise_sensitivity)
    ensure(
        order <= MAX_EXPONENT,
        f"noise_sensitivity of a step activation is at most {MAX_EXPONENT}",
        expected=f"1 to {MAX_EXPONENT}",
        got=repr(noise_sensitivity),
        next_step="Ask for a smaller one: the law of such an exponent starts below the noise of floats.",
    )
    return _step_activation(order)


@lru_cache(maxsize=32)
def _step_activation(order: int) -> Activation:
    inside, outside = equal_power_sums(order)
    levels = Levels(tuple(map(Fraction, inside)), tuple(map(Fraction, outside)))
    made = from_node(_steps(levels), name=f"step{order}", levels=levels)
    positive = np.array([kink for kink in made.kinks if kink > 0])
    values = made.function(
        np.concatenate([[0.5 * positive[0]], 0.5 * (positive[1:] + positive[:-1]), [13.0]])
    )
    return replace(made, function=_StepFunction(positive, values))


@dataclass(frozen=True, slots=True, eq=False)
class _StepFunction:
    """An even step function on arrays, by a search among its positive cuts."""

    cuts: NDArray[np.float64]
    values: NDArray[np.float64]

    def __call__(self, z: Any) -> Any:
        return self.values[np.searchsorted(self.cuts, np.abs(z))]


def _steps(levels: Levels) -> Node:
    """The steps as an expression of |x| > 1 and of |x| exp(-x^2/2) > (i/m) exp(-1/2)."""
    m = len(levels.inside)
    outer = parse("abs(x) > 1")
    above = {i: parse(f"abs(x)*exp(-x**2/2) > {i}/{m}*exp(-1/2)") for i in range(1, m)}
    inside = _telescope(levels.inside, [above[i] for i in range(1, m)])
    outside = _telescope(levels.outside, [subtract(ONE, above[m - i]) for i in range(1, m)])
    return add((multiply((subtract(ONE, outer), inside)), multiply((outer, outside))))


def _telescope(values: tuple[Fraction, ...], crossed: list[Node]) -> Node:
    jumps = (number(b - a) for a, b in pairwise(values))
    return add((number(values[0]), *(multiply(pair) for pair in zip(jumps, crossed, strict=True))))
